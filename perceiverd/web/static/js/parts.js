// Parts that several views use.
import { get } from "./api.js";
import { el, icon, unseen } from "./dom.js";
import { nameOf } from "./house.js";
import { link } from "./router.js";
import { ago, lasted, moment, ms, score, shortMoment } from "./times.js";
import { stateWords, VERDICTS } from "./words.js";

/** The heading of a view, with what stands beside it. @param {string} text @param {...import("./dom.js").Child} beside */
export function heading(text, ...beside) {
  return el("div", { class: "heading" }, el("h1", { tabindex: "-1" }, text), ...beside);
}

/** The name of a stream. The machine is named only if there are several. @param {{machine: string, stream: string}} each @param {import("./house.js").House} house */
export function shortName(each, house) {
  const several = house.about && house.about.machines && house.about.machines.length > 1;
  return several ? nameOf(each) : each.stream;
}

/** The state of a stream: a sign and a word. @param {any} stream */
export function stateMark(stream) {
  const { tone, title } = stateWords(stream);
  return el("span", { class: `state ${tone}` }, el("i", { "aria-hidden": "true" }), title);
}

/** A time that says how long ago it was; the page keeps it up to date. @param {string} time */
export function agoTime(time) {
  return el("time", { datetime: time, title: moment(time), data: { ago: "" } }, ago(time));
}

/** A bar for a score, for eyes only: the number stands beside it. @param {number} value */
export function scoreBar(value) {
  return el("i", { class: "score-bar", "aria-hidden": "true", style: { "--part": `${Math.round(value * 100)}%` } });
}

/** How long an event lasted, or that it goes on. @param {any} event */
export function durationText(event) {
  if (event.state === "open") return "goes on";
  return lasted((ms(event.end) - ms(event.start)) / 1000);
}

/** An event as an entry of a list. @param {any} event @param {import("./house.js").House} house @param {{short?: boolean}} [options] short: for a narrow list */
export function eventEntry(event, house, options = {}) {
  const media = [event.picture && "picture", event.clip && "clip", event.sound && "sound"].filter(Boolean);
  const when = options.short ? shortMoment(event.start) : moment(event.start);
  return el(
    "li",
    { class: `entry ${event.state === "open" ? "open" : ""}` },
    el(
      "a",
      { href: event.id === null ? link(["search"], { label: event.name, stream: nameOf(event) }) : link(["event", event.id]) },
      el("span", { class: "entry-name" }, event.name),
      el("span", { class: "entry-place" }, shortName(event, house)),
      el("time", { class: "entry-time", datetime: event.start }, when),
      el("span", { class: "entry-lasted" }, durationText(event)),
      el("span", { class: "entry-score" }, scoreBar(event.peak), unseen("highest score "), score(event.peak)),
      el(
        "span",
        { class: "entry-marks" },
        media.length > 0 && [icon(event.picture || event.clip ? "picture" : "sound"), unseen(`has ${media.join(" and ")}`)],
        event.verdict && el("span", { class: `verdict ${event.verdict}` }, VERDICTS[event.verdict]),
      ),
    ),
  );
}

let fields = 0;

/** A control with its label. @param {string} text @param {HTMLElement} control @param {string} [hint] */
export function field(text, control, hint = "") {
  fields += 1;
  if (!control.id) control.id = `field-${fields}`;
  if (hint) control.setAttribute("aria-describedby", `${control.id}-hint`);
  return el(
    "div",
    { class: "field" },
    el("label", { for: control.id }, text),
    control,
    hint && el("small", { id: `${control.id}-hint` }, hint),
  );
}

const SUGGEST_AFTER_MS = 120;

/**
 * A field for a label, with suggestions of the server.
 * @param {string} text @param {string} value @param {AbortSignal} signal @param {string} [hint]
 * @returns {{field: HTMLElement, input: HTMLInputElement, mid: () => string}} `mid` gives the label's mid, or the text if it is unknown
 */
export function labelField(text, value, signal, hint = "") {
  const list = el("datalist", { id: `labels-${(fields += 1)}` });
  const input = /** @type {HTMLInputElement} */ (
    el("input", { type: "search", value, list: list.id, autocomplete: "off", spellcheck: "false", placeholder: "such as Dog", maxlength: "200" })
  );
  /** @type {Map<string, string>} */
  const mids = new Map();
  let timer = 0;
  const suggest = async () => {
    const found = await get("labels", { q: input.value.trim() }, signal).catch(() => null);
    if (!found) return;
    for (const label of found.labels) mids.set(label.name.toLowerCase(), label.mid);
    list.replaceChildren(...found.labels.slice(0, 30).map((/** @type {any} */ label) => el("option", { value: label.name })));
  };
  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(suggest, SUGGEST_AFTER_MS);
  });
  input.addEventListener("focus", () => list.childElementCount || suggest());
  const wrapped = field(text, input, hint);
  wrapped.append(list);
  return { field: wrapped, input, mid: () => mids.get(input.value.trim().toLowerCase()) || input.value.trim() };
}

/** A field to choose a stream. @param {string} text @param {import("./house.js").House} house @param {string} chosen `machine/stream` @param {string} [all] text for all streams; without it one is required */
export function streamField(text, house, chosen, all = "") {
  const select = /** @type {HTMLSelectElement} */ (el("select"));
  const fillIn = () => {
    const value = select.value || chosen;
    const names = [...house.streams.keys()];
    if (value && !names.includes(value)) names.push(value);
    select.replaceChildren(
      ...(all ? [el("option", { value: "" }, all)] : []),
      ...names.map((name) => el("option", { value: name, selected: name === value }, label(name))),
    );
  };
  const label = (/** @type {string} */ name) => {
    const stream = house.streams.get(name);
    return stream ? shortName(stream, house) : name;
  };
  fillIn();
  return { field: field(text, select), select, fillIn };
}

/** A dialog in the middle of the page. It is removed when it is closed. @param {string} title @param {...import("./dom.js").Child} children @returns {HTMLDialogElement} */
export function dialog(title, ...children) {
  fields += 1;
  const box = /** @type {HTMLDialogElement} */ (
    el("dialog", { "aria-labelledby": `dialog-${fields}` }, el("h2", { id: `dialog-${fields}` }, title), ...children)
  );
  box.addEventListener("close", () => box.remove());
  document.body.append(box);
  box.showModal();
  return box;
}

/** A line that says what went wrong, or what was done. @param {string} text @param {"bad" | "good" | ""} [tone] */
export function notice(text, tone = "") {
  return el("p", { class: `notice ${tone}`, role: tone === "bad" ? "alert" : "status" }, text);
}

/** Words for a place that has nothing to show. @param {string} title @param {...import("./dom.js").Child} more */
export function empty(title, ...more) {
  return el("div", { class: "empty" }, el("p", { class: "empty-title" }, title), ...more);
}

/** What stands where a history is needed and the server has none. */
export function noHistory() {
  return empty(
    "This server has no history.",
    el("p", {}, "Start perceiverd history, and give perceiverd web its database. Then this view shows what was heard."),
  );
}
