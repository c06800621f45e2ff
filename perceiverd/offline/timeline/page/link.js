// The part of the address after `#`: `#t=83.2&label=Dog` names a moment and a label.

/** The moment in seconds and the label's name of an address; null for what it does not name. */
export function parseLink(hash) {
  const words = new URLSearchParams(hash.replace(/^#/, ""));
  const t = words.get("t");
  const seconds = t === null || t.trim() === "" ? NaN : Number(t);
  return { t: Number.isFinite(seconds) && seconds >= 0 ? seconds : null, label: words.get("label") || null };
}

/** The address of a moment, of a label, or of both. */
export function linkTo(t, label) {
  const words = new URLSearchParams();
  if (t !== null) words.set("t", String(Math.round(t * 100) / 100));
  if (label) words.set("label", label);
  return `#${words}`;
}
