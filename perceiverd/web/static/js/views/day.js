// A day as a time line of events over streams, with the times without listening, and the same as a list.
import { get } from "../api.js";
import { button, el, fill, refill, say, write } from "../dom.js";
import { field, heading, noHistory, streamField } from "../parts.js";
import { go, link, replace } from "../router.js";
import { clock, counted, day, dayAfter, isDay, lasted, longDate, moment, ms, score, ZONE, zoneName } from "../times.js";
import { spanWords } from "../words.js";
import { AXIS_PX, DayCanvas, lanesOf, rowHeight } from "./day_canvas.js";
import { DayLists } from "./day_lists.js";
import { DayModel } from "./day_model.js";
import { showStretch, startMoves, zoom } from "./day_moves.js";
import { askForMissed } from "./missed.js";

const AROUND_MS = 300_000; // shown before and after a moment that a link names
const RELOAD_MS = 15_000;
const LEAST_SPACE_MS = 60_000;
const MISSED_MS = 10_000;
const HELP = "Arrow keys go to the next and the previous event, Enter opens it. Shift and arrows move, plus and minus zoom, 0 shows the day. The list below has the same events.";

/** @param {HTMLElement} root @param {import("../main.js").Context} context */
export async function dayView(root, context) {
  const { house, signal, parts, query } = context;
  const today = day(Date.now());
  const date = isDay(parts[0] || "") ? parts[0] : today;
  context.title(date === today ? "Today" : date);
  if (house.about && !house.about.history) {
    root.append(heading("Day"), noHistory());
    return;
  }
  const view = new DayPage(root, context, date);
  await view.load();
  const at = query.get("at") ? ms(/** @type {string} */ (query.get("at"))) : NaN;
  if (!Number.isNaN(at)) view.goTo(at);
  let due = false;
  house.on("events", () => (due = due || date === today), signal);
  const timer = setInterval(() => {
    if (due && !document.hidden) view.load().catch(() => null);
    due = false;
  }, RELOAD_MS);
  signal.addEventListener("abort", () => clearInterval(timer));
}

/** The view of one day. */
class DayPage {
  /** @param {HTMLElement} root @param {import("../main.js").Context} context @param {string} date */
  constructor(root, context, date) {
    const { house, signal, query } = context;
    this.house = house;
    this.signal = signal;
    this.date = date;
    /** @type {DayModel} set by `load`, which comes first */
    this.model = /** @type {any} */ (null);
    /** @type {DayCanvas} */
    this.view = /** @type {any} */ (null);
    this.due = 0;
    this.label = query.get("label") || "";
    const today = day(Date.now());
    const picker = /** @type {HTMLInputElement} */ (el("input", { type: "date", value: date, max: today }));
    picker.addEventListener("change", () => isDay(picker.value) && this.leave(picker.value));
    this.stream = streamField("Stream", house, query.get("stream") || "", "All streams");
    this.stream.select.addEventListener("change", () => this.arrange());
    house.on("membership", this.stream.fillIn, signal);
    this.count = el("p", { class: "soft", role: "status" });
    this.names = el("div", { class: "row-names" });
    this.canvas = /** @type {HTMLCanvasElement} */ (el("canvas", { class: "day-canvas", "aria-hidden": "true" }));
    this.tip = el("div", { class: "tip", hidden: true, "aria-hidden": "true" });
    this.box = el("div", { class: "time-line", tabindex: "0", role: "group", "aria-label": "Time line of the day", "aria-describedby": "day-help" }, this.canvas, this.tip);
    this.range = el("p", { class: "range" });
    this.selection = el("div", { class: "selection", hidden: true });
    this.legend = el("div", { class: "labels-legend", role: "group", "aria-label": "Show one label" });
    this.lists = new DayLists(house);
    root.append(
      heading(longDate(`${date}T12:00:00Z`), this.count),
      el(
        "div",
        { class: "controls day-controls" },
        el("div", { class: "day-steps" }, button("Day before", () => this.leave(dayAfter(date, -1)), { class: "square", title: "Day before" }, "previous"), field("Date", picker), button("Day after", () => this.leave(dayAfter(date, 1)), { class: "square", title: "Day after", disabled: date >= today }, "next")),
        this.stream.field,
        el("div", { class: "group", role: "group", "aria-label": "Zoom" }, button("−", () => this.zoom(1 / 1.8), { "aria-label": "Zoom out" }), button("+", () => this.zoom(1.8), { "aria-label": "Zoom in" }), button("Whole day", () => this.show(0, Infinity))),
        house.about?.corrections !== false && button("Mark a missed event", () => this.missed(), {}, "missed"),
      ),
      el("section", { class: "panel day-panel", "aria-label": "Time line" }, this.range, el("div", { class: "day-grid" }, this.names, this.box), el("p", { class: "unseen", id: "day-help" }, HELP), this.selection, el("div", { class: "day-key" }, el("i", { class: "key hatched" }), "not listening", el("span", { class: "hint" }, "Drag to select a time. Ctrl and wheel zoom.")), this.legend),
      this.lists.element,
    );
    startMoves(this.box, () => this.view, {
      changed: () => this.changed(),
      open: (event) => this.open(event),
      mark: (event) => say(this.words(event)),
      selected: () => this.showSelection(),
      hover: (x, y) => this.hover(x, y),
    });
    this.box.addEventListener("pointerleave", () => (this.tip.hidden = true));
    const watcher = new ResizeObserver(() => this.view && this.view.draw());
    watcher.observe(this.canvas);
    signal.addEventListener("abort", () => watcher.disconnect());
    house.on("theme", () => this.view && this.arrange(), signal);
  }

