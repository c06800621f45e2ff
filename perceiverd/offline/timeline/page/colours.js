// Colours of the canvases. The theme's other colours are in the style sheet.

const HEAT = {
  light: ["#f1f3f8", "#c7d2fe", "#818cf8", "#4f46e5", "#312e81", "#1e1b4b"],
  dark: ["#1b2029", "#312e81", "#4f46e5", "#818cf8", "#c7d2fe", "#ffffff"],
};
const SOUND = {
  light: ["#ffffff", "#e3e9f1", "#a9bdd3", "#5f86a8", "#2c4a63", "#101d2b"],
  dark: ["#0f1319", "#172434", "#22506b", "#3b93a5", "#a4d9cf", "#fdfbe8"],
};

/** 256 colours between evenly spaced stops, each as the 32-bit number that ImageData takes. */
function ramp(stops, ground, share) {
  const points = stops.map(channels);
  const under = channels(ground);
  const colours = new Uint32Array(256);
  for (let i = 0; i < 256; i++) {
    const at = (i / 255) * (points.length - 1);
    const left = Math.min(points.length - 2, Math.floor(at));
    const mixed = [0, 1, 2].map((c) => {
      const full = points[left][c] + (points[left + 1][c] - points[left][c]) * (at - left);
      return Math.round(under[c] + (full - under[c]) * share);
    });
    colours[i] = packed(mixed);
  }
  return colours;
}

function channels(colour) {
  return [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
}

function packed([red, green, blue]) {
  return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0; // every browser of today is little-endian
}

/** The colours of `light` or `dark`; those of the style sheet are read from it. */
export function palette(theme) {
  const style = getComputedStyle(document.documentElement);
  const named = (name) => style.getPropertyValue(`--${name}`).trim();
  const paper = named("paper");
  return {
    heat: ramp(HEAT[theme], paper, 1),
    faint: ramp(HEAT[theme], paper, 0.3),
    sound: ramp(SOUND[theme], paper, 1),
    nothing: packed(channels(named("nothing"))),
    paper,
    paperPixel: packed(channels(paper)),
    ground: named("ground"),
    ink: named("ink"),
    soft: named("soft"),
    rule: named("rule"),
    event: named("event"),
    head: named("head"),
    accent: named("accent"),
    wave: theme === "dark" ? "#5b6b80" : "#aeb9c9",
  };
}
