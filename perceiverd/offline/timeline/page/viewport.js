// The scroller: which time is visible, zoom, click to seek, and the tip at the pointer.
import { clock } from "./format.js";
import { MOST_PX_PER_S, Tracks, layoutOf } from "./tracks.js";

const NARROW = matchMedia("(max-width: 720px)");
const ZOOM = 1.6;

/** Shows the tracks and the names of their rows, and keeps the playhead visible. */
export class Viewport {
  constructor(model, state, actions) {
    Object.assign(this, { model, state, actions, rows: [], colours: null, ours: false });
    this.scroller = document.getElementById("scroller");
    this.sheet = document.getElementById("sheet");
    this.names = document.getElementById("names");
    this.tip = document.getElementById("tip");
    this.tracks = new Tracks(document.getElementById("canvas"), model);
    this.hasPictures = model.summary.pictures > 0;
    this.pxPerS = 0;
    this.listen();
  }

  listen() {
    const { scroller } = this;
    const canvas = this.tracks.canvas;
    // Not inside the observer: what we change there may resize the scroller again, which browsers report as an error.
    new ResizeObserver(() => requestAnimationFrame(() => this.resized())).observe(scroller);
    scroller.addEventListener("scroll", () => this.scrolled(), { passive: true });
    canvas.addEventListener("click", (event) => this.actions.seek(this.timeAt(event.clientX)));
    canvas.addEventListener("pointermove", (event) => event.pointerType === "mouse" && this.point(event));
    canvas.addEventListener("pointerleave", () => (this.tip.hidden = true));
    scroller.addEventListener(
      "wheel",
      (event) => {
        if (!event.ctrlKey) return;
        event.preventDefault(); // the page itself must not zoom
        this.zoom(Math.exp(-event.deltaY / 200), event.clientX);
      },
      { passive: false },
    );
    NARROW.addEventListener("change", () => this.resized());
  }

  get nameWidth() {
    return this.names.offsetWidth;
  }

  get width() {
    return Math.max(40, this.scroller.clientWidth - this.nameWidth);
  }

  get fitPxPerS() {
    return Math.max(this.width - 1, 1) / this.model.durationS;
  }

  get leftS() {
    return this.scroller.scrollLeft / this.pxPerS;
  }

  timeAt(clientX) {
    const x = clientX - this.tracks.canvas.getBoundingClientRect().left;
    return Math.min(this.model.durationS, Math.max(0, this.leftS + x / this.pxPerS));
  }

  /** Show these rows. */
  show(rows) {
    this.rows = rows;
    this.resized();
  }

  resized() {
    const fits = !this.pxPerS || Math.abs(this.pxPerS - this.lastFit) < 1e-9;
    if (fits || this.pxPerS < this.fitPxPerS) this.pxPerS = this.fitPxPerS;
    this.lastFit = this.fitPxPerS;
    this.layout = layoutOf(this.model, NARROW.matches, this.hasPictures);
    const height = this.layout.rowsTop + Math.max(1, this.rows.length) * this.layout.rowHeight + 2;
    this.sheet.style.width = `${this.nameWidth + Math.max(this.width, this.model.durationS * this.pxPerS)}px`;
    this.tracks.resize(this.width, height);
    this.names.style.height = `${height}px`;
    this.nameRows();
    this.drawSoon();
  }

  nameRows() {
    const { rowsTop, rowHeight } = this.layout;
    while (this.names.children.length > this.rows.length) this.names.lastChild.remove();
    while (this.names.children.length < this.rows.length) this.names.append(nameButton());
    const chosen = this.state.get("label");
    this.rows.forEach((label, i) => {
      const button = this.names.children[i];
      const [text, count] = button.children;
      text.textContent = label.name;
      count.textContent = label.events.length ? `×${label.events.length}` : "";
      button.title = label.name;
      button.style.top = `${rowsTop + i * rowHeight}px`;
      button.setAttribute("aria-pressed", String(label === chosen));
      button.onclick = () => this.actions.choose(label === this.state.get("label") ? null : label);
    });
  }

  /** Zoom by this factor; what is at `clientX`, or else the playhead or the middle, stays where it is. */
  zoom(factor, clientX = null) {
    const left = this.tracks.canvas.getBoundingClientRect().left;
    const head = (this.state.get("t") - this.leftS) * this.pxPerS;
    const x = clientX !== null ? clientX - left : head >= 0 && head <= this.width ? head : this.width / 2;
    const t = this.leftS + x / this.pxPerS;
    this.pxPerS = Math.min(Math.max(MOST_PX_PER_S, this.fitPxPerS), Math.max(this.fitPxPerS, this.pxPerS * factor));
    this.resized();
    this.scrollTo(t * this.pxPerS - x);
  }

  zoomIn() {
    this.zoom(ZOOM);
  }

  zoomOut() {
    this.zoom(1 / ZOOM);
  }

  fit() {
    this.zoom(0);
  }

  /** Bring a moment into view if it is not. */
  reveal(t) {
    const x = t * this.pxPerS - this.scroller.scrollLeft;
    if (x < this.width * 0.02 || x > this.width * 0.85) this.scrollTo(t * this.pxPerS - this.width * 0.25);
  }

  scrollTo(left) {
    const before = this.scroller.scrollLeft;
    this.scroller.scrollLeft = left;
    this.ours = this.scroller.scrollLeft !== before;
    this.drawSoon();
  }

  scrolled() {
    // Somebody who scrolls while the file plays wants to look elsewhere.
    if (!this.ours && this.state.get("playing")) this.state.set({ follow: false });
    this.ours = false;
    this.tip.hidden = true;
    this.drawSoon();
  }

  drawSoon() {
    this.state.set({ drawn: {} }); // never the same value, so the views are asked to draw
  }

  draw() {
    if (!this.colours || !this.layout) return;
    const { t, least, label } = this.state.values;
    const { leftS, pxPerS, rows, layout, colours } = this;
    this.tracks.draw({ leftS, pxPerS, rows, layout, colours, least, t, chosen: label });
  }

  point(event) {
    const box = this.tracks.canvas.getBoundingClientRect();
    const t = this.timeAt(event.clientX);
    const y = event.clientY - box.top - this.layout.rowsTop;
    const label = y >= 0 ? this.rows[Math.floor(y / this.layout.rowHeight)] : null;
    const score = label ? this.model.scores.at(label.row, t) / 255 : 0;
    this.tip.textContent = label ? `${clock(t)}  ${label.name} ${score.toFixed(2)}` : clock(t);
    this.tip.hidden = false;
    const outer = this.tip.offsetParent.getBoundingClientRect();
    const left = Math.min(event.clientX - outer.left + 12, outer.width - this.tip.offsetWidth - 4);
    this.tip.style.transform = `translate(${Math.max(0, left)}px, ${event.clientY - outer.top - 34}px)`;
  }
}

function nameButton() {
  const button = document.createElement("button");
  button.type = "button";
  for (const name of ["text", "count"]) {
    const part = document.createElement("span");
    part.className = name;
    button.append(part);
  }
  return button;
}
