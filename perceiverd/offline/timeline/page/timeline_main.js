// The timeline of one file. Everything is in this page; nothing is loaded.
import { palette } from "./colours.js";
import { clock, counted, folded, spoken } from "./format.js";
import { listenForKeys } from "./keys.js";
import { linkTo, parseLink } from "./link.js";
import { readModel, readThumbnails } from "./model.js";
import { NowPanel } from "./now.js";
import { Overview } from "./overview.js";
import { makePlayer } from "./player.js";
import { State, foundEvents, foundLabels } from "./state.js";
import { EventTable } from "./table.js";
import { Viewport } from "./viewport.js";

const FIRST_ROWS = 12;
const MORE_ROWS = 24;
const MOST_ROWS = 60;
const byId = (id) => document.getElementById(id);

const dark = matchMedia("(prefers-color-scheme: dark)");
let theme = dark.matches ? "dark" : "light";
document.documentElement.classList.toggle("dark", theme === "dark");

const model = await readModel().catch((fault) => {
  byId("media-notice").textContent = `This page cannot be drawn: it is damaged, or the browser is older than 2023 (${fault.message}).`;
  byId("media-notice").hidden = false;
  throw fault;
});
const least = Math.min(0.1, ...model.events.map((event) => Math.floor(event.peak * 100) / 100));
const state = new State({
  t: 0, playing: false, follow: true, search: [], label: null, least, order: "strength", rows: FIRST_ROWS, drawn: null,
});

/** The event that the playhead was sent to last. */
let stepped = null;
const actions = {
  seek(t) {
    const at = Math.min(model.durationS, Math.max(0, t));
    player.seek(at);
    viewport.reveal(at);
    writeLink();
  },
  /** To the start of an event. */
  go(event) {
    stepped = event;
    actions.seek(event.start);
  },
  move: (seconds) => actions.seek(state.get("t") + seconds),
  home: () => actions.seek(0),
  end: () => actions.seek(model.durationS),
  toggle: () => player.toggle(),
  zoomIn: () => viewport.zoomIn(),
  zoomOut: () => viewport.zoomOut(),
  fit: () => viewport.fit(),
  follow: () => state.set({ follow: !state.get("follow") }),
  search() {
    byId("search").focus();
    byId("search").select();
  },
  clear() {
    byId("search").value = "";
    state.set({ search: [], label: null, rows: FIRST_ROWS });
    writeLink();
  },
  choose(label) {
    state.set({ label });
    const next = label?.events.find((event) => event.end > state.get("t")) ?? label?.events[0];
    if (next) actions.go(next);
    else writeLink();
  },
  /** To the next event of the table after the playhead, or with -1 to the one before. */
  step(direction) {
    const events = foundEvents(model, state.values);
    const t = state.get("t");
    const near = (event) => Math.abs(event.start - t) < 0.06;
    // Events may begin at the same moment, so after a step the next one is the next of the list.
    let index = stepped && near(stepped) ? events.indexOf(stepped) : -1;
    if (index >= 0) index += direction;
    else if (direction > 0) index = events.findIndex((event) => event.start > t || near(event));
    else index = events.findLastIndex((event) => event.start < t && !near(event));
    const event = events[index];
    if (!event) {
      say(direction > 0 ? "No later event" : "No earlier event");
      return;
    }
    actions.go(event);
    say(`${event.label.name}, ${spoken(event.start)} to ${spoken(event.end)}, event ${index + 1} of ${events.length}`);
  },
  theme() {
    theme = theme === "dark" ? "light" : "dark";
    paint();
  },
};

const viewport = new Viewport(model, state, actions);
const overview = new Overview(model, state, actions);
const table = new EventTable(model, actions);
const now = new NowPanel(model);
const player = makePlayer(model, state, byId("media-notice"));

function say(text) {
  byId("spoken").textContent = text;
}

function paint() {
  document.documentElement.classList.toggle("dark", theme === "dark");
  const colours = palette(theme);
  viewport.colours = overview.colours = colours;
  const scale = byId("scale").getContext("2d");
  const image = scale.createImageData(128, 1);
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < 128; i++) pixels[i] = colours.heat[i * 2];
  scale.putImageData(image, 0, 0);
  state.set({ drawn: {} });
}

