// The timelines of a folder: which labels occur in which files. Everything is in this page; nothing is loaded.
import { takeBlock } from "./bytes.js";
import { clock, counted, folded } from "./format.js";
import { linkTo, parseLink } from "./link.js";

const PAGE = 100;
const CHIPS = 6;
const FIRST_LABELS = matchMedia("(max-width: 720px)").matches ? 8 : 16;
const byId = (id) => document.getElementById(id);

/** Columns of the index: what `offline/timeline/index.py` writes. */
function readFiles() {
  const data = JSON.parse(takeBlock("index"));
  const names = data.labels.map((name, index) => ({ name, index, folded: folded(name) }));
  const files = data.files.map(([href, name, durationS, error, rows], index) => ({
    href, name, durationS, error, index, folded: folded(name), depth: href.split("/").length - 1,
    found: rows.map(([label, events, totalS, firstS, peak]) => ({ label: names[label], events, totalS, firstS, peak })),
  }));
  return { names, files, omitted: data.omitted };
}

const { names, files, omitted } = readFiles();
const chosen = { words: [], label: null, least: 0, order: "name", shown: PAGE, labels: FIRST_LABELS };

const dark = matchMedia("(prefers-color-scheme: dark)");
const setTheme = (on) => document.documentElement.classList.toggle("dark", on);
setTheme(dark.matches);
dark.addEventListener("change", () => setTheme(dark.matches));
byId("theme").addEventListener("click", () => setTheme(!document.documentElement.classList.contains("dark")));

/** Files that match, each with the labels that are strong enough. */
function matching() {
  const matches = [];
  // A word may be in the name of the file, or in that of a label.
  const hits = chosen.words.map((word) => new Set(names.filter((name) => name.folded.includes(word)).map((name) => name.index)));
  for (const file of files) {
    const found = file.found.filter((each) => each.peak >= chosen.least);
    if (!found.length && chosen.least > 0) continue;
    const named = chosen.words.every((word, i) => file.folded.includes(word) || found.some((each) => hits[i].has(each.label.index)));
    if (named) matches.push({ file, found, focus: found.filter((each) => hits.some((set) => set.has(each.label.index))) });
  }
  return matches;
}

function filesOf(matches) {
  if (!chosen.label) return matches;
  return matches
    .map((each) => ({ ...each, focus: each.found.filter(({ label }) => label === chosen.label) }))
    .filter(({ focus }) => focus.length);
}

function sorted(matches) {
  const total = (key) => (each) => (each.focus.length ? each.focus : each.found).reduce((sum, one) => sum + one[key], 0);
  const peak = (each) => Math.max(0, ...(each.focus.length ? each.focus : each.found).map((one) => one.peak));
  const value = { peak, events: total("events"), time: total("totalS"), length: ({ file }) => file.durationS }[chosen.order];
  if (!value) return matches; // the page has them by name
  return matches.map((each) => [value(each), each]).sort((a, b) => b[0] - a[0] || a[1].file.index - b[1].file.index).map(([, each]) => each);
}

function draw() {
  const matches = matching();
  const found = sorted(filesOf(matches));
  drawLabels(matches);
  const shown = found.slice(0, chosen.shown);
  byId("table").tBodies[0].replaceChildren(...(shown.length ? shown.map(fileRow) : [emptyRow()]));
  const rest = found.length - shown.length;
  byId("more").hidden = rest <= 0;
  byId("more").textContent = `Show ${Math.min(rest, PAGE * 5).toLocaleString("en")} more`;
  byId("files-count").textContent =
    found.length === files.length ? counted(files.length, "file") : `${found.length.toLocaleString("en")} of ${counted(files.length, "file")}`;
  byId("clear").hidden = !chosen.label && !chosen.words.length;
  byId("clear").textContent = chosen.label ? `Only ${chosen.label.name}: show all` : "Show all";
  byId("least-shown").textContent = chosen.least.toFixed(2);
}

function drawLabels(matches) {
  const totals = new Map();
  for (const { found } of matches) {
    for (const { label, events } of found) {
      const sum = totals.get(label) ?? { label, files: 0, events: 0 };
      sum.files += 1;
      sum.events += events;
      totals.set(label, sum);
    }
  }
  const wanted = (label) => !chosen.words.length || chosen.words.some((word) => label.folded.includes(word));
  const all = [...totals.values()].sort(
    (a, b) => wanted(b.label) - wanted(a.label) || b.files - a.files || b.events - a.events || a.label.name.localeCompare(b.label.name, "en"),
  );
  const shown = all.slice(0, chosen.labels);
  if (chosen.label && !shown.some(({ label }) => label === chosen.label)) {
    shown.unshift(totals.get(chosen.label) ?? { label: chosen.label, files: 0, events: 0 });
  }
  const most = Math.max(1, ...shown.map((each) => each.files));
  byId("labels").replaceChildren(...shown.map((each) => labelItem(each, most)));
  byId("more-labels").hidden = all.length <= chosen.labels;
  byId("more-labels").textContent = `Show all ${all.length}`;
}

