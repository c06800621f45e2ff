// The scores of the windows around an event as lines with the thresholds, and as a table.
import { el, svg } from "../dom.js";
import { empty } from "../parts.js";
import { clock, ms, score } from "../times.js";

const WIDE = { width: 720, height: 240, ticks: 4 };
const NARROW = { width: 360, height: 210, ticks: 2 }; // so that its text stays readable on a phone
const LEFT = 34;
const BOTTOM = 24;
const TOP = 10;
const OTHERS = 4;
const GAP_MS = 5000; // windows further apart are not joined: only begin and end are stored

/** @param {any} event */
export function traceChart(event) {
  const trace = event.trace || [];
  if (trace.length < 2) return empty("No scores are stored around this event.", el("p", {}, "The history keeps them for scores_days, and only if it ran at that time."));
  const { width, height, ticks } = matchMedia("(max-width: 600px)").matches ? NARROW : WIDE;
  const mids = chosen(event, trace);
  const start = ms(trace[0].end);
  const end = ms(trace.at(-1).end);
  const x = (/** @type {number} */ time) => LEFT + ((time - start) / Math.max(1, end - start)) * (width - LEFT - 8);
  const y = (/** @type {number} */ value) => TOP + (1 - value) * (height - TOP - BOTTOM);
  const chart = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "trace", role: "img", "aria-label": summary(event, trace) });
  const from = Math.max(start, ms(event.start));
  const to = Math.min(end, event.state === "open" ? end : ms(event.end));
  if (to > from) chart.append(svg("rect", { class: "span", x: x(from), y: TOP, width: x(to) - x(from), height: height - TOP - BOTTOM }));
  for (const value of [0, 0.25, 0.5, 0.75, 1]) {
    chart.append(svg("line", { class: "grid", x1: LEFT, x2: width - 8, y1: y(value), y2: y(value) }), svg("text", { x: LEFT - 6, y: y(value) + 4, class: "tick end" }, value === 0 || value === 1 ? String(value) : value.toFixed(2)));
  }
  for (let i = 0; i <= ticks; i++) {
    const time = start + ((end - start) * i) / ticks;
    chart.append(svg("text", { x: x(time), y: height - 6, class: `tick ${i === 0 ? "" : i === ticks ? "end" : "middle"}` }, clock(time)));
  }
  mids.forEach((mid, i) => {
    for (const line of lines(trace, mid, x, y)) chart.append(svg("polyline", { class: `line line-${i}`, points: line }));
  });
  const { on, off } = event.details || {};
  if (on) chart.append(threshold(y(on), width, "on"));
  if (off) chart.append(threshold(y(off), width, "off"));
  return el("div", {}, chart, legend(event, mids), table(event, trace, mids));
}

/** The event's label and those with the highest scores beside it. @param {any} event @param {any[]} trace @returns {string[]} */
function chosen(event, trace) {
  /** @type {Map<string, number>} */
  const most = new Map();
  for (const window of trace) for (const [mid, value] of Object.entries(window.scores)) most.set(mid, Math.max(most.get(mid) || 0, Number(value)));
  most.delete(event.mid);
  return [event.mid, ...[...most].sort((a, b) => b[1] - a[1]).slice(0, OTHERS).map(([mid]) => mid)];
}

/** @param {any[]} trace @param {string} mid @param {(time: number) => number} x @param {(value: number) => number} y */
function lines(trace, mid, x, y) {
  /** @type {string[][]} */
  const parts = [[]];
  trace.forEach((window, i) => {
    const time = ms(window.end);
    if (i && time - ms(trace[i - 1].end) > GAP_MS) parts.push([]);
    /** @type {string[]} */ (parts.at(-1)).push(`${x(time).toFixed(1)},${y(window.scores[mid] || 0).toFixed(1)}`);
  });
  return parts.filter((each) => each.length > 1).map((each) => each.join(" "));
}

/** @param {number} at @param {number} width @param {string} kind */
function threshold(at, width, kind) {
  return svg("line", { class: `threshold ${kind}`, x1: LEFT, x2: width - 8, y1: at, y2: at });
}

/** @param {any} event @param {string[]} mids */
function legend(event, mids) {
  const { on, off } = event.details || {};
  return el(
    "ul",
    { class: "legend", "aria-label": "Lines of the chart" },
    mids.map((mid, i) => el("li", {}, el("i", { class: `key line-${i}` }), nameOf(event, mid))),
    on && el("li", {}, el("i", { class: "key threshold on" }), `begins at ${score(on)}`),
    off && el("li", {}, el("i", { class: "key threshold off" }), `ends below ${score(off)}`),
    el("li", {}, el("i", { class: "key span" }), "the event"),
  );
}

/** @param {any} event @param {string} mid */
function nameOf(event, mid) {
  return mid === event.mid ? event.name : (event.labels && event.labels[mid]) || mid;
}

/** @param {any} event @param {any[]} trace */
function summary(event, trace) {
  const values = trace.map((window) => window.scores[event.mid] || 0);
  return `Scores of ${event.name} from ${clock(trace[0].end)} to ${clock(trace.at(-1).end)}: from ${score(values[0])} to at most ${score(Math.max(...values))}, at the end ${score(values.at(-1) || 0)}. The table below has all values.`;
}

/** @param {any} event @param {any[]} trace @param {string[]} mids */
function table(event, trace, mids) {
  return el(
    "details",
    {},
    el("summary", {}, "As a table"),
    el(
      "div",
      { class: "wide-table", tabindex: "0", role: "region", "aria-label": "Scores by window" },
      el(
        "table",
        { class: "plain-table" },
        el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Window ends"), mids.map((mid) => el("th", { scope: "col" }, nameOf(event, mid))))),
        el("tbody", {}, trace.map((window) => el("tr", {}, el("th", { scope: "row" }, clock(window.end)), mids.map((mid) => el("td", {}, window.scores[mid] === undefined ? "–" : score(window.scores[mid])))))),
      ),
    ),
  );
}
