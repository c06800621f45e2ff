// Why there is an event or none: for each label its score against its thresholds, live, and its last minute.
import { palette } from "../colours.js";
import { el, fill, write } from "../dom.js";
import { nameOf } from "../house.js";
import { empty, heading, notice, streamField } from "../parts.js";
import { go, link } from "../router.js";
import { clock, score } from "../times.js";
import { candidateWords } from "../words.js";

const LABELS = 14;
const WINDOWS = 120; // a minute at 0.5 s a window
const SETTLED_MS = 3000;
/** @type {Record<string, string>} */
const SUPPRESSED = {
  "below on": "reached the lower threshold only",
  "too short": "too short",
  merged: "joined with an event just before",
  subsumed: "part of a more specific event",
  "cool-down": "too soon after an event",
  denied: "denied by the configuration",
  "not allowed": "not among the allowed labels",
};

/** @param {HTMLElement} root @param {import("../main.js").Context} context */
export function explainView(root, { house, live, signal, parts, title }) {
  const name = parts.length === 2 ? parts.join("/") : "";
  title(name ? `Why: ${parts[1]}` : "Explain");
  const choice = streamField("Stream", house, name, name ? "" : "Choose a stream");
  choice.select.addEventListener("change", () => {
    const chosen = house.streams.get(choice.select.value);
    if (chosen) go(link(["explain", chosen.machine, chosen.stream]));
  });
  house.on("membership", choice.fillIn, signal);
  const status = el("p", { class: "soft" }, "Waiting for the next window.");
  const list = el("ul", { class: "reasons" });
  const suppressed = el("dl", { class: "figures" });
  root.append(
    heading("Why is there an event, or none?"),
    el("div", { class: "controls" }, choice.field),
    name
      ? el("div", { class: "panel" }, status, key(), list)
      : empty("Choose a stream.", el("p", {}, "You then see each label's score against its thresholds.")),
    name ? el("section", { class: "panel", "aria-labelledby": "suppressed-title" }, el("h2", { id: "suppressed-title" }, "Times without an event of their own, since the daemon started"), suppressed) : "",
  );
  if (!name) return;
  const view = new Reasons(list);
  live.on("explain", (message) => {
    const from = message.machine ? nameOf(message) : message.stream;
    if (from !== name && message.stream !== parts[1]) return;
    write(status, `Window that ended at ${clock(message.end)}.`);
    view.show(message);
    const counts = Object.entries(message.suppressed || {}).filter(([, count]) => count);
    const text = JSON.stringify(counts);
    if (suppressed.dataset.text !== text) {
      suppressed.dataset.text = text;
      fill(suppressed, counts.map(([why, count]) => el("div", {}, el("dt", {}, SUPPRESSED[why] || why), el("dd", {}, String(count)))), !counts.length && el("p", { class: "soft" }, "None."));
    }
  }, signal);
  house.on("theme", () => view.draw(), signal);
  house.on("membership", () => {
    if (house.loaded && !house.streams.has(name)) fill(list, el("li", {}, notice("This stream is not published now.")));
  }, signal);
}

/** What the signs of a row mean. */
function key() {
  return el(
    "ul",
    { class: "legend" },
    el("li", {}, el("i", { class: "key smoothed" }), "smoothed score, which decides"),
    el("li", {}, el("i", { class: "key raw" }), "score of the last window"),
    el("li", {}, el("i", { class: "key mark-on" }), "an event begins here"),
    el("li", {}, el("i", { class: "key mark-off" }), "it ends below this"),
  );
}

/** The list of labels with their reasons. */
class Reasons {
  /** @param {HTMLElement} list */
  constructor(list) {
    this.list = list;
    /** @type {Map<string, any>} */
    this.rows = new Map();
    this.orderedAt = 0;
  }

  /** @param {any} message */
  show(message) {
    const now = Date.now();
    const seen = new Map(message.candidates.map((/** @type {any} */ each) => [each.mid, each]));
    for (const row of this.rows.values()) row.push(seen.get(row.mid) || null);
    for (const each of message.candidates) if (!this.rows.has(each.mid)) this.rows.set(each.mid, new Reason(each));
    const order = [...this.rows.values()].sort((a, b) => rank(b) - rank(a) || b.smoothed - a.smoothed);
    for (const row of order.slice(LABELS)) this.rows.delete(row.mid);
    for (const row of order) if (row.isQuiet()) this.rows.delete(row.mid);
    const kept = order.filter((row) => this.rows.has(row.mid));
    if (now - this.orderedAt > SETTLED_MS || kept.length !== this.list.childElementCount) {
      this.orderedAt = now;
      fill(this.list, kept.map((row) => row.element));
    }
    this.draw();
  }

