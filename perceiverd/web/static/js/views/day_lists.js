// The day as text: the events in the stretch that is shown, and the times without listening.
import { button, el, fill, refill, write } from "../dom.js";
import { scoreBar } from "../parts.js";
import { link } from "../router.js";
import { clock, counted, lasted, score } from "../times.js";
import { spanWords } from "../words.js";

const PAGE = 40;
const MOST_GAPS = 100;

/** Two lists below the time line. */
export class DayLists {
  /** @param {import("../house.js").House} house */
  constructor(house) {
    this.house = house;
    this.pages = 1;
    this.key = "";
    /** @type {import("./day_model.js").DayModel | null} */
    this.model = null;
    /** @type {number[]} indexes of the events in the stretch */
    this.events = [];
    this.body = el("tbody");
    this.count = el("p", { class: "soft" });
    this.more = button("Show more", () => {
      this.pages += 1;
      this.render();
    }, { class: "more" });
    this.gaps = el("ul", { class: "gaps" });
    this.gapTitle = el("summary", {});
    this.gapBox = el("details", { class: "panel" }, this.gapTitle, this.gaps);
    const columns = ["Time", "Label", "Stream", "Lasted", "Highest"].map((each) => el("th", { scope: "col" }, each));
    this.element = el(
      "div",
      {},
      this.gapBox,
      el("section", { class: "panel", "aria-labelledby": "in-view" }, el("div", { class: "panel-head" }, el("h2", { id: "in-view" }, "Events in this stretch"), this.count), el("table", { class: "plain-table day-table" }, el("thead", {}, el("tr", {}, columns)), this.body), this.more),
    );
  }

  /** @param {import("./day_model.js").DayModel} model @param {string} stream @param {string} label @param {number} from @param {number} to */
  show(model, stream, label, from, to) {
    const key = `${stream}\n${label}\n${from}\n${to}\n${model.count}`;
    if (key === this.key && model === this.model) return;
    this.key = key;
    this.model = model;
    this.pages = 1;
    const { start_ms: starts, end_ms: ends } = model.line;
    this.events = model.wanted(stream, label).filter((event) => ends[event] >= from && starts[event] <= to);
    this.render();
    const gaps = model.allGaps(stream);
    this.gapBox.hidden = !gaps.length;
    const seconds = gaps.reduce((sum, gap) => sum + (gap.to - gap.from), 0) / 1000;
    write(this.gapTitle, `Not listening: ${counted(gaps.length, "time")}, ${lasted(seconds)} together`);
    fill(this.gaps, gaps.slice(0, MOST_GAPS).map((gap) => el("li", {}, `${clock(gap.from)} to ${clock(gap.to)}${stream ? "" : `, ${this.short(gap.stream)}`}: ${spanWords(gap.kind)}${gap.what ? ` (${gap.what})` : ""}`)), gaps.length > MOST_GAPS && el("li", { class: "soft" }, `and ${gaps.length - MOST_GAPS} more`));
  }

  /** @param {string} name */
  short(name) {
    const several = this.house.about && this.house.about.machines.length > 1;
    return several ? name : name.slice(name.indexOf("/") + 1);
  }

  render() {
    const { events } = this;
    const shown = events.slice(0, this.pages * PAGE);
    const { line } = /** @type {import("./day_model.js").DayModel} */ (this.model);
    write(this.count, counted(events.length, "event"));
    refill(
      this.body,
      shown.map((event) =>
        el(
          "tr",
          {},
          el("td", {}, clock(line.start_ms[event])),
          el("th", { scope: "row" }, el("a", { href: link(["event", line.ids[event]]) }, line.label_names[line.labels[event]])),
          el("td", {}, this.short(line.names[line.streams[event]])),
          el("td", {}, lasted((line.end_ms[event] - line.start_ms[event]) / 1000)),
          el("td", {}, scoreBar(line.peaks[event]), " ", score(line.peaks[event])),
        ),
      ),
      !shown.length && el("tr", {}, el("td", { colspan: 5, class: "soft" }, "No event in this stretch.")),
    );
    this.more.hidden = shown.length === events.length;
  }
}
