// Counts of events by hour, weekday, day, label and stream. Each chart is a list or a table that can be read.
import { get } from "../api.js";
import { el, fill, unseen, write } from "../dom.js";
import { empty, field, heading, labelField, noHistory, notice, scoreBar, streamField } from "../parts.js";
import { link, replace } from "../router.js";
import { ago, counted, DAY_MS, date, day, dayAfter, lasted, score, WEEKDAYS, ZONE, zoneName } from "../times.js";

const RANGES = [["1", "24 hours"], ["7", "7 days"], ["30", "30 days"], ["365", "a year"], ["", "All time"]];
const LABELS = 25;
const MOST_DAYS = 92;

/** @param {HTMLElement} root @param {import("../main.js").Context} context */
export async function statisticsView(root, { house, signal, query, title }) {
  title("Statistics");
  const count = el("p", { class: "soft", role: "status" });
  if (house.about && !house.about.history) {
    root.append(heading("Statistics"), noHistory());
    return;
  }
  const days = query.has("days") ? query.get("days") : "7";
  const range = /** @type {HTMLSelectElement} */ (el("select", {}, RANGES.map(([value, text]) => el("option", { value, selected: value === days }, value ? `Last ${text}` : text))));
  const stream = streamField("Stream", house, query.get("stream") || "", "All streams");
  const label = labelField("Label", query.get("label") || "", signal);
  const charts = el("div", { class: "charts" });
  const form = el("form", { class: "controls" }, field("Time", range), stream.field, label.field);
  root.append(heading("Statistics", count), form, charts);
  house.on("membership", stream.fillIn, signal);

  let asked = 0;
  const load = async () => {
    const number = (asked += 1);
    const filters = { stream: stream.select.value, label: label.input.value.trim() };
    replace(link(["statistics"], { ...filters, days: range.value }) + (range.value ? "" : `${filters.stream || filters.label ? "&" : "?"}days=`));
    const after = range.value ? new Date(Date.now() - Number(range.value) * DAY_MS).toISOString() : "";
    try {
      const found = await get("statistics", { ...filters, label: label.mid(), after, zone: ZONE }, signal);
      if (number !== asked) return;
      write(count, `${counted(found.events, "event")}, times in ${zoneName()}`);
      fill(charts, found.events ? chartsOf(found, filters, after) : empty("No event in this time."));
    } catch (error) {
      if (!signal.aborted && number === asked) fill(charts, notice(error instanceof Error ? error.message : String(error), "bad"));
    }
  };
  for (const each of [range, stream.select, label.input]) each.addEventListener("change", load);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    load();
  });
  await load();
}

/** @param {any} found @param {{stream: string, label: string}} filters @param {string} after */
function chartsOf(found, filters, after) {
  const hours = found.by_hour.map((/** @type {number} */ count, /** @type {number} */ i) => ({ name: `${i}`.padStart(2, "0"), spoken: `${i} to ${i + 1} o'clock`, count, href: "" }));
  const weekdays = found.by_weekday.map((/** @type {number} */ count, /** @type {number} */ i) => ({ name: WEEKDAYS[i].slice(0, 3), spoken: WEEKDAYS[i], count, href: "" }));
  const daysOf = daily(found.by_day, filters);
  return [
    panel("By hour of the day", columns(hours, 3)),
    panel("By weekday", columns(weekdays, 1)),
    daysOf.length > 1 && panel("By day", columns(daysOf, Math.max(1, Math.ceil(daysOf.length / 8))), "wide"),
    panel("By label", labels(found.by_label, filters, after), "wide"),
    panel("By stream", bars(Object.entries(found.by_stream), (name) => link(["search"], { ...filters, stream: name, after })), "wide"),
  ];
}

/** Each day from the first to the last, also those without events. @param {Record<string, number>} byDay @param {{stream: string, label: string}} filters */
function daily(byDay, filters) {
  const names = Object.keys(byDay).sort();
  if (!names.length) return [];
  const list = [];
  const last = names[names.length - 1] || day(Date.now());
  let at = names[0];
  const first = dayAfter(last, 1 - MOST_DAYS);
  if (at < first) at = first;
  for (; at <= last; at = dayAfter(at, 1)) {
    const noon = `${at}T12:00:00Z`;
    list.push({ name: String(Number(at.slice(8))), spoken: date(noon), count: byDay[at] || 0, href: link(["day", at], filters) });
  }
  return list;
}

/** @param {string} title @param {import("../dom.js").Child} content @param {string} [size] */
function panel(title, content, size = "") {
  const id = `chart-${title.toLowerCase().replace(/[^a-z]+/g, "-")}`;
  return el("section", { class: `panel chart ${size}`, "aria-labelledby": id }, el("h2", { id }, title), content);
}

/** Upright bars with a name under each `each`-th. @param {{name: string, spoken: string, count: number, href: string}[]} list @param {number} each */
function columns(list, each) {
  const most = Math.max(1, ...list.map((one) => one.count));
  return el(
    "ol",
    { class: "columns" },
    list.map((one, i) => {
      const inside = [
        el("span", { class: "column-count", "aria-hidden": "true" }, one.count ? one.count.toLocaleString("en") : ""),
        el("i", { "aria-hidden": "true", style: { "--share": one.count / most } }),
        el("span", { class: "column-name", "aria-hidden": "true" }, i % each === 0 ? one.name : ""),
        unseen(`${one.spoken}: ${counted(one.count, "event")}`),
      ];
      return el("li", { title: `${one.spoken}: ${counted(one.count, "event")}` }, el(one.href ? "a" : "span", { class: "column", href: one.href || null }, inside));
    }),
  );
}

/** @param {[string, number][]} list @param {(name: string) => string} target */
function bars(list, target) {
  const most = Math.max(1, ...list.map(([, count]) => count));
  return el(
    "ol",
    { class: "bars" },
    list.map(([name, count]) => el("li", {}, el("a", { href: target(name) }, name), el("i", { "aria-hidden": "true", style: { "--part": `${(100 * count) / most}%` } }), el("span", {}, count.toLocaleString("en"), unseen(" events")))),
  );
}

/** @param {any[]} list @param {{stream: string, label: string}} filters @param {string} after */
function labels(list, filters, after) {
  const most = Math.max(1, ...list.map((each) => each.events));
  const body = el("tbody");
  const show = (/** @type {number} */ count) =>
    fill(
      body,
      list.slice(0, count).map((each) =>
        el(
          "tr",
          {},
          el("th", { scope: "row" }, el("a", { href: link(["search"], { ...filters, label: each.name, after }) }, each.name)),
          el("td", {}, el("div", { class: "bar-cell" }, el("i", { "aria-hidden": "true", style: { "--part": `${(100 * each.events) / most}%` } }), el("span", {}, each.events.toLocaleString("en")))),
          el("td", {}, lasted(each.seconds)),
          el("td", {}, scoreBar(each.peak), " ", score(each.peak)),
          el("td", {}, ago(each.last)),
        ),
      ),
    );
  show(LABELS);
  const all = el("button", { type: "button", onclick: () => {
    show(list.length);
    all.remove();
  } }, `Show all ${list.length}`);
  return [
    el(
      "div",
      { class: "wide-table", tabindex: "0", role: "region", "aria-label": "Labels" },
      el("table", { class: "plain-table label-table" }, el("thead", {}, el("tr", {}, ["Label", "Events", "Together", "Highest", "Last"].map((each) => el("th", { scope: "col" }, each)))), body),
    ),
    list.length > LABELS && all,
  ];
}
