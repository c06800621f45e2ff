// The last minutes of a stream's scores, in columns of 2.5 s, for heat maps. Its memory is bounded.

export const COLUMN_MS = 2500;
export const COLUMNS = 120; // five minutes
const MOST_LABELS = 48;
export const [NOTHING, HEARD, UNKNOWN] = [0, 1, 2];
const SETTLED_MS = 150_000; // the history stores a minute some time after its end

/** The largest score of each label in each column. */
export class Heat {
  constructor() {
    /** @type {Map<string, {name: string, cells: Float32Array}>} */
    this.labels = new Map();
    /** For each column: NOTHING was received, something was HEARD, or it is UNKNOWN. */
    this.heard = new Uint8Array(COLUMNS).fill(UNKNOWN);
    /** Number of the newest column since 1970. */
    this.last = Math.floor(Date.now() / COLUMN_MS);
  }

  /** Move on to a time: columns that begin are empty. @param {number} timeMs */
  advance(timeMs) {
    const column = Math.floor(timeMs / COLUMN_MS);
    const steps = Math.min(COLUMNS, column - this.last);
    if (steps <= 0) return;
    shift(this.heard, steps);
    for (const [mid, label] of this.labels) {
      shift(label.cells, steps);
      if (label.cells.every((each) => each === 0)) this.labels.delete(mid);
    }
    this.last = column;
  }

  /** Add the scores of a window. @param {number} timeMs @param {{mid: string, name: string, score: number}[]} scores */
  add(timeMs, scores) {
    this.advance(timeMs);
    const at = COLUMNS - 1 - (this.last - Math.floor(timeMs / COLUMN_MS));
    if (at < 0) return;
    this.heard[at] = HEARD;
    for (const each of scores) this.raise(each.mid, each.name, at, each.score);
  }

  /** Add minutes of the history, as the API gives them. @param {{minutes: string[], windows?: number[], rows: any[]}} map */
  seed(map) {
    this.advance(Date.now());
    map.minutes.forEach((minute, i) => {
      const first = Math.floor(Date.parse(minute) / COLUMN_MS);
      const listened = map.windows ? map.windows[i] > 0 : map.rows.some((row) => row.largest[i] !== null);
      if (!listened && Date.now() - Date.parse(minute) < SETTLED_MS) return;
      for (let column = first; column < first + 60_000 / COLUMN_MS; column++) {
        const at = COLUMNS - 1 - (this.last - column);
        if (at < 0 || at >= COLUMNS || this.heard[at] !== UNKNOWN) continue;
        this.heard[at] = listened ? HEARD : NOTHING;
        for (const row of map.rows) if (row.largest[i]) this.raise(row.mid, row.name, at, row.largest[i]);
      }
    });
  }

  /** @param {string} mid @param {string} name @param {number} at @param {number} score */
  raise(mid, name, at, score) {
    let label = this.labels.get(mid);
    if (!label) {
      if (this.labels.size >= MOST_LABELS) this.forget();
      label = { name, cells: new Float32Array(COLUMNS) };
      this.labels.set(mid, label);
    }
    if (score > label.cells[at]) label.cells[at] = score;
  }

  /** Remove the label with the lowest scores. */
  forget() {
    let least = Infinity;
    let which = "";
    for (const [mid, label] of this.labels) {
      const most = Math.max(...label.cells);
      if (most < least) [least, which] = [most, mid];
    }
    this.labels.delete(which);
  }

  /** The labels with the highest scores, older ones weighing less. @param {number} count @returns {string[]} mids */
  best(count) {
    const weighed = [...this.labels].map(([mid, label]) => {
      let weight = 0;
      for (let i = 0; i < COLUMNS; i++) weight = Math.max(weight, label.cells[i] * (0.5 + (0.5 * i) / COLUMNS));
      return /** @type {[string, number]} */ ([mid, weight]);
    });
    return weighed.sort((a, b) => b[1] - a[1]).slice(0, count).map(([mid]) => mid);
  }

  /** The highest score of any label, for each column. @returns {Float32Array} */
  most() {
    const most = new Float32Array(COLUMNS);
    for (const { cells } of this.labels.values()) for (let i = 0; i < COLUMNS; i++) if (cells[i] > most[i]) most[i] = cells[i];
    return most;
  }
}

/** @param {Float32Array | Uint8Array} cells @param {number} steps */
function shift(cells, steps) {
  cells.copyWithin(0, steps);
  cells.fill(0, Math.max(0, cells.length - steps));
}

/**
 * Draw one row of columns. Columns in which nothing was received are hatched, unknown ones stay empty.
 * @param {HTMLCanvasElement} canvas @param {Float32Array | null} cells null: nothing known of this label
 * @param {Uint8Array} heard @param {import("./colours.js").Palette} palette
 */
export function drawRow(canvas, cells, heard, palette) {
  const scale = Math.min(2, devicePixelRatio || 1);
  const width = Math.max(1, Math.round(canvas.clientWidth * scale));
  const height = Math.max(1, Math.round(canvas.clientHeight * scale));
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.clearRect(0, 0, width, height);
  for (let i = 0; i < COLUMNS; i++) {
    const from = Math.round((i * width) / COLUMNS);
    const to = Math.round(((i + 1) * width) / COLUMNS);
    if (heard[i] === UNKNOWN) continue;
    context.fillStyle = heard[i] === HEARD ? palette.heat[Math.round((cells ? cells[i] : 0) * 255)] : palette.hatch(context, scale);
    context.fillRect(from, 0, to - from, height);
  }
}
