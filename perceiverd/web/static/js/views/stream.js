// One stream: now, its last hours by label and minute, and its latest events.
import { ApiError, get, path } from "../api.js";
import { el, fill, refill, write } from "../dom.js";
import { empty, eventEntry, heading, noHistory, notice, shortName } from "../parts.js";
import { link } from "../router.js";
import { HeatMap } from "./heat_map.js";
import { StreamCard } from "./stream_card.js";

const LABELS = 12;
const HOURS = [1, 3, 6, 24];
const REFRESH_MS = 60_000;

/** @param {HTMLElement} root @param {import("../main.js").Context} context */
export async function streamView(root, { house, signal, parts, title }) {
  const [machine = "", stream = ""] = parts;
  const name = `${machine}/${stream}`;
  title(stream || "Stream");
  const now = el("div", {});
  const hours = /** @type {HTMLSelectElement} */ (el("select", { "aria-label": "Hours" }, HOURS.map((each) => el("option", { value: each }, `last ${each === 1 ? "hour" : `${each} hours`}`))));
  const past = el("section", { class: "panel", "aria-labelledby": "past-title" });
  const map = el("div", {});
  const latest = el("ol", { class: "entries" });
  const more = el("a", { class: "button", href: link(["search"], { stream: name }) }, "All events of this stream");
  root.append(
    heading(shortName({ machine, stream }, house), el("a", { class: "back", href: "#/streams" }, "All streams")),
    now,
    past,
    el("section", { class: "panel", "aria-labelledby": "latest-title" }, el("h2", { id: "latest-title" }, "Latest events"), latest, more),
  );
  past.append(el("div", { class: "panel-head" }, el("h2", { id: "past-title" }, "What was heard, by minute"), hours), map);

  /** @type {StreamCard | null} */
  let card = null;
  const build = () => {
    const found = house.streams.get(name);
    if (found && !card) {
      card = new StreamCard(found, house, { labels: LABELS, heading: false });
      fill(now, card.element);
      house.seed(name);
    }
    if (!found) {
      card = null;
      fill(now, house.loaded ? empty("This stream is not published now.", el("p", {}, "Its past is below, if the history has it.")) : empty("Waiting for the stream."));
    }
    card?.update(found);
  };
  house.on("membership", build, signal);
  house.on("theme", build, signal);
  house.on("streams", (names) => names.has(name) && build(), signal);
  build();

  const load = async () => {
    if (house.about && !house.about.history) return fill(map, noHistory());
    const end = Date.now();
    const start = end - Number(hours.value) * 3_600_000;
    const query = { start: new Date(start).toISOString(), end: new Date(end).toISOString(), labels: 20 };
    try {
      const found = await get(`streams/${path(machine, stream)}/heatmap`, query, signal);
      if (heat && found.rows.length) heat.show(found);
      else {
        heat = found.rows.length ? new HeatMap(found, signal, { machine, stream }) : null;
        fill(map, heat ? heat.element : empty("Nothing was received in this time."));
      }
    } catch (error) {
      if (signal.aborted || heat) return;
      const unknown = error instanceof ApiError && error.status === 404; // the history has nothing of it yet
      fill(map, unknown ? empty("Nothing was received yet.") : notice(error instanceof Error ? error.message : String(error), "bad"));
    }
  };
  /** @type {HeatMap | null} */
  let heat = null;
  hours.addEventListener("change", load);
  house.on("theme", () => heat?.draw(), signal);
  const timer = setInterval(() => document.hidden || load(), REFRESH_MS);
  signal.addEventListener("abort", () => clearInterval(timer));

  const events = async () => {
    if (house.about && !house.about.history) return fill(latest, el("li", { class: "soft" }, "Start perceiverd history to see past events here."));
    const page = await get("events", { stream: name, limit: 10 }, signal).catch(() => ({ events: [] }));
    refill(latest, page.events.map((/** @type {any} */ each) => eventEntry(each, house)));
    if (!page.events.length) write(latest.appendChild(el("li", { class: "soft" })), "No events yet.");
  };
  house.on("events", () => {
    for (const each of house.events) if (`${each.machine}/${each.stream}` === name && !seen.has(`${each.id}${each.state}`)) {
      seen.add(`${each.id}${each.state}`);
      events();
      break;
    }
  }, signal);
  const seen = new Set(house.events.map((each) => `${each.id}${each.state}`));
  await Promise.all([load(), events()]);
}