function labelItem({ label, files: count, events }, most) {
  const [item, button, text, number, share] = ["li", "button", "span", "span", "span"].map((tag) => document.createElement(tag));
  [text.className, number.className, share.className] = ["text", "count", "share"];
  button.type = "button";
  button.dataset.label = label.index;
  button.setAttribute("aria-pressed", String(label === chosen.label));
  text.textContent = label.name;
  number.textContent = counted(count, "file");
  button.title = `${label.name}: ${counted(events, "event")} in ${counted(count, "file")}`;
  share.style.transform = `scaleX(${count / most})`;
  share.setAttribute("aria-hidden", "true");
  button.append(text, number, share);
  button.addEventListener("click", () => {
    change({ label: label === chosen.label ? null : label });
    byId("labels").querySelector(`[data-label="${label.index}"]`)?.focus();
  });
  item.append(button);
  return item;
}

function fileRow({ file, found, focus }) {
  const row = document.createElement("tr");
  const slash = file.name.lastIndexOf("/");
  const link = document.createElement("a");
  link.href = file.href + linkTo(null, null, file.depth);
  link.textContent = file.name.slice(slash + 1) || file.name;
  const note = document.createElement("small");
  const events = found.reduce((sum, each) => sum + each.events, 0);
  note.textContent = (slash > 0 ? `${file.name.slice(0, slash)} · ` : "") + (events ? counted(events, "event") : "no events");
  const fault = document.createElement("small");
  fault.className = "error";
  fault.textContent = file.error ? `incomplete: ${file.error}` : "";
  fault.hidden = !file.error;
  const chips = document.createElement("div");
  chips.className = "chips";
  const order = [...focus, ...found.filter((each) => !focus.includes(each))];
  for (const each of order.slice(0, CHIPS)) chips.append(chip(file, each, focus.includes(each)));
  if (order.length > CHIPS) {
    const rest = document.createElement("span");
    rest.className = "rest";
    rest.textContent = `and ${order.length - CHIPS} more`;
    chips.append(rest);
  }
  row.append(...[[link, note, fault], [clock(file.durationS, file.durationS < 60 ? 1 : 0)], [chips]].map(cell));
  row.children[1].className = "wide";
  return row;
}

function chip(file, { label, events, firstS, peak }, isFocus) {
  const link = document.createElement("a");
  link.href = file.href + linkTo(firstS, label.name, file.depth);
  link.textContent = `${label.name}${events > 1 ? ` ×${events}` : ""}${isFocus ? `, ${clock(firstS, 0)}` : ""}`;
  link.title = `${label.name}: ${counted(events, "event")}, the first at ${clock(firstS)}, peak ${peak.toFixed(2)}`;
  link.classList.toggle("chosen", isFocus);
  return link;
}

function cell(content) {
  const made = document.createElement("td");
  made.append(...content);
  return made;
}

function emptyRow() {
  const row = document.createElement("tr");
  const made = cell(["No file matches. Lower the peak, or empty the search."]);
  made.colSpan = 3;
  row.append(made);
  return row;
}

function change(values) {
  Object.assign(chosen, { shown: PAGE }, values);
  draw();
  if ("label" in values) history.replaceState(null, "", chosen.label ? linkTo(null, chosen.label.name) : "#");
}

function readLink() {
  const { label } = parseLink(location.hash);
  if (label === null) return;
  chosen.label = names.find((each) => each.folded === folded(label)) ?? null;
  draw();
}

byId("controls").addEventListener("submit", (event) => event.preventDefault());
byId("search").addEventListener("input", (event) => {
  change({ words: folded(event.target.value).split(/\s+/).filter(Boolean) });
});
byId("least").addEventListener("input", (event) => change({ least: Number(event.target.value) }));
byId("order").addEventListener("change", (event) => change({ order: event.target.value }));
byId("more").addEventListener("click", () => change({ shown: chosen.shown + PAGE * 5 }));
byId("more-labels").addEventListener("click", () => change({ labels: names.length }));
byId("clear").addEventListener("click", () => {
  byId("search").value = "";
  change({ words: [], label: null });
});
window.addEventListener("hashchange", readLink);

const hours = files.reduce((sum, file) => sum + file.durationS, 0) / 3600;
const events = files.reduce((sum, file) => sum + file.found.reduce((all, each) => all + each.events, 0), 0);
const length = hours >= 1 ? `${hours.toFixed(hours < 100 ? 1 : 0)} hours` : clock(hours * 3600);
byId("facts").textContent = [counted(files.length, "file"), length, `${counted(events, "event")} of ${counted(names.length, "label")}`].join(" · ");
if (omitted) {
  byId("omitted").textContent = `This page lists the first ${counted(files.length, "file")}. ${counted(omitted, "file")} more ${omitted === 1 ? "is" : "are"} in the folder.`;
  byId("omitted").hidden = false;
}
draw();
readLink();
document.documentElement.dataset.ready = "yes";
