// The labels at the playhead: those with events, then those with the highest scores.
import { clock } from "./format.js";
import { eventAt } from "./model.js";

const SHOWN = 8;
const QUIET = 0.02;

/** Fills the panel beside the player. Its rows are made once: the panel changes many times a second. */
export class NowPanel {
  constructor(model) {
    this.model = model;
    this.time = document.getElementById("now-time");
    const list = document.getElementById("now");
    this.rows = Array.from({ length: SHOWN }, () => {
      const row = document.createElement("li");
      const [name, score, meter, bar] = ["span", "span", "span", "i"].map((tag) => document.createElement(tag));
      [name.className, score.className, meter.className] = ["name", "score", "meter"];
      meter.setAttribute("aria-hidden", "true");
      meter.append(bar);
      row.append(name, score, meter);
      list.append(row);
      return { row, name, score, bar };
    });
  }

  draw(t) {
    const { model } = this;
    this.time.textContent = clock(t);
    const best = model.labels
      .map((label) => ({ label, score: model.scores.at(label.row, t) / 255, event: eventAt(label, t) !== null }))
      .filter(({ score }) => score >= QUIET)
      .sort((a, b) => b.event - a.event || b.score - a.score)
      .slice(0, SHOWN);
    const silent = best.length === 0;
    const known = model.heard.at(0, t);
    this.rows.forEach(({ row, name, score, bar }, i) => {
      const found = best[i];
      row.hidden = !found && !(silent && i === 0);
      row.classList.toggle("quiet", !found);
      row.classList.toggle("event", Boolean(found?.event));
      name.textContent = found ? found.label.name : known ? "Nothing above 0.02" : "No window here";
      score.textContent = found ? found.score.toFixed(2) : "";
      bar.style.transform = `scaleX(${found ? found.score : 0})`;
    });
  }
}