  async load() {
    const answer = await get("day", { date: this.date, zone: ZONE }, this.signal);
    const model = new DayModel(answer, this.date === day(Date.now()) ? [...this.house.streams.keys()] : [], Date.now());
    const before = this.view;
    this.model = model;
    this.view = new DayCanvas(this.canvas, model);
    if (before) {
      const { from, to, selected } = before;
      const follows = to >= before.model.pastMs; // the view contained now, and still shall
      showStretch(this.view, from, follows ? to + model.pastMs - before.model.pastMs : to);
      this.view.selected = selected;
      this.view.marked = before.marked < 0 ? -1 : model.line.ids.indexOf(before.model.line.ids[before.marked]);
    } else this.firstStretch();
    this.arrange();
  }

  /** First show the part of the day in which anything was listening, with a little space around it. */
  firstStretch() {
    const { startMs, endMs, pastMs, heardMs } = this.model;
    const space = Math.max(LEAST_SPACE_MS, (pastMs - heardMs) / 25);
    showStretch(this.view, Math.max(startMs, heardMs - space), Math.min(endMs, pastMs + space));
  }

  /** Show the rows that the choices want. */
  arrange() {
    const stream = this.stream.select.value;
    replace(link(["day", this.date], { stream, label: this.label }));
    const count = stream ? this.model.rows(stream, this.label, 1).length : this.model.streams.length;
    this.view.setRows(this.model.rows(stream, this.label, lanesOf(rowHeight(count))));
    refill(this.names, this.view.rows.map((row) => this.rowName(row.name, Boolean(stream))));
    this.names.style.setProperty("--row", `${this.view.height}px`);
    this.names.style.setProperty("padding-top", `${AXIS_PX}px`);
    this.showLegend(stream);
    const wanted = this.model.wanted(stream, this.label).length;
    write(this.count, `${counted(wanted, "event")}${this.model.complete ? "" : ", and more that are not shown"}, times in ${zoneName(this.model.startMs + 43_200_000)}`);
    this.changed();
  }

  /** @param {string} name @param {boolean} isLabel */
  rowName(name, isLabel) {
    if (isLabel) return el("span", { class: "row-name", title: name }, name);
    const stream = this.house.streams.get(name);
    const several = this.house.about && this.house.about.machines.length > 1;
    const short = several || !stream ? name : stream.stream;
    return el("button", { type: "button", class: "row-name", title: `${name}: show its labels`, onclick: () => {
      this.stream.select.value = name;
      this.arrange();
    } }, short);
  }

  /** @param {string} stream */
  showLegend(stream) {
    const names = this.model.line.label_names;
    const counts = new Map();
    for (const i of this.model.wanted(stream, "")) counts.set(this.model.line.labels[i], (counts.get(this.model.line.labels[i]) || 0) + 1);
    const order = [...counts].sort((a, b) => b[1] - a[1]).slice(0, 24);
    const choose = (/** @type {string} */ name) => () => {
      this.label = this.label === name ? "" : name;
      this.arrange();
      say(this.label ? `Only ${this.label}` : "All labels");
    };
    refill(this.legend, order.map(([label, count]) =>
      el("button", { type: "button", "aria-pressed": String(names[label] === this.label), data: { name: names[label], colour: this.model.colours[label] }, onclick: choose(names[label]) }, el("i", { class: `swatch c${this.model.colours[label]}`, "aria-hidden": "true" }), el("span", {}, names[label]), el("span", { class: "soft" }, String(count)))));
  }