  draw() {
    for (const row of this.rows.values()) row.draw();
  }
}

/** @param {any} row */
function rank(row) {
  return { open: 3, fading: 3, holding: 2 }[/** @type {"open"} */ (row.state)] || 0;
}

/** One label. */
class Reason {
  /** @param {any} candidate */
  constructor(candidate) {
    this.mid = candidate.mid;
    this.smoothed = 0;
    this.on = 1;
    this.off = 1;
    this.state = "";
    /** @type {(number | null)[]} */
    this.past = [];
    this.sign = el("span", { class: "state" }, el("i", { "aria-hidden": "true" }), el("b", {}));
    this.value = el("span", { class: "reason-value" });
    this.bar = el("div", { class: "gauge", "aria-hidden": "true" }, el("i", { class: "fill" }), el("i", { class: "raw" }), el("i", { class: "off" }), el("i", { class: "on" }));
    this.canvas = /** @type {HTMLCanvasElement} */ (el("canvas", { "aria-hidden": "true" }));
    this.why = el("p", { class: "reason-why" });
    this.element = el("li", { class: "reason" }, el("div", { class: "reason-head" }, el("b", { class: "reason-name" }, candidate.name), this.sign, this.value), this.bar, this.canvas, this.why);
    this.push(candidate);
  }

  /** @param {any} candidate null if the label is not in the message: it is below its lower threshold */
  push(candidate) {
    this.past.push(candidate ? candidate.smoothed : 0);
    if (this.past.length > WINDOWS) this.past.shift();
    if (candidate) [this.on, this.off] = [candidate.on, candidate.off];
    this.smoothed = candidate ? candidate.smoothed : 0;
    this.state = candidate ? candidate.state : "quiet";
    const [tone, words] = candidateWords(this.state);
    this.element.dataset.tone = tone;
    this.sign.className = `state ${tone}`;
    write(/** @type {Element} */ (this.sign.querySelector("b")), words);
    write(this.value, candidate ? `${score(candidate.smoothed)} of ${score(this.on)}` : `below ${score(this.off)}`);
    write(this.why, candidate ? candidate.reason : "score below the off threshold");
    const place = (/** @type {string} */ part, /** @type {number} */ at) => /** @type {HTMLElement} */ (this.bar.querySelector(part)).style.setProperty("--at", `${at * 100}%`);
    place(".fill", this.smoothed);
    place(".raw", candidate ? candidate.score : 0);
    place(".on", this.on);
    place(".off", this.off);
  }

  isQuiet() {
    return this.past.slice(-WINDOWS / 4).every((each) => !each) && this.past.length > 1;
  }

  /** The last minute as a line, with the thresholds. */
  draw() {
    const scale = Math.min(2, devicePixelRatio || 1);
    const width = Math.round(this.canvas.clientWidth * scale);
    const height = Math.round(this.canvas.clientHeight * scale);
    if (!width) return;
    if (this.canvas.width !== width || this.canvas.height !== height) [this.canvas.width, this.canvas.height] = [width, height];
    const pen = /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext("2d"));
    const { named } = palette();
    const y = (/** @type {number} */ value) => (1 - value) * (height - 2 * scale) + scale;
    pen.clearRect(0, 0, width, height);
    pen.lineWidth = scale;
    for (const [value, colour] of /** @type {[number, string][]} */ ([[this.on, named.event], [this.off, named.soft]])) {
      pen.strokeStyle = colour;
      pen.setLineDash([3 * scale, 3 * scale]);
      pen.beginPath();
      pen.moveTo(0, y(value));
      pen.lineTo(width, y(value));
      pen.stroke();
    }
    pen.setLineDash([]);
    pen.strokeStyle = named.accent;
    pen.lineWidth = 1.6 * scale;
    pen.beginPath();
    this.past.forEach((value, i) => {
      const x = width - (this.past.length - 1 - i) * (width / (WINDOWS - 1));
      if (i) pen.lineTo(x, y(value || 0));
      else pen.moveTo(x, y(value || 0));
    });
    pen.stroke();
  }
}
