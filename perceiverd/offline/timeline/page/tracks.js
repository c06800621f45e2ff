// The large canvas: pictures, spectrogram, times, and a row for each label with its scores and events.
import { clock } from "./format.js";
import { Raster, columnsOf, highest } from "./raster.js";

const STEPS_S = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200];
const TICK_PX = 84;
const SOUND_PX = 72;
const PICTURE_PX = 60;
const AXIS_PX = 24;
const EVENT_PX = 5;
export const MOST_PX_PER_S = 400;

/** Where things are, for a canvas of this width. On narrow screens the names lie above the rows. */
export function layoutOf(model, narrow, pictures) {
  const soundTop = pictures ? PICTURE_PX + 2 : 0;
  const axisTop = soundTop + (model.sound ? SOUND_PX : 0);
  const nameHeight = narrow ? 18 : 0;
  const heatHeight = narrow ? 13 : 16;
  return { soundTop, axisTop, rowsTop: axisTop + AXIS_PX, nameHeight, heatHeight, rowHeight: nameHeight + heatHeight + EVENT_PX + 5 };
}

/** Draws the tracks. */
export class Tracks {
  constructor(canvas, model) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { alpha: false });
    this.model = model;
    this.heat = new Raster();
    this.sound = new Raster();
    this.pictures = [];
  }

  /** Give the canvas a size in CSS pixels. */
  resize(width, height) {
    const scale = Math.min(2, window.devicePixelRatio || 1);
    const [across, down] = [Math.round(width * scale), Math.round(height * scale)];
    if (this.canvas.width !== across || this.canvas.height !== down) {
      this.canvas.width = across;
      this.canvas.height = down;
      this.canvas.style.width = `${width}px`;
      this.canvas.style.height = `${height}px`;
    }
    [this.width, this.height, this.scale] = [width, height, scale];
  }

  /** Draw what is visible. `view` has `leftS`, `pxPerS`, `rows`, `layout`, `colours`, `least`, `t` and `chosen`. */
  draw(view) {
    const { context } = this;
    context.setTransform(this.scale, 0, 0, this.scale, 0, 0);
    context.fillStyle = view.colours.paper;
    context.fillRect(0, 0, this.width, this.height);
    if (view.layout.soundTop) this.drawPictures(view);
    if (this.model.sound) this.drawSound(view);
    this.drawTimes(view);
    this.drawHeat(view);
    for (let i = 0; i < view.rows.length; i++) this.drawEvents(view, view.rows[i], i);
    this.drawPlayhead(view);
  }

  x(view, t) {
    return (t - view.leftS) * view.pxPerS;
  }

  drawPictures(view) {
    const pictures = this.pictures;
    if (!pictures.length) return;
    const wide = Math.max(24, (PICTURE_PX * pictures[0].image.width) / pictures[0].image.height);
    const left = view.leftS * view.pxPerS;
    const end = this.model.durationS * view.pxPerS;
    for (let slot = Math.floor(left / wide); slot * wide < Math.min(end, left + this.width); slot++) {
      const t = ((slot + 0.5) * wide) / view.pxPerS;
      let low = 0;
      for (let high = pictures.length - 1; low < high; ) {
        const middle = (low + high + 1) >> 1;
        if (pictures[middle].t <= t) low = middle;
        else high = middle - 1;
      }
      const { image } = pictures[low];
      const shown = Math.min(wide, end - slot * wide) / wide;
      this.context.drawImage(image, 0, 0, image.width * shown, image.height, slot * wide - left, 0, wide * shown - 1, PICTURE_PX);
    }
  }

  drawSound(view) {
    const { bands } = this.model.sound;
    const width = Math.max(1, Math.floor(this.width));
    const secondsPerPixel = 1 / view.pxPerS;
    const level = bands.level(secondsPerPixel);
    const { first, last } = columnsOf(level, bands.startS, width, view.leftS, secondsPerPixel, this.model.durationS);
    const pixels = this.sound.begin(width, bands.rows);
    for (let band = 0; band < bands.rows; band++) {
      const to = (bands.rows - 1 - band) * width;
      for (let x = 0; x < width; x++) {
        pixels[to + x] = first[x] < 0 ? view.colours.paperPixel : view.colours.sound[highest(level, band, first[x], last[x])];
      }
    }
    this.sound.end();
    this.context.imageSmoothingEnabled = true;
    this.context.drawImage(this.sound.canvas, 0, 0, width, bands.rows, 0, view.layout.soundTop, width, SOUND_PX);
  }

  drawHeat(view) {
    const { scores, heard } = this.model;
    const rows = view.rows;
    if (!rows.length) return;
    const width = Math.max(1, Math.floor(this.width));
    const secondsPerPixel = 1 / view.pxPerS;
    const level = scores.level(secondsPerPixel);
    const known = heard.level(secondsPerPixel);
    const { first, last } = columnsOf(level, scores.startS, width, view.leftS, secondsPerPixel, this.model.durationS);
    const { heat, faint, nothing, paperPixel } = view.colours;
    const least = Math.ceil(view.least * 255);
    const pixels = this.heat.begin(width, rows.length);
    for (let i = 0; i < rows.length; i++) {
      const { row } = rows[i];
      for (let x = 0; x < width; x++) {
        if (first[x] < 0) pixels[i * width + x] = paperPixel;
        else if (!highest(known, 0, first[x], last[x])) pixels[i * width + x] = nothing;
        else {
          const value = highest(level, row, first[x], last[x]);
          pixels[i * width + x] = (value < least ? faint : heat)[value];
        }
      }
    }
    this.heat.end();
    this.context.imageSmoothingEnabled = false;
    const { rowsTop, rowHeight, nameHeight, heatHeight } = view.layout;
    for (let i = 0; i < rows.length; i++) {
      const top = rowsTop + i * rowHeight + nameHeight + 2;
      this.context.drawImage(this.heat.canvas, 0, i, width, 1, 0, top, width, heatHeight);
    }
  }

  drawEvents(view, label, i) {
    const { context } = this;
    const { rowsTop, rowHeight } = view.layout;
    const top = rowsTop + (i + 1) * rowHeight - EVENT_PX - 2;
    context.fillStyle = view.colours.event;
    const rightS = view.leftS + this.width / view.pxPerS;
    for (const event of label.events) {
      if (event.start > rightS) break;
      if (event.end < view.leftS || event.peak < view.least) continue;
      const left = Math.max(-2, this.x(view, event.start));
      const right = Math.min(this.width + 2, this.x(view, event.end));
      context.fillRect(left, top, Math.max(2, right - left - 0.5), EVENT_PX);
    }
  }

  ticks(view) {
    const step = STEPS_S.find((each) => each * view.pxPerS >= TICK_PX) ?? 86400;
    const ticks = [];
    const rightS = Math.min(this.model.durationS, view.leftS + this.width / view.pxPerS);
    for (let i = Math.floor(view.leftS / step); i * step <= rightS; i++) ticks.push(i * step);
    return { ticks, digits: step < 1 ? 1 : 0 };
  }

  drawTimes(view) {
    const { context } = this;
    const { ticks, digits } = this.ticks(view);
    const { axisTop } = view.layout;
    context.font = "12px system-ui, sans-serif";
    context.textBaseline = "middle";
    for (const t of ticks) {
      const x = Math.round(this.x(view, t)) + 0.5;
      context.globalAlpha = 0.55;
      context.fillStyle = view.colours.rule;
      context.fillRect(x, axisTop, 1, this.height - axisTop);
      context.globalAlpha = 1;
      context.fillStyle = view.colours.soft;
      const text = clock(t, digits);
      if (x >= 0 && x + 4 + context.measureText(text).width <= this.width) context.fillText(text, x + 4, axisTop + AXIS_PX / 2);
    }
  }

  drawPlayhead(view) {
    const { context } = this;
    const x = this.x(view, view.t);
    if (x < -40 || x > this.width + 40) return;
    context.fillStyle = view.colours.head;
    context.fillRect(Math.round(x) - 1, 0, 2, this.height);
    const text = clock(view.t);
    context.font = "600 12px system-ui, sans-serif";
    const wide = context.measureText(text).width + 10;
    const left = Math.min(Math.max(0, x - wide / 2), this.width - wide);
    context.beginPath();
    context.roundRect(left, view.layout.axisTop + 3, wide, AXIS_PX - 6, 5);
    context.fill();
    context.fillStyle = view.colours.paper;
    context.fillText(text, left + 5, view.layout.axisTop + AXIS_PX / 2 + 0.5);
  }
}
