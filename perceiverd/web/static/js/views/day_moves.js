// Moving in the day: wheel, drag, pinch and keys change the stretch of time that is shown, or select one.
const LEAST_MS = 10_000;
const CLICK_PX = 4;
const KEY_STEP = 0.2;
const ZOOM = 1.6;

/**
 * @typedef {object} Moves
 * @property {() => void} changed the stretch or the selection has changed: draw
 * @property {(event: number) => void} open an event was chosen
 * @property {(event: number) => void} mark an event was reached by keys
 * @property {() => void} selected a stretch was selected with the mouse
 * @property {(x: number, y: number) => void} hover
 */

/** Show another stretch, kept within the day. @param {import("./day_canvas.js").DayCanvas} view @param {number} from @param {number} to */
export function showStretch(view, from, to) {
  const { startMs, endMs } = view.model;
  const length = Math.min(endMs - startMs, Math.max(LEAST_MS, to - from));
  const begin = Math.min(endMs - length, Math.max(startMs, from));
  [view.from, view.to] = [begin, begin + length];
}

/** Zoom around a time. @param {import("./day_canvas.js").DayCanvas} view @param {number} factor above 1 shows less @param {number} [around] */
export function zoom(view, factor, around = (view.from + view.to) / 2) {
  const length = Math.max(LEAST_MS, (view.to - view.from) / factor);
  const part = (around - view.from) / (view.to - view.from);
  showStretch(view, around - part * length, around + (1 - part) * length);
}

/** @param {HTMLElement} box what has the focus @param {() => import("./day_canvas.js").DayCanvas} now @param {Moves} moves */
export function startMoves(box, now, moves) {
  /** @type {Map<number, {x: number, y: number}>} */
  const fingers = new Map();
  /** @type {{x: number, y: number, from: number, to: number, moved: boolean, mouse: boolean} | null} */
  let drag = null;
  const at = (/** @type {PointerEvent | WheelEvent | MouseEvent} */ event) => {
    const place = now().canvas.getBoundingClientRect();
    return { x: event.clientX - place.left, y: event.clientY - place.top };
  };
  box.addEventListener("wheel", (event) => {
    const view = now();
    if (event.ctrlKey || event.metaKey) zoom(view, Math.exp(-event.deltaY / 300), view.time(at(event).x));
    else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      const shift = ((event.deltaX || event.deltaY) / view.width) * (view.to - view.from);
      showStretch(view, view.from + shift, view.to + shift);
    } else return; // the page scrolls
    event.preventDefault();
    moves.changed();
  }, { passive: false });
  box.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || event.target !== now().canvas) return;
    const point = at(event);
    fingers.set(event.pointerId, point);
    const view = now();
    drag = { ...point, from: view.from, to: view.to, moved: false, mouse: event.pointerType === "mouse" };
    view.canvas.setPointerCapture(event.pointerId);
  });
  box.addEventListener("pointermove", (event) => {
    const view = now();
    const point = at(event);
    if (!drag || !fingers.has(event.pointerId)) return moves.hover(point.x, point.y);
    const before = fingers.get(event.pointerId);
    if (fingers.size === 2 && before) pinch(view, fingers, event.pointerId, point);
    else if (drag.moved || Math.abs(point.x - drag.x) > CLICK_PX) {
      drag.moved = true;
      if (drag.mouse) view.selected = { from: view.time(drag.x), to: view.time(point.x), row: view.rowAt(drag.y) };
      else {
        const shift = ((drag.x - point.x) / view.width) * (drag.to - drag.from);
        showStretch(view, drag.from + shift, drag.to + shift);
      }
    }
    fingers.set(event.pointerId, point);
    moves.changed();
  });
  const leave = (/** @type {PointerEvent} */ event) => {
    const view = now();
    if (!fingers.delete(event.pointerId) || !drag) return;
    if (drag.moved && drag.mouse && event.type === "pointerup") moves.selected();
    else if (!drag.moved && event.type === "pointerup") {
      const found = view.eventAt(drag.x, drag.y);
      view.selected = null;
      if (found >= 0) moves.open(found);
      else moves.changed();
    }
    if (!fingers.size) drag = null;
  };
  box.addEventListener("pointerup", leave);
  box.addEventListener("pointercancel", leave);
  box.addEventListener("keydown", (event) => event.target === box && !event.altKey && !event.ctrlKey && !event.metaKey && key(event, now(), moves));
}

/** @param {import("./day_canvas.js").DayCanvas} view @param {Map<number, {x: number, y: number}>} fingers @param {number} which @param {{x: number}} point */
function pinch(view, fingers, which, point) {
  const other = [...fingers].find(([id]) => id !== which)?.[1];
  const before = fingers.get(which);
  if (!other || !before) return;
  const wide = Math.max(20, Math.abs(before.x - other.x));
  zoom(view, Math.max(20, Math.abs(point.x - other.x)) / wide, view.time((point.x + other.x) / 2));
}

/** @param {KeyboardEvent} event @param {import("./day_canvas.js").DayCanvas} view @param {Moves} moves */
function key(event, view, moves) {
  const length = view.to - view.from;
  const pan = (/** @type {number} */ part) => showStretch(view, view.from + part * length, view.to + part * length);
  /** @type {Record<string, () => void>} */
  const keys = {
    "+": () => zoom(view, ZOOM, centre(view)),
    "=": () => zoom(view, ZOOM, centre(view)),
    "-": () => zoom(view, 1 / ZOOM, centre(view)),
    0: () => showStretch(view, view.model.startMs, view.model.endMs),
    Home: () => step(view, 1, moves, true),
    End: () => step(view, -1, moves, true),
    ArrowRight: () => (event.shiftKey ? pan(KEY_STEP) : step(view, 1, moves)),
    ArrowLeft: () => (event.shiftKey ? pan(-KEY_STEP) : step(view, -1, moves)),
    Enter: () => view.marked >= 0 && moves.open(view.marked),
    Escape: () => (view.selected = null),
  };
  if (!Object.hasOwn(keys, event.key)) return;
  event.preventDefault();
  keys[event.key]();
  moves.changed();
}

/** The marked event if it is visible, otherwise the middle. @param {import("./day_canvas.js").DayCanvas} view */
function centre(view) {
  const at = view.marked >= 0 ? view.model.line.start_ms[view.marked] : NaN;
  return at >= view.from && at <= view.to ? at : (view.from + view.to) / 2;
}

/** Go to the next event of all rows, by start. @param {import("./day_canvas.js").DayCanvas} view @param {1 | -1} way @param {Moves} moves @param {boolean} [fromEdge] */
function step(view, way, moves, fromEdge = false) {
  const shown = view.rows.flatMap((row) => row.events).sort((a, b) => a - b); // their order is that of the starts
  if (!shown.length) return;
  const at = shown.indexOf(view.marked);
  let next = way > 0 ? 0 : shown.length - 1;
  if (!fromEdge && at >= 0) next = Math.min(shown.length - 1, Math.max(0, at + way));
  else if (!fromEdge) {
    const found = shown.findIndex((event) => view.model.line.start_ms[event] >= view.from);
    next = found < 0 ? shown.length - 1 : found;
  }
  view.marked = shown[next];
  const start = view.model.line.start_ms[view.marked];
  const length = view.to - view.from;
  if (start < view.from || start > view.to) showStretch(view, start - length / 2, start + length / 2);
  moves.mark(view.marked);
}
