// What is known of the file: its labels, scores, events, audio and pictures. Knows no element of the page.
import { bytesOf, inflated, takeBlock } from "./bytes.js";
import { folded } from "./format.js";

/** Halves the columns until few are left: a level has the highest value of each two columns of the level before. */
function pyramid(cells, rows, count) {
  const levels = [{ cells, count }];
  while (levels[levels.length - 1].count > 256) {
    const below = levels[levels.length - 1];
    const half = Math.ceil(below.count / 2);
    const above = new Uint8Array(rows * half);
    for (let row = 0; row < rows; row++) {
      const from = row * below.count;
      for (let i = 0; i < half; i++) {
        const left = below.cells[from + 2 * i];
        const right = 2 * i + 1 < below.count ? below.cells[from + 2 * i + 1] : 0;
        above[row * half + i] = left > right ? left : right;
      }
    }
    levels.push({ cells: above, count: half });
  }
  return levels;
}

/** Columns of bytes on a time line, at several resolutions. */
export class Grid {
  /** `cells` has `rows` rows of `count` columns; the first column begins at `startS` and each lasts `spanS`. */
  constructor(cells, rows, count, startS, spanS) {
    this.rows = rows;
    this.startS = startS;
    this.spanS = spanS;
    this.levels = pyramid(cells, rows, count);
  }

  /** The coarsest level whose columns are no longer than this, or the finest. */
  level(secondsPerPixel) {
    const wanted = Math.floor(Math.log2(Math.max(1, secondsPerPixel / this.spanS)));
    const index = Math.min(wanted, this.levels.length - 1);
    return { ...this.levels[index], spanS: this.spanS * 2 ** index };
  }

  /** The value of a row at a time. */
  at(row, t) {
    const { cells, count } = this.levels[0];
    const column = Math.min(count - 1, Math.max(0, Math.floor((t - this.startS) / this.spanS)));
    return count ? cells[row * count + column] : 0;
  }
}

/** Read the data blocks of the page. */
export async function readModel() {
  const summary = JSON.parse(document.getElementById("summary").textContent);
  const data = JSON.parse(takeBlock("timeline"));
  const labels = data.labels.map((each, row) => ({ ...each, row, folded: folded(each.name), events: [] }));
  const columns = data.columns;
  const events = data.events.label.map((row, i) => ({
    label: labels[row],
    start: data.events.start_s[i],
    end: data.events.end_s[i],
    peak: data.events.peak[i],
    modalities: data.events.modalities[i],
  }));
  events.sort((a, b) => a.start - b.start || b.peak - a.peak);
  for (const event of events) event.label.events.push(event);
  for (const label of labels) {
    label.firstS = label.events.length ? label.events[0].start : label.first_s;
    label.peak = Math.max(label.peak, ...label.events.map((event) => event.peak));
  }
  // The first row says which columns were heard; the others are the labels.
  const cells = await inflated(takeBlock("scores"));
  const heard = new Grid(cells.subarray(0, columns.count), 1, columns.count, columns.start_s, columns.span_s);
  const scores = new Grid(cells.subarray(columns.count), labels.length, columns.count, columns.start_s, columns.span_s);
  return { summary, labels, events, heard, scores, durationS: Math.max(summary.duration_s, 0.01), sound: await readSound(data.sound) };
}

async function readSound(about) {
  if (!about) return null;
  const bytes = await inflated(takeBlock("sound"));
  const { count, bands, start_s: startS, span_s: spanS } = about;
  return {
    bands: new Grid(bytes.subarray(0, bands * count), bands, count, startS, spanS),
    peaks: new Grid(bytes.subarray(bands * count), 1, count, startS, spanS),
  };
}

/** The pictures of the file, decoded one after the other; `onPicture` is called for each. */
export async function readThumbnails(onPicture) {
  const text = takeBlock("thumbnails");
  if (!text) return [];
  const { start_s: starts, jpeg } = JSON.parse(text);
  const pictures = [];
  for (let i = 0; i < starts.length; i++) {
    try {
      const image = await createImageBitmap(new Blob([bytesOf(jpeg[i])], { type: "image/jpeg" }));
      pictures.push({ t: starts[i], image });
    } catch {
      continue; // a damaged picture must not cost the others
    }
    onPicture(pictures);
  }
  return pictures;
}

/** The event whose time has this moment with the highest peak, of this label. */
export function eventAt(label, t) {
  let found = null;
  for (const event of label.events) {
    if (event.start > t) break;
    if (t < event.end && (!found || event.peak > found.peak)) found = event;
  }
  return found;
}
