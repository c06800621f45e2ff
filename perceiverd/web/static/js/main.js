// Starts the page: who is signed in, the live connection, and the view that the address names.
import { get, onSignedOut, remove, setToken } from "./api.js";
import { el, fill, icon, say, write } from "./dom.js";
import { House } from "./house.js";
import { Live } from "./live.js";
import { parse, replace } from "./router.js";
import { startTheme } from "./theme.js";
import { ago, clock } from "./times.js";
import { correctionsView } from "./views/corrections.js";
import { dayView } from "./views/day.js";
import { eventView } from "./views/event.js";
import { explainView } from "./views/explain.js";
import { searchView } from "./views/search.js";
import { signInView } from "./views/sign_in.js";
import { statisticsView } from "./views/statistics.js";
import { streamView } from "./views/stream.js";
import { streamsView } from "./views/streams.js";
import { teachView } from "./views/teach.js";

/**
 * @typedef {object} Context what a view may use
 * @property {House} house
 * @property {Live} live
 * @property {AbortSignal} signal aborted when the view is left
 * @property {string[]} parts
 * @property {URLSearchParams} query
 * @property {(title: string) => void} title
 * @property {() => Promise<void>} restart ask again who is signed in, and show the view
 */

/** @type {Record<string, (root: HTMLElement, context: Context) => void | Promise<void>>} */
const VIEWS = {
  streams: streamsView,
  stream: streamView,
  day: dayView,
  event: eventView,
  search: searchView,
  explain: explainView,
  statistics: statisticsView,
  corrections: correctionsView,
  teach: teachView,
};
const NAVIGATION = [
  ["streams", "Streams", ["stream", "explain"]],
  ["day", "Day", []],
  ["search", "Search", ["event"]],
  ["statistics", "Statistics", []],
  ["corrections", "Corrections", ["teach"]],
];
const BANNER_AFTER_MS = 1500; // a short break is not worth a banner

const element = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
const root = element("view");
const live = new Live(signedOut);
const house = new House(live);
let leaving = new AbortController();
let first = true;
let signedIn = false;

/** Show the view of the address, or the form to sign in. */
async function show() {
  leaving.abort();
  leaving = new AbortController();
  const { view, parts, query } = parse(location.hash);
  const known = Object.hasOwn(VIEWS, view);
  const chosen = !signedIn ? signInView : known ? VIEWS[view] : streamsView;
  if (signedIn && !known) replace("#/streams");
  live.explain(signedIn && view === "explain" && parts.length === 2 ? parts.join("/") : "");
  mark(view);
  fill(root);
  const name = !signedIn ? "sign-in" : known ? view : "streams";
  root.className = `view ${name}`;
  const signal = leaving.signal;
  const title = (/** @type {string} */ text) => {
    if (!signal.aborted) document.title = `${text} · perceiverd`;
  };
  try {
    const shown = chosen(root, { house, live, signal, parts, query, title, restart: begin });
    if (!first) focusHeading();
    await shown;
    if (!first && !signal.aborted && !root.contains(document.activeElement)) focusHeading();
  } catch (error) {
    if (signal.aborted) return;
    const text = error instanceof Error ? error.message : String(error);
    const again = el("button", { type: "button", onclick: show }, "Try again");
    const notice = el("div", { class: "notice bad", role: "alert" }, el("p", {}, text), again);
    if (!root.querySelector("h1")) root.prepend(el("h1", { tabindex: "-1" }, "This view cannot be shown"));
    root.append(notice);
  }
  if (signal.aborted) return;
  first = false;
  document.documentElement.dataset.ready = name;
}

/** Keyboard and screen readers begin at the heading of the new view. */
function focusHeading() {
  const heading = root.querySelector("h1");
  if (heading instanceof HTMLElement) {
    heading.tabIndex = -1;
    heading.focus({ preventScroll: true });
    scrollTo(0, 0);
  }
}

/** @param {string} view */
function mark(view) {
  const nav = element("views");
  if (!nav.childElementCount) {
    nav.append(...NAVIGATION.map(([name, text]) => el("a", { href: `#/${name}`, data: { view: name } }, icon(String(name)), el("span", {}, String(text)))));
  }
  for (const anchor of nav.querySelectorAll("a")) {
    const entry = NAVIGATION.find(([name]) => name === anchor.dataset.view);
    const here = entry && (entry[0] === view || entry[2].includes(view));
    if (here) anchor.setAttribute("aria-current", "page");
    else anchor.removeAttribute("aria-current");
  }
  nav.hidden = !signedIn;
}

/** Say whether the page is live. The banner comes after a moment, and says since when. */
function showConnection() {
  const place = element("connection");
  const banner = element("banner");
  place.hidden = !signedIn;
  place.className = live.connected ? "live" : "lost";
  write(place, live.connected ? "Live" : live.lostAt ? "Not connected" : "Connecting");
  const lost = signedIn && !live.connected && live.lostAt > 0 && Date.now() - live.lostAt > BANNER_AFTER_MS;
  document.body.classList.toggle("lost", lost);
  if (lost && banner.hidden) {
    write(banner, `Not connected since ${clock(live.lostAt)}: what you see is old. The page tries again by itself.`);
  }
  if (!lost && !banner.hidden) say("Connected again.");
  banner.hidden = !lost;
  for (const each of document.querySelectorAll("time[data-ago]")) write(each, ago(/** @type {HTMLTimeElement} */ (each).dateTime));
}

function signedOut() {
  if (!signedIn) return;
  signedIn = false;
  live.stop();
  house.streams.clear();
  house.events = [];
  element("sign-out").hidden = true;
  showConnection();
  show();
}

/** Ask who we are, then begin. */
async function start() {
  const session = await get("session");
  setToken(session.csrf);
  signedIn = session.signed_in;
  element("sign-out").hidden = !(signedIn && session.password);
  if (signedIn) {
    await house.refreshAbout(); // views ask what the server can do
    live.start();
  }
  showConnection();
  await show();
}

async function begin() {
  try {
    await start();
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    fill(root, el("h1", { tabindex: "-1" }, "No answer"), el("p", { class: "notice bad", role: "alert" }, text), el("p", {}, "This page tries again by itself."));
    setTimeout(begin, 3000);
  }
}

startTheme(element("theme"), () => {
  house.send("theme");
});
onSignedOut(signedOut);
live.on("connection", showConnection);
setInterval(showConnection, 1000);
addEventListener("hashchange", () => location.hash.startsWith("#/") && show());
element("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the fragment names the view
  root.focus();
});
element("sign-out").addEventListener("click", async () => {
  await remove("session").catch(() => null);
  signedOut();
});
begin();
