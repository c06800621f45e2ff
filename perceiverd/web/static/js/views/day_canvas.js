// Draws the rows of a day between two times, and says what is at a point.
import { palette } from "../colours.js";
import { clock, minute } from "../times.js";

export const AXIS_PX = 26;
const LEAST_PX = 3; // an event is never narrower
const TICK_PX = 76;
const STEPS_MS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600].map((each) => each * 1000);
const NEAR_PX = 6;
const STRENGTHS = 4; // few, because each change of the pen costs time

/** Height of a row for so many rows, in pixels. @param {number} count */
export function rowHeight(count) {
  return count <= 8 ? 46 : count <= 16 ? 32 : 24;
}

/** How many parallel lines a row of this height has. @param {number} height */
export function lanesOf(height) {
  return height >= 46 ? 3 : 2;
}

/** The canvas of a day. */
export class DayCanvas {
  /** @param {HTMLCanvasElement} canvas @param {import("./day_model.js").DayModel} model */
  constructor(canvas, model) {
    this.canvas = canvas;
    this.model = model;
    /** @type {import("./day_model.js").Row[]} */
    this.rows = [];
    this.height = rowHeight(1);
    this.from = model.startMs;
    this.to = model.endMs;
    /** Index of the event that is marked; -1 for none. */
    this.marked = -1;
    /** @type {{from: number, to: number, row: number} | null} */
    this.selected = null;
    this.drawMs = 0;
    /** In pixels, as of the last drawing: asking the element for each event would take most of the time. */
    this.width = canvas.clientWidth;
  }

  /** @param {import("./day_model.js").Row[]} rows */
  setRows(rows) {
    this.rows = rows;
    this.height = rowHeight(rows.length);
    this.canvas.style.setProperty("height", `${AXIS_PX + rows.length * this.height}px`);
  }

  /** Pixels from the left of a time. @param {number} time */
  x(time) {
    return ((time - this.from) / (this.to - this.from)) * this.width;
  }

  /** The time at a pixel. @param {number} x */
  time(x) {
    return this.from + (x / Math.max(1, this.width)) * (this.to - this.from);
  }

  /** The row at a pixel; -1 above the rows. @param {number} y */
  rowAt(y) {
    const row = Math.floor((y - AXIS_PX) / this.height);
    return row >= 0 && row < this.rows.length ? row : -1;
  }

