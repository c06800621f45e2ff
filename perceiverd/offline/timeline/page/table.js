// The events as a table: the same for everybody, and the form for screen readers.
import { clock, counted } from "./format.js";
import { linkTo } from "./link.js";

const PAGE = 40;
const MORE = 400;

/** Shows events as rows, some at a time, in the order that the head's buttons choose. */
export class EventTable {
  constructor(model, actions) {
    Object.assign(this, { model, actions, shown: PAGE, key: "start", down: false, events: [], here: null });
    this.table = document.getElementById("table");
    this.body = this.table.tBodies[0];
    this.more = document.getElementById("more-events");
    this.more.addEventListener("click", () => {
      const first = this.shown;
      this.shown += MORE;
      this.fill();
      this.body.rows[first]?.querySelector("a").focus();
    });
    for (const button of this.table.tHead.querySelectorAll("button")) {
      button.addEventListener("click", () => this.sort(button.dataset.key));
    }
    const omitted = model.summary.omitted;
    if (omitted) {
      const notice = document.getElementById("omitted");
      notice.textContent = `The page holds the ${counted(model.events.length, "event")} with the highest peaks. ${counted(omitted, "weaker event")} ${omitted === 1 ? "is" : "are"} left out.`;
      notice.hidden = false;
    }
  }

  sort(key) {
    this.down = key === this.key ? !this.down : key === "peak";
    this.key = key;
    for (const button of this.table.tHead.querySelectorAll("button")) {
      const cell = button.parentElement;
      if (button.dataset.key === key) cell.setAttribute("aria-sort", this.down ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    }
    this.show(this.events, false);
  }

  /** Show these events. */
  show(events, fromTop = true) {
    const sign = this.down ? -1 : 1;
    const value = { start: (e) => e.start, end: (e) => e.end, peak: (e) => e.peak, name: (e) => e.label.name }[this.key];
    const compare = (a, b) => (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0);
    this.events = [...events].sort((a, b) => sign * compare(a, b) || a.start - b.start);
    if (fromTop) this.shown = PAGE;
    this.fill();
    const all = this.model.events.length;
    document.getElementById("events-count").textContent =
      events.length === all ? counted(all, "event") : `${events.length.toLocaleString("en")} of ${counted(all, "event")}`;
  }

  fill() {
    const shown = this.events.slice(0, this.shown);
    this.body.replaceChildren(...(shown.length ? shown.map((event) => this.row(event)) : [emptyRow(this.model.events.length > 0)]));
    const rest = this.events.length - shown.length;
    this.more.hidden = rest <= 0;
    this.more.textContent = `Show ${Math.min(rest, MORE).toLocaleString("en")} more`;
    this.mark(this.here);
  }

  row(event) {
    const row = document.createElement("tr");
    const link = document.createElement("a");
    link.href = linkTo(event.start, event.label.name);
    link.textContent = clock(event.start);
    link.setAttribute("aria-label", `${event.label.name} at ${clock(event.start)}`);
    link.addEventListener("click", (press) => {
      if (press.metaKey || press.ctrlKey || press.shiftKey) return; // another tab
      press.preventDefault();
      this.actions.go(event);
    });
    const peak = document.createElement("span");
    peak.className = "peak";
    const bar = document.createElement("i");
    bar.style.setProperty("--part", `${Math.round(event.peak * 100)}%`);
    peak.append(bar, event.peak.toFixed(2));
    const how = { av: "heard and seen", a: "heard", v: "seen" }[event.modalities] ?? "";
    row.append(...[link, clock(event.end), event.label.name, peak, how].map(cell));
    row.lastChild.className = "wide";
    row.event = event;
    return row;
  }

  /** Mark the rows whose events have this moment. */
  mark(t) {
    this.here = t;
    if (t === null) return;
    for (const row of this.body.rows) {
      const event = row.event;
      row.classList.toggle("here", Boolean(event) && event.start <= t && t < event.end);
    }
  }
}

function cell(content) {
  const made = document.createElement("td");
  made.append(content);
  return made;
}

function emptyRow(any) {
  const row = document.createElement("tr");
  const made = cell(any ? "No event matches. Lower the score, or empty the search." : "No label was certain for long enough to be an event.");
  made.colSpan = 5;
  row.append(made);
  return row;
}
