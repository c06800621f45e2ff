// A stream as a card of the overview: state, level, labels with their last minutes, open events, figures.
import { el, fill, icon, refill, write } from "../dom.js";
import { nameOf } from "../house.js";
import { shortName } from "../parts.js";
import { link } from "../router.js";
import { clock, day, lasted, ms } from "../times.js";
import { figures, stateWords } from "../words.js";
import { LabelRows } from "./label_rows.js";
import { Level } from "./level.js";

/** @type {Record<string, string>} */
const SENSES = { audio: "sound", video: "video" };

/** One card. */
export class StreamCard {
  /** @param {any} stream @param {import("../house.js").House} house @param {{labels?: number, heading?: boolean}} [options] */
  constructor(stream, house, options = {}) {
    this.house = house;
    this.name = nameOf(stream);
    /** What is shown, so that nothing is drawn twice. */
    this.openKey = "";
    this.figureNames = "";
    const { machine, stream: name } = stream;
    this.level = new Level();
    this.rows = new LabelRows(house, this.name, options.labels || 6);
    this.state = el("span", { class: "state" }, el("i", { "aria-hidden": "true" }), el("b", {}));
    this.senses = el("span", { class: "soft senses" });
    this.problem = el("div", { class: "problem", hidden: true });
    this.open = el("ul", { class: "open-events", "aria-label": "Open events" });
    this.figures = el("dl", { class: "figures" });
    const title = shortName(stream, house);
    this.element = el(
      "article",
      { class: "card", "aria-label": title },
      el(
        "header",
        { class: "card-head" },
        options.heading === false ? null : el("h2", {}, el("a", { href: link(["stream", machine, name]) }, title)),
        this.state,
      ),
      el("p", { class: "card-hears" }, this.level.element, this.senses),
      this.problem,
      this.open,
      this.rows.element,
      el(
        "footer",
        { class: "card-foot" },
        this.figures,
        el(
          "nav",
          { class: "card-links", "aria-label": `More about ${title}` },
          el("a", { href: link(["explain", machine, name]) }, icon("explain"), "Explain"),
          el("a", { href: link(["day", day(Date.now())], { stream: this.name }) }, icon("day"), "Today"),
          (!house.about || house.about.corrections) && el("a", { href: link(["teach"], { stream: this.name }) }, icon("teach"), "Teach"),
        ),
      ),
    );
  }

  /** @param {any} stream */
  update(stream) {
    if (!stream) return;
    const words = stateWords(stream);
    this.state.className = `state ${words.tone}`;
    write(/** @type {Element} */ (this.state.querySelector("b")), words.title);
    this.element.dataset.tone = words.tone;
    const senses = (stream.modalities || []).map((/** @type {string} */ each) => SENSES[each] || each).join(" and ");
    write(this.senses, words.tone === "good" && senses ? senses : "");
    this.showProblem(stream, words);
    this.level.update(stream.level_dbfs);
    this.showOpen(stream.open_events || []);
    this.rows.update(stream);
    this.showFigures(figures(stream));
  }

  /** @param {any} stream @param {import("../words.js").StateWords} words */
  showProblem(stream, words) {
    const what = stream.problem || (words.tone === "bad" ? words.title : "");
    this.problem.hidden = !what && !words.advice;
    const since = stream.since && words.tone !== "good" ? ` Since ${clock(stream.since)}.` : "";
    const text = `${sentence(what)}${since} ${stream.problem && words.tone === "good" ? "" : words.advice}`.trim();
    if (this.problem.dataset.text === text) return;
    this.problem.dataset.text = text;
    this.problem.className = `problem ${words.tone === "good" ? "warn" : words.tone}`;
    fill(this.problem, el("p", {}, el("strong", {}, sentence(what) || `${words.title}.`), `${since} ${words.tone === "good" ? "" : words.advice}`));
  }

  /** @param {any[]} events */
  showOpen(events) {
    const key = JSON.stringify(events.map((each) => [each.mid, each.start, this.house.openEvent(this.name, each.mid)?.id]));
    if (this.openKey !== key) {
      this.openKey = key;
      refill(this.open, events.map((each) => this.openEvent(each)));
    }
    for (const each of this.open.querySelectorAll("span[data-start]")) {
      write(each, `for ${lasted((Date.now() - ms(/** @type {HTMLElement} */ (each).dataset.start || "")) / 1000)}`);
    }
  }

  /** @param {any} each */
  openEvent(each) {
    const stored = this.house.openEvent(this.name, each.mid);
    const parts = [el("b", {}, each.name), " ", el("span", { data: { start: each.start } })];
    return el("li", {}, stored && stored.id !== null ? el("a", { class: "chip", href: link(["event", stored.id]) }, parts) : el("span", { class: "chip" }, parts));
  }

  /** @param {[string, string, string][]} list */
  showFigures(list) {
    if (this.figureNames !== list.map(([name]) => name).join()) {
      this.figureNames = list.map(([name]) => name).join();
      fill(this.figures, list.map(([name, value, meaning]) => el("div", { title: meaning }, el("dt", {}, name), el("dd", {}, value))));
    }
    this.figures.querySelectorAll("dd").forEach((each, i) => write(each, list[i][1]));
  }
}

/** A text as a sentence: with a capital and a full stop. @param {string} text */
function sentence(text) {
  if (!text) return "";
  const whole = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
}
