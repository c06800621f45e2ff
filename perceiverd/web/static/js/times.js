// Times and numbers as people read them: in the time zone of the browser, on a clock of 24 hours.

export const ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
export const DAY_MS = 86_400_000;
export const WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/** @param {Intl.DateTimeFormatOptions} options */
const format = (options) => new Intl.DateTimeFormat("en-GB", { timeZone: ZONE, hourCycle: "h23", ...options });
const CLOCK = format({ hour: "2-digit", minute: "2-digit", second: "2-digit" });
const MINUTE = format({ hour: "2-digit", minute: "2-digit" });
const DATE = format({ weekday: "short", day: "numeric", month: "short", year: "numeric" });
const SHORT_DATE = format({ day: "numeric", month: "short" });
const LONG_DATE = format({ weekday: "long", day: "numeric", month: "long", year: "numeric" });
const ZONE_NAME = format({ timeZoneName: "short" });
const PARTS = format({ year: "numeric", month: "2-digit", day: "2-digit" });

/** Milliseconds since 1970 of a time of the API. @param {string | number | Date} time */
export function ms(time) {
  return time instanceof Date ? time.getTime() : typeof time === "number" ? time : Date.parse(time);
}

/** `19:31:05`. @param {string | number | Date} time */
export const clock = (time) => CLOCK.format(ms(time));
/** `19:31`. @param {string | number | Date} time */
export const minute = (time) => MINUTE.format(ms(time));
/** `Thu, 26 Nov 2026`. @param {string | number | Date} time */
export const date = (time) => DATE.format(ms(time));
/** `Thursday 26 November 2026`. @param {string | number | Date} time */
export const longDate = (time) => LONG_DATE.format(ms(time));

/** `19:31:05` today, `Wed, 25 Nov 2026, 19:31:05` on other days. @param {string | number | Date} time */
export function moment(time) {
  return day(time) === day(Date.now()) ? clock(time) : `${date(time)}, ${clock(time)}`;
}

/** `19:31:05` today, `25 Nov, 19:31` on other days. @param {string | number | Date} time */
export function shortMoment(time) {
  return day(time) === day(Date.now()) ? clock(time) : `${SHORT_DATE.format(ms(time))}, ${minute(time)}`;
}

/** Date and time with the zone: `Thu, 26 Nov 2026, 19:31:05 CET`. @param {string | number | Date} time */
export function full(time) {
  return `${date(time)}, ${clock(time)} ${zoneName(time)}`;
}

/** `CET` or `GMT+5:30`. @param {string | number | Date} [time] */
export function zoneName(time = Date.now()) {
  const part = ZONE_NAME.formatToParts(ms(time)).find((each) => each.type === "timeZoneName");
  return part ? part.value : ZONE;
}

/** The local date as `2026-11-26`. @param {string | number | Date} time */
export function day(time) {
  const parts = Object.fromEntries(PARTS.formatToParts(ms(time)).map((each) => [each.type, each.value]));
  return `${parts.year}-${parts.month}-${parts.day}`;
}

/** The date some days later. @param {string} text `2026-11-26` @param {number} days */
export function dayAfter(text, days) {
  const at = new Date(`${text}T12:00:00Z`);
  at.setUTCDate(at.getUTCDate() + days);
  return at.toISOString().slice(0, 10);
}

/** Whether a text is a date. @param {string} text */
export function isDay(text) {
  return /^\d{4}-\d{2}-\d{2}$/.test(text) && !Number.isNaN(Date.parse(`${text}T12:00:00Z`));
}

/** A duration in words: `4.5 s`, `3 min 5 s`, `2 h 10 min`, `3 days 4 h`. @param {number} seconds */
export function lasted(seconds) {
  if (seconds < 10) return `${Math.max(0, seconds).toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return two(Math.floor(whole / 60), "min", whole % 60, "s");
  const minutes = Math.round(whole / 60);
  if (minutes < 1440) return two(Math.floor(minutes / 60), "h", minutes % 60, "min");
  const hours = Math.round(minutes / 60);
  return two(Math.floor(hours / 24), hours < 48 ? "day" : "days", hours % 24, "h");
}

/** @param {number} large @param {string} unit @param {number} small @param {string} part */
function two(large, unit, small, part) {
  return small ? `${large} ${unit} ${small} ${part}` : `${large} ${unit}`;
}

/** How long ago: `just now`, `3 min ago`. @param {string | number | Date} time */
export function ago(time) {
  const seconds = (Date.now() - ms(time)) / 1000;
  if (seconds < 5) return "just now";
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ago`;
  const days = Math.floor(seconds / 86_400);
  return `${days} day${days === 1 ? "" : "s"} ago`;
}

/** `1 event`, `12,345 events`. @param {number} count @param {string} noun */
export function counted(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

/** A score with two digits. @param {number} value */
export function score(value) {
  return value.toFixed(2);
}

/** The value of `<input type="datetime-local" step="1">` for a time, in the local zone. @param {number} time */
export function inputTime(time) {
  return `${day(time)}T${clock(time)}`;
}

/** Milliseconds since 1970 of such a value; NaN if it is none. @param {string} text */
export function fromInput(text) {
  return text ? new Date(text).getTime() : NaN;
}
