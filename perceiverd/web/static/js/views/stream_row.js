// A stream as a row of the table that replaces the cards when there are many streams.
import { palette } from "../colours.js";
import { el, fill, unseen, write } from "../dom.js";
import { drawRow } from "../heat.js";
import { nameOf } from "../house.js";
import { scoreBar, shortName } from "../parts.js";
import { link } from "../router.js";
import { score } from "../times.js";
import { stateWords } from "../words.js";
import { Level } from "./level.js";

const HEARD = 2; // labels in a row

/** One row. */
export class StreamRow {
  /** @param {any} stream @param {import("../house.js").House} house */
  constructor(stream, house) {
    this.house = house;
    this.name = nameOf(stream);
    this.key = "";
    this.level = new Level();
    this.state = el("span", { class: "state" }, el("i", { "aria-hidden": "true" }), el("b", {}));
    this.problem = el("small", { class: "row-problem" });
    this.heard = el("div", { class: "heard" });
    this.canvas = /** @type {HTMLCanvasElement} */ (el("canvas", { "aria-hidden": "true" }));
    this.most = unseen("");
    const title = shortName(stream, house);
    this.element = el(
      "tr",
      {},
      el("th", { scope: "row" }, el("a", { href: link(["stream", stream.machine, stream.stream]) }, title)),
      el("td", { class: "cell-state" }, this.state, this.problem),
      el("td", { class: "cell-level" }, this.level.element),
      el("td", { class: "cell-heard" }, this.heard),
      el("td", { class: "cell-heat" }, this.canvas, this.most),
    );
  }

  /** @param {any} stream */
  update(stream) {
    if (!stream) return;
    const words = stateWords(stream);
    this.element.dataset.tone = words.tone;
    this.state.className = `state ${words.tone}`;
    write(/** @type {Element} */ (this.state.querySelector("b")), words.title);
    write(this.problem, stream.problem || "");
    this.level.update(stream.level_dbfs);
    this.showHeard(stream);
    const heat = this.house.heat(this.name);
    const most = heat.most();
    drawRow(this.canvas, most, heat.heard, palette());
    write(this.most, `highest score ${score(Math.max(...most))}`);
  }

  /** @param {any} stream */
  showHeard(stream) {
    const open = new Set((stream.open_events || []).map((/** @type {any} */ each) => each.mid));
    const labels = [...(stream.labels || [])].sort((a, b) => Number(open.has(b.mid)) - Number(open.has(a.mid)) || b.score - a.score);
    const key = labels.slice(0, HEARD).map((each) => `${each.mid} ${each.score.toFixed(2)} ${open.has(each.mid)}`).join();
    if (key === this.key) return;
    this.key = key;
    fill(
      this.heard,
      labels.slice(0, HEARD).map((each) =>
        el("span", { class: `heard-label ${open.has(each.mid) ? "open" : ""}` }, scoreBar(each.score), el("span", { class: "heard-name" }, each.name), el("span", { class: "heard-score" }, score(each.score)), open.has(each.mid) && unseen(", an event is open")),
      ),
      !labels.length && el("span", { class: "soft" }, "nothing"),
    );
  }
}
