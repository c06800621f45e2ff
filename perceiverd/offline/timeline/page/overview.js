// The whole file in one strip: a slider for the position, with the audio's envelope and the events.
import { clock, spoken } from "./format.js";

const MARK_PX = 9;

/** Makes the strip a slider and draws it. */
export class Overview {
  constructor(model, state, actions) {
    Object.assign(this, { model, state, actions, colours: null });
    this.element = document.getElementById("overview");
    this.canvas = this.element.querySelector("canvas");
    this.element.setAttribute("aria-valuemax", model.durationS.toFixed(1));
    new ResizeObserver(() => state.set({ drawn: {} })).observe(this.element);
    let dragging = false;
    const seek = (event) => {
      const box = this.element.getBoundingClientRect();
      const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
      actions.seek(share * model.durationS);
    };
    this.element.addEventListener("pointerdown", (event) => {
      dragging = true;
      this.element.setPointerCapture(event.pointerId);
      seek(event);
    });
    this.element.addEventListener("pointermove", (event) => dragging && seek(event));
    for (const name of ["pointerup", "pointercancel"]) this.element.addEventListener(name, () => (dragging = false));
  }

  /** Say the position to screen readers. */
  tell(t) {
    this.element.setAttribute("aria-valuenow", t.toFixed(1));
    this.element.setAttribute("aria-valuetext", spoken(t));
  }

  /** Draw; `leftS` and `rightS` are the times that the tracks show, `events` the events to mark. */
  draw(leftS, rightS, t, events) {
    const { colours, model } = this;
    const box = this.element.getBoundingClientRect();
    const scale = Math.min(2, window.devicePixelRatio || 1);
    const [width, height] = [Math.round(box.width * scale), Math.round(box.height * scale)];
    if (!colours || !width) return;
    if (this.canvas.width !== width || this.canvas.height !== height) [this.canvas.width, this.canvas.height] = [width, height];
    const context = this.canvas.getContext("2d");
    context.clearRect(0, 0, width, height);
    const x = (seconds) => (seconds / model.durationS) * width;
    const middle = (height - MARK_PX * scale) / 2;
    if (model.sound) {
      const level = model.sound.peaks.level(model.durationS / width);
      context.fillStyle = colours.wave;
      for (let i = 0; i < level.count; i++) {
        const tall = Math.max(1, (level.cells[i] / 255) * middle * 0.94);
        const left = x(model.sound.peaks.startS + i * level.spanS);
        context.fillRect(left, middle - tall, Math.max(1, x(level.spanS) + 0.5), 2 * tall);
      }
    }
    context.fillStyle = colours.event;
    for (const event of events) {
      context.fillRect(x(event.start), height - (MARK_PX - 2) * scale, Math.max(2 * scale, x(event.end - event.start)), (MARK_PX - 4) * scale);
    }
    if (rightS - leftS < model.durationS * 0.995) {
      context.globalAlpha = 0.16;
      context.fillStyle = colours.accent;
      context.fillRect(x(leftS), 0, x(rightS - leftS), height);
      context.globalAlpha = 1;
      context.strokeStyle = colours.accent;
      context.lineWidth = scale;
      context.strokeRect(x(leftS) + scale / 2, scale / 2, Math.max(2, x(rightS - leftS)) - scale, height - scale);
    }
    context.fillStyle = colours.head;
    context.fillRect(Math.min(width - 2 * scale, Math.max(0, x(t) - scale)), 0, 2 * scale, height);
    this.element.title = clock(t);
  }
}
