// Labels by minute as a heat map, with the same numbers as a table.
import { palette } from "../colours.js";
import { el, fill, write } from "../dom.js";
import { minute, score } from "../times.js";

const ROW_PX = 20;
const TABLE_ROWS = 20;

/** A heat map of the API. */
export class HeatMap {
  /** @param {any} map @param {AbortSignal} signal @param {{machine: string, stream: string}} stream */
  constructor(map, signal, stream) {
    this.canvas = /** @type {HTMLCanvasElement} */ (el("canvas", { class: "heat-canvas", "aria-hidden": "true" }));
    this.names = el("ul", { class: "heat-names", "aria-hidden": "true" });
    this.axis = el("p", { class: "axis", "aria-hidden": "true" });
    this.tip = el("p", { class: "reading" }, "");
    this.table = el("table", { class: "plain-table" });
    const details = /** @type {HTMLDetailsElement} */ (el("details", {}, el("summary", {}, "As a table"), el("div", { class: "wide-table", tabindex: "0", role: "region", "aria-label": `Scores of ${stream.stream} by label` }, this.table)));
    this.element = el("div", { class: "heat-map" }, el("div", { class: "heat-grid" }, this.names, el("div", { class: "heat-box" }, this.canvas, this.axis)), this.tip, details);
    this.canvas.addEventListener("pointermove", (event) => this.read(event));
    this.canvas.addEventListener("pointerleave", () => write(this.tip, this.hint()));
    addEventListener("resize", () => this.draw(), { signal });
    const watcher = new ResizeObserver(() => this.draw());
    watcher.observe(this.canvas);
    signal.addEventListener("abort", () => watcher.disconnect());
    this.show(map);
  }

  /** @param {any} map */
  show(map) {
    this.map = map;
    const { minutes, rows } = map;
    fill(this.names, rows.map((/** @type {any} */ row) => el("li", { title: row.name }, row.name)));
    this.canvas.style.setProperty("height", `${rows.length * ROW_PX}px`);
    const marks = [0, 0.25, 0.5, 0.75, 1].map((part) => minute(Date.parse(minutes[0]) + part * (Date.parse(minutes.at(-1)) + 60_000 - Date.parse(minutes[0]))));
    fill(this.axis, marks.map((each) => el("span", {}, each)));
    fill(
      this.table,
      el("caption", { class: "unseen" }, "The highest scores of each label in this time"),
      el("thead", {}, el("tr", {}, ["Label", "Highest score", "At", "Mean of the minutes"].map((each) => el("th", { scope: "col" }, each)))),
      el("tbody", {}, rows.slice(0, TABLE_ROWS).map((/** @type {any} */ row) => this.tableRow(row))),
    );
    write(this.tip, this.hint());
    this.draw();
  }

  /** @param {any} row */
  tableRow(row) {
    const best = row.largest.reduce((/** @type {number} */ most, /** @type {number | null} */ each, /** @type {number} */ i) => ((each ?? -1) > (row.largest[most] ?? -1) ? i : most), 0);
    const known = row.mean.filter((/** @type {number | null} */ each) => each !== null);
    const mean = known.length ? known.reduce((/** @type {number} */ sum, /** @type {number} */ each) => sum + each, 0) / known.length : 0;
    return el("tr", {}, el("th", { scope: "row" }, row.name), el("td", {}, score(row.largest[best] ?? 0)), el("td", {}, minute(this.map.minutes[best])), el("td", {}, score(mean)));
  }

  hint() {
    return "Each column is a minute. The stronger the colour, the higher the score. Hatched: not listening.";
  }

  draw() {
    const { rows, minutes } = this.map;
    const scale = Math.min(2, devicePixelRatio || 1);
    const width = Math.round(this.canvas.clientWidth * scale);
    const height = Math.round(rows.length * ROW_PX * scale);
    if (!width) return;
    if (this.canvas.width !== width || this.canvas.height !== height) [this.canvas.width, this.canvas.height] = [width, height];
    const context = /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext("2d"));
    const colours = palette();
    context.clearRect(0, 0, width, height);
    rows.forEach((/** @type {any} */ row, /** @type {number} */ at) => {
      const top = Math.round(at * ROW_PX * scale);
      const tall = Math.round((ROW_PX - 2) * scale);
      for (let i = 0; i < minutes.length; i++) {
        const from = Math.round((i * width) / minutes.length);
        const to = Math.max(from + 1, Math.round(((i + 1) * width) / minutes.length));
        const value = row.largest[i];
        context.fillStyle = value === null ? colours.hatch(context, scale) : colours.heat[Math.round(Math.min(1, value) * 255)];
        context.fillRect(from, top, to - from, tall);
      }
    });
  }

  /** @param {PointerEvent} event */
  read(event) {
    const { rows, minutes } = this.map;
    const box = this.canvas.getBoundingClientRect();
    const i = Math.min(minutes.length - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * minutes.length)));
    const row = rows[Math.min(rows.length - 1, Math.max(0, Math.floor((event.clientY - box.top) / ROW_PX)))];
    const value = row.largest[i];
    write(this.tip, value === null ? `${minute(minutes[i])}: not listening` : `${row.name} at ${minute(minutes[i])}: highest ${score(value)}, mean ${score(row.mean[i] ?? 0)}`);
  }
}
