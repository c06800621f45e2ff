// Times and numbers as people read them.

/** Seconds as `3:07.5` or `1:03:07.5`. With `digits` 0 it has no fraction. */
export function clock(seconds, digits = 1) {
  const unit = 10 ** digits;
  const units = Math.max(0, Math.round(seconds * unit));
  const whole = Math.floor(units / unit);
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor(whole / 60) % 60;
  const rest = String(whole % 60).padStart(2, "0") + (digits ? "." + String(units % unit).padStart(digits, "0") : "");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

/** Seconds in words, for screen readers. */
export function spoken(seconds) {
  const hours = Math.floor(seconds / 3600);
  const minutes = Math.floor(seconds / 60) % 60;
  const rest = (Math.floor(seconds * 10) % 600) / 10;
  const parts = [[hours, "hour"], [minutes, "minute"]].filter(([count]) => count);
  return [...parts, [rest, "second"]].map(([count, unit]) => `${count} ${unit}${count === 1 ? "" : "s"}`).join(" ");
}

/** A number and its noun: `1 event`, `12,345 events`. */
export function counted(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

/** Text without case and accents, for search. */
export function folded(text) {
  return text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
}
