// The overview: is everything alive, what is heard now, what was heard last.
import { el, fill, refill, write } from "../dom.js";
import { nameOf } from "../house.js";
import { empty, eventEntry, heading } from "../parts.js";
import { link } from "../router.js";
import { ago, clock, counted } from "../times.js";
import { stateWords } from "../words.js";
import { StreamCard } from "./stream_card.js";
import { StreamRow } from "./stream_row.js";

const CARDS = 6; // above this many streams, each is a row
const LATEST = 12;

/** @param {HTMLElement} root @param {import("../main.js").Context} context */
export function streamsView(root, { house, signal, title }) {
  title("Streams");
  const summary = el("p", { class: "summary", "aria-live": "polite" });
  const machines = el("div", { class: "machines" });
  const list = el("div", { class: "streams" });
  const latest = el("ol", { class: "entries" });
  const side = el("section", { class: "latest", "aria-labelledby": "latest-title" }, el("h2", { id: "latest-title" }, "Latest events"), latest);
  root.append(heading("Streams", summary), machines, el("div", { class: "overview" }, list, side));
  /** @type {Map<string, StreamCard | StreamRow>} */
  let shown = new Map();

  const rebuild = () => {
    const streams = [...house.streams.values()];
    const dense = streams.length > CARDS;
    shown = new Map(streams.map((each) => [nameOf(each), dense ? new StreamRow(each, house) : new StreamCard(each, house)]));
    list.className = `streams ${dense ? "dense" : "cards"} ${streams.length === 1 ? "single" : ""}`;
    const parts = [...shown.values()].map((each) => each.element);
    if (!streams.length) fill(list, noStreams(house));
    else if (dense) fill(list, table(parts));
    else fill(list, parts);
    for (const name of shown.keys()) house.seed(name);
    update(new Set(shown.keys()));
  };
  const update = (/** @type {Set<string>} */ names) => {
    for (const name of names) shown.get(name)?.update(house.streams.get(name));
    write(summary, summaryOf([...house.streams.values()], house.loaded));
  };
  const showLatest = () => {
    const none = house.about && !house.about.history ? "Start perceiverd history to see past events here." : "No events yet.";
    refill(latest, house.events.slice(0, LATEST).map((each) => eventEntry(each, house, { short: true })));
    if (!house.events.length) fill(latest, el("li", { class: "soft" }, none));
  };
  house.on("membership", rebuild, signal);
  house.on("streams", update, signal);
  house.on("events", showLatest, signal);
  house.on("theme", () => update(new Set(shown.keys())), signal);
  house.on("about", () => {
    showMachines(machines, house);
    showLatest();
    rebuild();
  }, signal);
  house.on("machines", () => showMachines(machines, house), signal);
  addEventListener("resize", () => update(new Set(shown.keys())), { signal });
  rebuild();
  showLatest();
  showMachines(machines, house);
}

/** One sentence: how many streams listen, and which have problems. @param {any[]} streams @param {boolean} loaded */
function summaryOf(streams, loaded) {
  if (!streams.length) return loaded ? "" : "Waiting for the streams.";
  const wanted = streams.filter((each) => each.state !== "disabled");
  const bad = wanted.filter((each) => stateWords(each).tone === "bad");
  const good = wanted.filter((each) => stateWords(each).tone === "good");
  const names = bad.slice(0, 3).map((each) => each.stream).join(", ") + (bad.length > 3 ? " and others" : "");
  const all = good.length === wanted.length;
  const alive = all ? (wanted.length === 1 ? "The stream is listening." : `All ${wanted.length} streams are listening.`) : `${good.length} of ${counted(wanted.length, "stream")} ${good.length === 1 ? "is" : "are"} listening.`;
  return bad.length ? `${alive} ${bad.length === 1 ? "A problem" : "Problems"} with ${names}.` : alive;
}

/** @param {HTMLElement[]} rows */
function table(rows) {
  const columns = ["Stream", "State", "Level", "Heard now", "Last 5 minutes"];
  return el(
    "table",
    { class: "stream-table" },
    el("caption", { class: "unseen" }, "All streams with their state and what they hear now"),
    el("thead", {}, el("tr", {}, columns.map((each) => el("th", { scope: "col" }, each)))),
    el("tbody", {}, rows),
  );
}

/** @param {import("../house.js").House} house */
function noStreams(house) {
  if (!house.loaded) return empty("Waiting for the streams.");
  return empty(
    "No streams.",
    el("p", {}, "No daemon has answered, or none has streams. Check that it runs: ", el("code", {}, "systemctl status perceiverd"), "."),
  );
}

/** Machines that are silent, or whose clock is off. @param {HTMLElement} place @param {import("../house.js").House} house */
function showMachines(place, house) {
  const machines = (house.about && house.about.machines) || [];
  const notices = [];
  for (const each of machines) {
    if (each.silent) {
      const since = each.seen ? ` since ${clock(each.seen)} (${ago(each.seen)})` : ", and never was";
      notices.push(`${each.name}: its daemon is silent${since}. Check it there: systemctl status perceiverd`);
    }
    if (each.clock_offset_s !== null && Math.abs(each.clock_offset_s) > 2) {
      const way = each.clock_offset_s > 0 ? "ahead" : "behind";
      notices.push(`${each.name}: its clock is ${Math.abs(each.clock_offset_s).toFixed(1)} s ${way}, so its times are wrong. Set the clock, for example with timedatectl set-ntp true`);
    }
  }
  fill(place, notices.map((text) => el("p", { class: "notice warn" }, text)));
}

/** Where the details of a stream are. @param {any} stream */
export function streamLink(stream) {
  return link(["stream", stream.machine, stream.stream]);
}
