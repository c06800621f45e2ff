// The level of a stream's sound as a meter.
import { el, write } from "../dom.js";
import { levelWords } from "../words.js";

const LOWEST_DBFS = -70; // quieter than a quiet room

/** A meter from -70 dB to full scale. */
export class Level {
  constructor() {
    this.text = el("span", { class: "level-text" });
    this.bar = el("span", { class: "level", role: "meter", "aria-label": "Sound level", "aria-valuemin": LOWEST_DBFS, "aria-valuemax": 0, "aria-valuenow": LOWEST_DBFS }, el("i"));
    this.element = el("span", { class: "level-box" }, this.bar, this.text);
  }

  /** @param {number | null | undefined} dbfs */
  update(dbfs) {
    const none = dbfs === null || dbfs === undefined;
    const shown = none ? LOWEST_DBFS : Math.min(0, Math.max(LOWEST_DBFS, dbfs));
    const words = levelWords(dbfs);
    this.bar.style.setProperty("--part", `${((shown - LOWEST_DBFS) / -LOWEST_DBFS) * 100}%`);
    this.bar.classList.toggle("loud", !none && dbfs > -3);
    if (this.bar.getAttribute("aria-valuenow") !== String(Math.round(shown))) this.bar.setAttribute("aria-valuenow", String(Math.round(shown)));
    if (this.bar.getAttribute("aria-valuetext") !== words) this.bar.setAttribute("aria-valuetext", words);
    write(this.text, words);
  }
}
