// The labels of a stream: for each the scores of the last five minutes as a heat map, and the score now.
import { palette } from "../colours.js";
import { el, fill, write } from "../dom.js";
import { COLUMN_MS, COLUMNS, drawRow, NOTHING } from "../heat.js";
import { clock, score } from "../times.js";

const SETTLED_MS = 4000; // rows keep their places this long, so that they can be read
const WEAK = 0.1; // labels that never were above this are noise

/** A list of labels that follows a stream. Hidden from nobody: each entry says name, score and the highest score. */
export class LabelRows {
  /** @param {import("../house.js").House} house @param {string} name `machine/stream` @param {number} count */
  constructor(house, name, count) {
    this.house = house;
    this.name = name;
    this.count = count;
    /** @type {Map<string, {element: HTMLElement, canvas: HTMLCanvasElement, score: HTMLElement, most: HTMLElement}>} */
    this.rows = new Map();
    this.chosenAt = 0;
    this.list = el("ul", { class: "label-rows" });
    this.element = el("div", { class: "labels" }, this.list, el("p", { class: "axis", "aria-hidden": "true" }, el("span", {}, "5 min ago"), el("span", {}, "now")));
  }

  /** @param {any} stream */
  update(stream) {
    const heat = this.house.heat(this.name);
    const now = Date.now();
    const scores = new Map((stream.labels || []).map((/** @type {any} */ each) => [each.mid, each.score]));
    const open = new Set((stream.open_events || []).map((/** @type {any} */ each) => each.mid));
    if (now - this.chosenAt > SETTLED_MS || this.rows.size < Math.min(this.count, heat.labels.size)) this.choose(heat, open, now);
    for (const [mid, row] of this.rows) {
      const label = heat.labels.get(mid);
      const value = scores.get(mid) || 0;
      drawRow(row.canvas, label ? label.cells : null, heat.heard, palette());
      write(row.score, score(value));
      row.element.style.setProperty("--part", `${Math.round(value * 100)}%`);
      row.element.classList.toggle("open", open.has(mid));
      write(row.most, label ? `, highest in 5 minutes ${score(Math.max(...label.cells))}${open.has(mid) ? ", an event is open" : ""}` : "");
    }
  }

  /** @param {import("../heat.js").Heat} heat @param {Set<string>} open @param {number} now */
  choose(heat, open, now) {
    const strong = heat.best(this.count * 2).filter((mid) => Math.max(.../** @type {any} */ (heat.labels.get(mid)).cells) >= WEAK);
    const chosen = [...new Set([...[...open].filter((mid) => heat.labels.has(mid)), ...strong])].slice(0, this.count);
    this.chosenAt = now;
    if (chosen.join() === [...this.rows.keys()].join()) return;
    const before = this.rows;
    this.rows = new Map(chosen.map((mid) => [mid, before.get(mid) || row(/** @type {any} */ (heat.labels.get(mid)).name)]));
    if (chosen.length) fill(this.list, [...this.rows.values()].map((each) => each.element));
    else fill(this.list, el("li", { class: "soft" }, heat.heard[COLUMNS - 1] !== NOTHING || heat.heard[COLUMNS - 2] !== NOTHING ? "Nothing but quiet so far." : `Nothing received since ${clock(now - COLUMNS * COLUMN_MS)}.`));
  }
}

/** @param {string} name */
function row(name) {
  const canvas = /** @type {HTMLCanvasElement} */ (el("canvas", { "aria-hidden": "true" }));
  const value = el("span", { class: "label-score" }, "0.00");
  const most = el("span", { class: "unseen" });
  return { element: el("li", { class: "label-row" }, el("span", { class: "label-name", title: name }, name), canvas, value, most), canvas, score: value, most };
}
