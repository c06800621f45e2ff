// Colours of canvases and charts, for the light and the dark theme.

const HEAT = {
  light: ["#f1f3f8", "#c7d2fe", "#818cf8", "#4f46e5", "#312e81", "#1e1b4b"],
  dark: ["#1f2630", "#2e2c6e", "#4338ca", "#6366f1", "#8f97f9", "#c7d2fe"],
};
// Twelve hues that stay apart for people who see few colours, each at least 3:1 on its ground.
const LABELS = {
  light: ["#4f46e5", "#c2410c", "#0f766e", "#be185d", "#a16207", "#0369a1", "#7e22ce", "#4d7c0f", "#b91c1c", "#0e7490", "#86198f", "#57534e"],
  dark: ["#a5b4fc", "#fb923c", "#2dd4bf", "#f9a8d4", "#facc15", "#38bdf8", "#d8b4fe", "#a3e635", "#fca5a5", "#67e8f9", "#f0abfc", "#d6d3d1"],
};
const OTHER = { light: "#64748b", dark: "#94a3b8" };
export const COLOURED = LABELS.light.length;

/**
 * @typedef {object} Palette
 * @property {string[]} heat 256 colours for scores from 0 to 1
 * @property {string[]} labels
 * @property {string} other
 * @property {Record<string, string>} named the style sheet's colours
 * @property {(context: CanvasRenderingContext2D, scale: number) => CanvasPattern | string} hatch times without listening
 */

/** @type {Palette | null} */
let made = null;

/** The colours of the current theme. @returns {Palette} */
export function palette() {
  if (made) return made;
  const theme = document.documentElement.classList.contains("dark") ? "dark" : "light";
  const style = getComputedStyle(document.documentElement);
  /** @type {Record<string, string>} */
  const named = {};
  for (const name of ["ground", "paper", "ink", "soft", "rule", "accent", "event", "nothing", "hatch"]) {
    named[name] = style.getPropertyValue(`--${name}`).trim();
  }
  /** @type {Map<number, CanvasPattern>} */
  const patterns = new Map();
  made = {
    heat: ramp(HEAT[theme]),
    labels: LABELS[theme],
    other: OTHER[theme],
    named,
    hatch: (context, scale) => {
      if (!patterns.has(scale)) {
        const pattern = hatching(context, scale, named);
        if (pattern) patterns.set(scale, pattern);
      }
      return patterns.get(scale) || named.nothing;
    },
  };
  return made;
}

/** Forget the colours: the theme has changed. */
export function repaint() {
  made = null;
}

/** @param {CanvasRenderingContext2D} context @param {number} scale @param {Record<string, string>} named */
function hatching(context, scale, named) {
  const size = Math.round(7 * scale);
  const tile = document.createElement("canvas");
  [tile.width, tile.height] = [size, size];
  const pen = /** @type {CanvasRenderingContext2D} */ (tile.getContext("2d"));
  pen.fillStyle = named.nothing;
  pen.fillRect(0, 0, size, size);
  pen.strokeStyle = named.hatch;
  pen.lineWidth = 1.2 * scale;
  pen.beginPath();
  for (const shift of [-size, 0, size]) {
    pen.moveTo(shift - 1, size + 1);
    pen.lineTo(shift + size + 1, -1);
  }
  pen.stroke();
  return context.createPattern(tile, "repeat");
}

/** 256 colours between evenly spaced stops. @param {string[]} stops */
function ramp(stops) {
  const points = stops.map((colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16)));
  return Array.from({ length: 256 }, (_, i) => {
    const at = (i / 255) * (points.length - 1);
    const left = Math.min(points.length - 2, Math.floor(at));
    const mixed = [0, 1, 2].map((c) => Math.round(points[left][c] + (points[left + 1][c] - points[left][c]) * (at - left)));
    return `rgb(${mixed.join(",")})`;
  });
}