  /** Draw again, at most once for each picture of the screen. */
  changed() {
    if (this.due) return;
    this.due = requestAnimationFrame(() => {
      this.due = 0;
      if (this.signal.aborted) return;
      this.view.draw();
      const { from, to, model } = this.view;
      const whole = from <= model.startMs && to >= model.endMs;
      write(this.range, whole ? "The whole day" : `${clock(from)} to ${clock(to)}, ${lasted((to - from) / 1000)}`);
      if (!this.view.selected) this.selection.hidden = true;
      this.lists.show(this.model, this.stream.select.value, this.label, from, to);
    });
  }

  /** @param {number} factor */
  zoom(factor) {
    zoom(this.view, factor);
    this.changed();
  }

  /** @param {number} from @param {number} to */
  show(from, to) {
    showStretch(this.view, Math.max(from, this.model.startMs), Math.min(to, this.model.endMs));
    this.changed();
  }

  /** Show the minutes around a moment, and mark the event that began there. @param {number} at */
  goTo(at) {
    this.show(at - AROUND_MS, at + AROUND_MS);
    const marked = this.model.wanted(this.stream.select.value, this.label).find((event) => Math.abs(this.model.line.start_ms[event] - at) < 2);
    if (marked !== undefined) this.view.marked = marked;
  }

  /** @param {string} date */
  leave(date) {
    go(link(["day", date], { stream: this.stream.select.value, label: this.label }));
  }

  /** @param {number} event */
  open(event) {
    go(link(["event", this.model.line.ids[event]]));
  }

  /** @param {number} event */
  words(event) {
    const { line } = this.model;
    const place = this.stream.select.value ? "" : `, ${line.names[line.streams[event]]}`;
    return `${line.label_names[line.labels[event]]}${place}, ${clock(line.start_ms[event])}, ${lasted((line.end_ms[event] - line.start_ms[event]) / 1000)}, highest score ${score(line.peaks[event])}`;
  }

  /** @param {number} x @param {number} y */
  hover(x, y) {
    const event = this.view.eventAt(x, y);
    const gap = event < 0 ? this.view.gapAt(x, y) : undefined;
    this.canvas.style.setProperty("cursor", event >= 0 ? "pointer" : "crosshair");
    this.tip.hidden = y < AXIS_PX;
    if (this.tip.hidden) return;
    const gapText = gap && `${spanWords(gap.kind)}${gap.what ? ` (${gap.what})` : ""}, ${clock(gap.from)} to ${clock(gap.to)}`;
    write(this.tip, event >= 0 ? this.words(event) : gapText || clock(this.view.time(x)));
    const left = Math.min(this.view.width - this.tip.offsetWidth - 4, Math.max(4, x + 12));
    this.tip.style.setProperty("transform", `translate(${left}px, ${y + 16}px)`);
  }

  showSelection() {
    const { selected, rows } = this.view;
    if (!selected) return;
    const [from, to] = [Math.min(selected.from, selected.to), Math.max(selected.from, selected.to)];
    const stream = this.stream.select.value || (selected.row >= 0 ? rows[selected.row].name : "");
    fill(
      this.selection,
      el("span", {}, `Selected: ${clock(from)} to ${clock(to)}${stream ? ` on ${stream}` : ""}`),
      button("Zoom", () => {
        this.view.selected = null;
        this.show(from, to);
      }),
      this.house.about?.corrections !== false && button("This was missed", () => askForMissed(this.house, this.signal, { from, to, stream, label: this.label }), {}, "missed"),
      button("Clear", () => {
        this.view.selected = null;
        this.changed();
        this.box.focus();
      }),
    );
    this.selection.hidden = false;
  }

  missed() {
    const { selected, from, to } = this.view;
    const middle = Math.min(Date.now() - MISSED_MS, (from + to) / 2);
    const proposed = selected ? { from: Math.min(selected.from, selected.to), to: Math.max(selected.from, selected.to) } : { from: middle, to: middle + MISSED_MS };
    askForMissed(this.house, this.signal, { ...proposed, stream: this.stream.select.value, label: this.label });
  }
}