const { up } = parseLink(location.hash);
let linkDue = 0;
function writeLink() {
  // Browsers allow some 100 changes of the address in 30 s.
  clearTimeout(linkDue);
  linkDue = setTimeout(() => history.replaceState(null, "", linkTo(state.get("t"), state.get("label")?.name ?? null, up)), 300);
}

function readLink() {
  const { t, label } = parseLink(location.hash);
  const found = label === null ? null : model.labels.find((each) => folded(each.name) === folded(label));
  if (label !== null) {
    state.set({ label: found ?? null });
    if (!found) say(`The label ${label} is not in this file`);
  }
  const to = t ?? found?.events[0]?.start ?? null;
  if (to !== null) {
    player.seek(Math.min(to, model.durationS));
    viewport.reveal(Math.min(to, model.durationS));
  }
}

state.on(["search", "least", "order", "label", "rows"], (values) => {
  const found = foundLabels(model, values);
  const chosen = values.label && found.includes(values.label) ? values.label : null;
  let rows = found.slice(0, values.rows);
  if (chosen && !rows.includes(chosen)) rows = [...rows.slice(0, -1), chosen];
  viewport.show(rows);
  const more = byId("more");
  const rest = Math.min(found.length, MOST_ROWS) - rows.length;
  more.hidden = rest <= 0;
  more.textContent = `Show ${Math.min(rest, MORE_ROWS)} more of ${counted(found.length, "label")}`;
  table.show(foundEvents(model, values));
  const clear = byId("clear");
  clear.hidden = !values.label && !values.search.length;
  clear.textContent = values.label ? `Only ${values.label.name}: show all` : "Show all";
  byId("least-shown").textContent = values.least.toFixed(2);
});

state.on(["t", "playing"], ({ t, playing, follow }) => {
  now.draw(t);
  overview.tell(t);
  table.mark(t);
  if (playing && follow) viewport.reveal(t);
});

state.on(["follow"], ({ follow }) => (byId("follow").checked = follow));

state.on(["t", "drawn", "least", "label", "search"], (values) => {
  viewport.draw();
  overview.draw(viewport.leftS, viewport.leftS + viewport.width / viewport.pxPerS, values.t, table.events);
});

byId("controls").addEventListener("submit", (event) => {
  event.preventDefault();
  actions.step(1);
});
byId("search").addEventListener("input", (event) => {
  state.set({ search: folded(event.target.value).split(/\s+/).filter(Boolean), label: null, rows: FIRST_ROWS });
});
byId("search").addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault();
  const first = foundEvents(model, state.values)[0];
  if (first) actions.go(first);
});
byId("least").value = least;
byId("least").addEventListener("input", (event) => state.set({ least: Number(event.target.value) }));
byId("order").addEventListener("change", (event) => state.set({ order: event.target.value }));
byId("follow").addEventListener("change", (event) => state.set({ follow: event.target.checked }));
byId("more").addEventListener("click", () => state.set({ rows: Math.min(MOST_ROWS, state.get("rows") + MORE_ROWS) }));
byId("clear").addEventListener("click", actions.clear);
byId("previous").addEventListener("click", () => actions.step(-1));
byId("next").addEventListener("click", () => actions.step(1));
byId("zoom-in").addEventListener("click", actions.zoomIn);
byId("zoom-out").addEventListener("click", actions.zoomOut);
byId("zoom-fit").addEventListener("click", actions.fit);
byId("theme").addEventListener("click", actions.theme);
dark.addEventListener("change", () => {
  theme = dark.matches ? "dark" : "light";
  paint();
});
window.addEventListener("hashchange", readLink);
listenForKeys(actions);

if (up !== null) {
  byId("up").href = `${"../".repeat(up)}index.html`;
  byId("up").hidden = false;
}
const { summary } = model;
const withEvents = model.labels.filter((label) => label.events.length).length;
byId("facts").textContent = [
  clock(model.durationS),
  withEvents ? `${counted(model.events.length + summary.omitted, "event")} of ${counted(withEvents, "label")}` : "no events",
  `model ${summary.model}`,
  summary.error ? `incomplete: ${summary.error}` : "",
].filter(Boolean).join(" · ");

paint();
state.changed = new Set(Object.keys(state.values));
state.report();
readLink();
document.documentElement.dataset.ready = "yes";
readThumbnails((pictures) => {
  viewport.tracks.pictures = pictures;
  viewport.drawSoon();
});
