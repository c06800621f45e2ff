// The part of the address after `#`: `#t=83.2&label=Dog` names a moment and a label. `up=2` says that the index of the
// folder, which led here, is two folders up.

const MOST_UP = 64;

/** The moment in seconds, the label's name, and how far up the index is; null for what the address does not name. */
export function parseLink(hash) {
  const words = new URLSearchParams(hash.replace(/^#/, ""));
  const t = words.get("t");
  const seconds = t === null || t.trim() === "" ? NaN : Number(t);
  const up = /^\d{1,2}$/.test(words.get("up") ?? "") ? Math.min(MOST_UP, Number(words.get("up"))) : null;
  return { t: Number.isFinite(seconds) && seconds >= 0 ? seconds : null, label: words.get("label") || null, up };
}

/** The address of a moment, of a label, or of both. */
export function linkTo(t, label, up = null) {
  const words = new URLSearchParams();
  if (t !== null) words.set("t", String(Math.round(t * 100) / 100));
  if (label) words.set("label", label);
  if (up !== null) words.set("up", String(up));
  return `#${words}`;
}
