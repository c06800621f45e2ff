// Search: events by label, stream, time and score, the newest first, page by page.
import { get } from "../api.js";
import { button, el, fill, say, write } from "../dom.js";
import { empty, eventEntry, field, heading, labelField, noHistory, notice, streamField } from "../parts.js";
import { link, replace } from "../router.js";
import { counted, fromInput, inputTime, ms, zoneName } from "../times.js";

const PAGE = 50;

/** @param {HTMLElement} root @param {import("../main.js").Context} context */
export async function searchView(root, { house, signal, query, title }) {
  title("Search");
  if (house.about && !house.about.history) {
    root.append(heading("Search"), noHistory());
    return;
  }
  const label = labelField("Label", query.get("label") || "", signal, "Includes all labels below it: Animal finds Dog too.");
  const stream = streamField("Stream", house, query.get("stream") || "", "All streams");
  const after = timeInput(query.get("after"));
  const before = timeInput(query.get("before"));
  const least = /** @type {HTMLInputElement} */ (el("input", { type: "range", min: 0, max: 1, step: 0.05, value: query.get("least_peak") || 0 }));
  const leastShown = el("output", {}, Number(least.value).toFixed(2));
  const state = /** @type {HTMLSelectElement} */ (
    el("select", {}, [["", "All"], ["open", "Open now"], ["ended", "Ended"], ["end not received", "End not received"]].map(([value, text]) => el("option", { value, selected: value === query.get("state") }, text)))
  );
  const leastField = field("Highest score at least", least);
  leastField.querySelector("label")?.append(" ", leastShown);
  const found = el("ol", { class: "entries wide" });
  const place = el("div", { class: "results" }, found);
  const more = button("Show more", () => load(true), { class: "more", hidden: true });
  const count = el("p", { class: "soft", role: "status" });
  const form = el(
    "form",
    { class: "controls", role: "search", "aria-label": "Events" },
    label.field,
    stream.field,
    field(`From (${zoneName()})`, after),
    field(`To (${zoneName()})`, before),
    leastField,
    field("State", state),
    el("div", { class: "field actions" }, el("button", { type: "submit", class: "main" }, "Search"), el("button", { type: "reset" }, "Clear")),
  );
  root.append(heading("Search", count), form, place, more);
  house.on("membership", stream.fillIn, signal);

  let cursor = "";
  let shown = 0;
  let asked = 0;
  const wanted = () => ({
    label: label.input.value.trim(),
    stream: stream.select.value,
    after: iso(after.value),
    before: iso(before.value),
    least_peak: Number(least.value) || "",
    state: state.value,
  });
  const load = async (/** @type {boolean} */ next) => {
    const number = (asked += 1);
    const filters = wanted();
    if (!next) replace(link(["search"], filters));
    more.setAttribute("aria-disabled", "true");
    try {
      const page = await get("events", { ...filters, label: label.mid(), limit: PAGE, cursor: next ? cursor : "" }, signal);
      if (number !== asked) return;
      if (!next) {
        shown = 0;
        fill(found);
        fill(place, found);
      }
      const entries = page.events.map((/** @type {any} */ each) => eventEntry(each, house));
      found.append(...entries);
      shown += entries.length;
      cursor = page.next || "";
      more.hidden = !page.next;
      write(count, shown ? `${counted(shown, "event")}${page.next ? ", and there are more" : ""}, the newest first` : "");
      if (next && entries[0]) entries[0].querySelector("a").focus();
      if (!shown) fill(place, empty("No event matches.", el("p", {}, "Try a more general label, a longer time or a lower score. Label names are AudioSet's.")));
    } catch (error) {
      if (signal.aborted || number !== asked) return;
      more.hidden = true;
      write(count, "");
      fill(place, notice(error instanceof Error ? error.message : String(error), "bad"));
    }
    more.removeAttribute("aria-disabled");
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    load(false);
  });
  form.addEventListener("reset", () => {
    setTimeout(() => {
      for (const each of [label.input, after, before]) each.value = "";
      [stream.select.value, state.value, least.value] = ["", "", "0"];
      write(leastShown, "0.00");
      say("Cleared.");
      load(false);
    });
  });
  least.addEventListener("input", () => write(leastShown, Number(least.value).toFixed(2)));
  for (const each of [stream.select, after, before, least, state, label.input]) each.addEventListener("change", () => load(false));
  await load(false);
}

/** @param {string | null} time @returns {HTMLInputElement} */
function timeInput(time) {
  const at = time ? ms(time) : NaN;
  return /** @type {HTMLInputElement} */ (el("input", { type: "datetime-local", step: 1, value: Number.isNaN(at) ? "" : inputTime(at) }));
}

/** @param {string} text */
function iso(text) {
  const at = fromInput(text);
  return Number.isNaN(at) ? "" : new Date(at).toISOString();
}
