// One event: see it, hear it, why it began and ended, the scores around it, and whether it was right.
import { get, path, post, remove } from "../api.js";
import { button, el, fill, icon, say } from "../dom.js";
import { heading, notice, scoreBar, shortName } from "../parts.js";
import { link } from "../router.js";
import { clock, day, full, lasted, ms, score } from "../times.js";
import { whyBegan, whyEnded } from "../words.js";
import { mediaPart } from "./event_media.js";
import { traceChart } from "./trace_chart.js";

const LATER = /minutes/; // of perceiverd/corrections: the sound of the last seconds is stored soon

/** @param {HTMLElement} root @param {import("../main.js").Context} context */
export async function eventView(root, context) {
  const { house, signal, parts, title } = context;
  const id = parts[0] || "";
  title("Event");
  const event = await get(`events/${path(id)}`, {}, signal);
  title(`${event.name}, ${event.stream}`);
  const steps = el(
    "nav",
    { class: "steps", "aria-label": "Other events" },
    step("Earlier", event.previous, "previous"),
    step("Later", event.next, "next"),
  );
  const side = el("div", { class: "event-side" }, facts(event, house), verdictPart(event, house, signal), whyPart(event));
  fill(root, heading(event.name, steps), el("div", { class: "event-grid" }, el("div", { class: "event-main" }, mediaPart(event), scoresPart(event)), side));
  document.addEventListener("keydown", (pressed) => {
    if (pressed.altKey || pressed.ctrlKey || pressed.metaKey || isTyping(pressed.target)) return;
    if (pressed.key === "ArrowLeft" && event.previous) location.hash = link(["event", event.previous]);
    if (pressed.key === "ArrowRight" && event.next) location.hash = link(["event", event.next]);
  }, { signal });
  house.on("events", () => {
    const newer = house.events.find((each) => each.id === event.id);
    if (newer && newer.state !== event.state) context.restart();
  }, signal);
}

/** @param {EventTarget | null} target */
function isTyping(target) {
  return target instanceof Element && Boolean(target.closest("input, select, textarea, audio, video, dialog, [role=slider]"));
}

/** @param {string} text @param {number | null} id @param {string} picture */
function step(text, id, picture) {
  if (id === null || id === undefined) return el("span", { class: "button off", "aria-disabled": "true" }, icon(picture), el("span", {}, text));
  return el("a", { class: "button", href: link(["event", id]), rel: picture === "previous" ? "prev" : "next" }, icon(picture), el("span", {}, text));
}

/** @param {any} event @param {import("../house.js").House} house */
function facts(event, house) {
  const name = `${event.machine}/${event.stream}`;
  const seconds = (ms(event.end) - ms(event.start)) / 1000;
  /** @type {[string, import("../dom.js").Child][]} */
  const list = [
    ["Stream", el("a", { href: link(["stream", event.machine, event.stream]) }, shortName(event, house))],
    ["Began", el("time", { datetime: event.start }, full(event.start))],
    ["Lasted", event.state === "open" ? `${lasted(seconds)} so far` : `${lasted(seconds)}, until ${clock(event.end)}`],
    ["Highest score", [scoreBar(event.peak), " ", score(event.peak), el("span", { class: "soft" }, `, mean ${score(event.mean)}`)]],
  ];
  const senses = event.details && event.details.modalities;
  if (senses && senses.length) list.push(["Recognised from", senses.map((/** @type {string} */ each) => (each === "audio" ? "sound" : each)).join(" and ")]);
  return el(
    "section",
    { class: "panel", "aria-label": "Facts" },
    el("dl", { class: "facts" }, list.map(([what, value]) => [el("dt", {}, what), el("dd", {}, value)])),
    el(
      "p",
      { class: "links" },
      el("a", { href: link(["day", day(event.start)], { at: event.start, stream: name }) }, "Show on the day"),
      el("a", { href: link(["search"], { label: event.name, stream: name }) }, `All ${event.name} here`),
    ),
  );
}

/** @param {any} event */
function whyPart(event) {
  const began = whyBegan(event);
  const ended = whyEnded(event);
  return el(
    "section",
    { class: "panel", "aria-labelledby": "why-title" },
    el("h2", { id: "why-title" }, "Why"),
    began && el("p", {}, el("strong", {}, "It began: "), began),
    ended && el("p", {}, el("strong", {}, event.state === "open" ? "" : "It ended: "), ended),
    el("p", { class: "links" }, el("a", { href: link(["explain", event.machine, event.stream]) }, "Watch this stream's thresholds live")),
  );
}

/** @param {any} event */
function scoresPart(event) {
  return el("section", { class: "panel", "aria-labelledby": "scores-title" }, el("h2", { id: "scores-title" }, "Scores around it"), traceChart(event));
}

/** Right or wrong: one press stores it, another takes it back. @param {any} event @param {import("../house.js").House} house @param {AbortSignal} signal */
function verdictPart(event, house, signal) {
  const result = el("div", { class: "verdict-result" });
  const right = button("Right", () => give("right"), { "aria-pressed": "false", class: "verdict-button right" }, "right");
  const wrong = button("Wrong", () => give("wrong"), { "aria-pressed": "false", class: "verdict-button wrong" }, "wrong");
  /** @type {string | number | null} */
  let stored = null;
  const show = () => {
    right.setAttribute("aria-pressed", String(event.verdict === "right"));
    wrong.setAttribute("aria-pressed", String(event.verdict === "wrong"));
  };
  const give = async (/** @type {"right" | "wrong"} */ verdict) => {
    for (const each of [right, wrong]) each.setAttribute("aria-disabled", "true");
    try {
      const before = event.verdict;
      if (before) await takeBack(event, stored);
      stored = null;
      event.verdict = null;
      let text = "Taken back.";
      if (before !== verdict) {
        const answer = await post("corrections", { event: event.id, verdict });
        [stored, event.verdict] = [answer.id, verdict];
        text = answer.sound ? "Stored, with its sound. The next training learns from it." : withoutSound(answer.why);
      }
      if (!signal.aborted) fill(result, notice(text, "good"));
    } catch (error) {
      if (!signal.aborted) fill(result, notice(error instanceof Error ? error.message : String(error), "bad"));
    }
    for (const each of [right, wrong]) each.removeAttribute("aria-disabled");
    const kept = house.events.find((each) => each.id === event.id);
    if (kept) kept.verdict = event.verdict;
    show();
  };
  show();
  const off = house.about && !house.about.corrections;
  return el(
    "section",
    { class: "panel", "aria-labelledby": "verdict-title" },
    el("h2", { id: "verdict-title" }, `Was it ${event.name}?`),
    off ? el("p", { class: "soft" }, "This server stores no corrections.") : el("div", { class: "verdict-buttons", role: "group", "aria-labelledby": "verdict-title" }, right, wrong),
    result,
  );
}

/** What to say if no sound was stored. It may come later. @param {string | null} why */
function withoutSound(why) {
  if (why && LATER.test(why)) return `Stored: ${why}.`;
  return `Stored without sound${why ? `: ${why}` : ""}. Training cannot learn from it.`;
}

/** @param {any} event @param {string | number | null} stored */
async function takeBack(event, stored) {
  let id = stored;
  if (id === null) {
    const { corrections } = await get("corrections");
    const found = corrections.find((/** @type {any} */ each) => each.event === event.key && each.machine === event.machine && each.stream === event.stream);
    if (!found) return;
    id = found.id;
  }
  await remove(`corrections/${path(/** @type {string} */ (id))}`);
  say("Taken back.");
}