  draw() {
    const began = performance.now();
    const { canvas } = this;
    this.width = canvas.clientWidth;
    const scale = Math.min(2, devicePixelRatio || 1);
    const [width, height] = [Math.round(this.width * scale), Math.round((AXIS_PX + this.rows.length * this.height) * scale)];
    if (!width) return;
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, this.width, height);
    const colours = palette();
    this.rows.forEach((row, i) => this.drawRow(pen, row, i, colours));
    this.drawTimes(pen, colours);
    this.drawSelected(pen, colours);
    this.drawMs = performance.now() - began;
    canvas.dataset.drawMs = this.drawMs.toFixed(1);
  }

  /** @param {CanvasRenderingContext2D} pen @param {import("./day_model.js").Row} row @param {number} i @param {import("../colours.js").Palette} colours */
  drawRow(pen, row, i, colours) {
    const top = AXIS_PX + i * this.height;
    const tall = this.height - 4;
    pen.fillStyle = colours.named.ground;
    pen.fillRect(0, top, Math.min(this.width, Math.max(0, this.x(this.model.pastMs))), tall);
    for (const gap of row.gaps) {
      if (gap.to < this.from || gap.from > this.to) continue;
      const left = Math.max(0, this.x(gap.from));
      pen.fillStyle = colours.hatch(pen, 1);
      pen.fillRect(left, top, Math.max(1, Math.min(this.width, this.x(gap.to)) - left), tall);
    }
    const { start_ms: starts, end_ms: ends, labels, peaks } = this.model.line;
    const lane = tall / row.laneCount;
    const inset = lane > 8 ? 1 : 0.5;
    let colour = "";
    let strength = -1;
    for (let at = 0; at < row.events.length; at++) {
      const event = row.events[at];
      if (ends[event] < this.from || starts[event] > this.to) continue;
      const left = this.x(starts[event]);
      const wide = Math.max(LEAST_PX, this.x(ends[event]) - left);
      const number = this.model.colours[labels[event]];
      const wanted = number < 0 ? colours.other : colours.labels[number];
      if (wanted !== colour) pen.fillStyle = colour = wanted;
      const wantedStrength = Math.round(peaks[event] * STRENGTHS);
      if (wantedStrength !== strength) pen.globalAlpha = 0.4 + (0.6 * (strength = wantedStrength)) / STRENGTHS;
      pen.fillRect(left, top + row.lanes[at] * lane + inset, wide, lane - 2 * inset);
      if (event === this.marked) {
        this.outline(pen, left, top + row.lanes[at] * lane, wide, lane, colours);
        strength = -1;
      }
    }
    pen.globalAlpha = 1;
  }

  /** @param {CanvasRenderingContext2D} pen @param {number} left @param {number} top @param {number} wide @param {number} tall @param {import("../colours.js").Palette} colours */
  outline(pen, left, top, wide, tall, colours) {
    pen.globalAlpha = 1;
    pen.strokeStyle = colours.named.ink;
    pen.lineWidth = 2;
    pen.strokeRect(left - 2, top - 1, wide + 4, tall + 2);
  }

  /** @param {CanvasRenderingContext2D} pen @param {import("../colours.js").Palette} colours */
  drawTimes(pen, colours) {
    const perPixel = (this.to - this.from) / this.width;
    const step = STEPS_MS.find((each) => each / perPixel >= TICK_PX) || 43_200_000;
    const zero = this.model.startMs;
    const text = step < 60_000 ? clock : minute;
    pen.font = "12px system-ui, sans-serif";
    pen.textBaseline = "middle";
    const bottom = AXIS_PX + this.rows.length * this.height;
    for (let at = zero + Math.ceil((this.from - zero) / step) * step; at <= this.to; at += step) {
      const x = Math.round(this.x(at)) + 0.5;
      pen.fillStyle = colours.named.rule;
      pen.fillRect(x, AXIS_PX - 6, 1, bottom);
      pen.fillStyle = colours.named.soft;
      const words = text(at);
      pen.textAlign = x < 20 ? "left" : x > this.width - 20 ? "right" : "center";
      pen.fillText(words, Math.min(this.width - 2, Math.max(2, x)), 10);
    }
    const now = Date.now();
    if (now > this.from && now < this.to) {
      pen.fillStyle = colours.named.event;
      pen.fillRect(this.x(now) - 1, AXIS_PX - 8, 2, bottom);
    }
  }

  /** @param {CanvasRenderingContext2D} pen @param {import("../colours.js").Palette} colours */
  drawSelected(pen, colours) {
    if (!this.selected) return;
    const { from, to, row } = this.selected;
    const [left, right] = [this.x(Math.min(from, to)), this.x(Math.max(from, to))];
    const [top, tall] = row < 0 ? [AXIS_PX, this.rows.length * this.height] : [AXIS_PX + row * this.height, this.height - 4];
    pen.fillStyle = pen.strokeStyle = colours.named.accent;
    pen.globalAlpha = 0.2;
    pen.fillRect(left, top, right - left, tall);
    pen.globalAlpha = 1;
    pen.lineWidth = 2;
    pen.strokeRect(left, top, right - left, tall);
  }

  /** The event at a point; -1 if there is none. The nearest within a few pixels counts. @param {number} x @param {number} y */
  eventAt(x, y) {
    const i = this.rowAt(y);
    if (i < 0) return -1;
    const row = this.rows[i];
    const lane = Math.floor((y - AXIS_PX - i * this.height) / ((this.height - 4) / row.laneCount));
    const { start_ms: starts, end_ms: ends } = this.model.line;
    let best = -1;
    let least = NEAR_PX;
    for (let at = 0; at < row.events.length; at++) {
      const event = row.events[at];
      const left = this.x(starts[event]);
      const right = Math.max(left + LEAST_PX, this.x(ends[event]));
      const away = Math.max(0, left - x, x - right) + (row.lanes[at] === lane ? 0 : 2);
      if (away < least) [least, best] = [away, event];
    }
    return best;
  }

  /** The time without listening at a point. @param {number} x @param {number} y */
  gapAt(x, y) {
    const i = this.rowAt(y);
    const time = this.time(x);
    return i < 0 ? undefined : this.rows[i].gaps.find((gap) => gap.from <= time && gap.to >= time);
  }
}
