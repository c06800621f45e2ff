// What states and reasons of the daemon mean, in sentences for people.
import { lasted, score } from "./times.js";

/**
 * @typedef {object} StateWords
 * @property {"good" | "warn" | "bad" | "off"} tone
 * @property {string} title one or two words
 * @property {string} advice what to do; empty if nothing
 */

/** @type {Record<string, StateWords>} */
const STATES = {
  up: { tone: "good", title: "Listening", advice: "" },
  unknown: { tone: "warn", title: "Waiting", advice: "The daemon has not said yet how this stream is." },
  starting: { tone: "warn", title: "Starting", advice: "It opens its sources. This takes some seconds." },
  stalled: {
    tone: "bad",
    title: "Nothing arrives",
    advice: "Check that the camera or microphone is on and connected. perceiverd tries again by itself.",
  },
  "backing off": {
    tone: "bad",
    title: "Trying again",
    advice: "Its source failed. perceiverd restarts it, with longer and longer pauses. Check the device, its address and its password.",
  },
  ended: { tone: "off", title: "Ended", advice: "Its file or program has ended. Restart the daemon to play it again." },
  disabled: { tone: "off", title: "Disabled", advice: "The configuration disables it." },
};

/** @type {StateWords} */
const STALE = {
  tone: "bad",
  title: "Daemon silent",
  advice: "No message came from its daemon for some time. Check it on that machine: systemctl status perceiverd",
};

/** What the state of a stream means. @param {{state: string, stale?: boolean}} stream @returns {StateWords} */
export function stateWords(stream) {
  if (stream.stale && stream.state !== "ended" && stream.state !== "disabled") return STALE;
  return STATES[stream.state] || { tone: "warn", title: stream.state || "Unknown", advice: "" };
}

/** What a stretch of time was like, for the day. @type {Record<string, string>} */
const SPANS = {
  starting: "starting",
  stalled: "nothing arrived from the source",
  "backing off": "the source failed",
  ended: "the source had ended",
  disabled: "disabled",
  "history off": "the history did not run",
  "daemon silent": "the daemon was silent",
  "daemon restarted": "the daemon was restarted",
  "messages missed": "messages were missed",
  "clock off": "the clock of the machine was wrong",
  "not stored": "events could not be stored",
  "no windows": "nothing was received",
};

/** @param {string} kind */
export function spanWords(kind) {
  return SPANS[kind] || kind;
}

/** Kinds of spans during which events are found and stored; all others are times without listening. */
export const LISTENING = new Set(["up", "clock off", "messages missed", "daemon restarted"]);

/** What the state of a label means in an explanation. @type {Record<string, [string, string]>} */
const CANDIDATES = {
  open: ["good", "event"],
  fading: ["good", "event, fading"],
  holding: ["warn", "almost"],
  subsumed: ["off", "part of another event"],
  "cool-down": ["off", "pause after an event"],
  denied: ["off", "denied"],
  "not allowed": ["off", "not allowed"],
  "below on": ["off", "too low"],
  quiet: ["off", "quiet"],
};

/** Tone and words of a label's state. @param {string} state @returns {[string, string]} */
export function candidateWords(state) {
  return CANDIDATES[state] || ["off", state];
}

/**
 * Why an event began, in sentences.
 * @param {any} event of the API, with details
 */
export function whyBegan(event) {
  const d = event.details;
  if (!d) return "";
  if (d.began === "split" || d.continues) {
    return "It continues an earlier event, which had reached the maximum duration.";
  }
  if (!d.began) return "The message with its beginning was not received, so the reason is not known.";
  const reached = d.begin_score !== null && d.begin_score !== undefined ? ` It was ${score(d.begin_score)} when the event began.` : "";
  return `The smoothed score of ${event.name} reached ${score(d.on)}, the threshold at which an event begins, and stayed there long enough.${reached}`;
}

/** @type {Record<string, (event: any) => string>} */
const ENDS = {
  faded: (event) => `The smoothed score fell below ${score(event.details.off)}, the threshold at which an event ends. It was ${score(event.details.score)} at the end.`,
  subsumed: () => "An event of a more specific label replaced it.",
  "stream lost": () => "The stream was lost: no more media arrived.",
  "stream ended": () => "The stream ended.",
  gap: () => "Nothing was received for too long, or the machine was suspended.",
  "maximum duration": () => "It reached the maximum duration of an event. If the sound went on, the next event continues it.",
  stopped: () => "The daemon was stopped.",
  reload: () => "The configuration was reloaded, and the rules for this label changed.",
};

/** Why an event ended, in sentences. @param {any} event */
export function whyEnded(event) {
  if (event.state === "open") return "It goes on.";
  if (event.state === "end not received") return "The message with its end was not received, so the reason and the exact time are not known.";
  const ended = event.details && event.details.ended;
  return ended ? (ENDS[ended] ? ENDS[ended](event) : `Reason: ${ended}.`) : "";
}

/** Why an event has no picture, clip or sound. @param {any} event */
export function whyNoMedia(event) {
  if (event.withheld === "speech") return "Its sound and pictures are not kept, because speech was likely and keep_speech is off.";
  if (event.withheld === "unjudged") return "Its sound and pictures are not kept: a part of its time has no scores, so nobody knows whether there was speech.";
  if (event.withheld) return `Its sound and pictures are not kept: ${event.withheld}.`;
  return "No sound or picture is stored for this event. To keep them, set [snapshots] in the daemon's configuration, and let this server read that folder.";
}

/** @type {Record<string, string>} */
export const VERDICTS = { right: "right", wrong: "wrong", missed: "missed", example: "taught" };

/** A level in words, for screen readers. @param {number | null | undefined} dbfs */
export function levelWords(dbfs) {
  if (dbfs === null || dbfs === undefined) return "no sound";
  if (dbfs <= -100) return "silence";
  return `${Math.round(dbfs)} dB`;
}

/** The figures of a stream, each with its name and what it means. @param {any} stream @returns {[string, string, string][]} */
export function figures(stream) {
  /** @type {[string, string, string][]} */
  const list = [];
  const ms = (/** @type {number} */ value) => (Math.abs(value) < 1000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(1)} s`);
  if (stream.latency_ms !== null && stream.latency_ms !== undefined) {
    list.push(["Delay", ms(stream.latency_ms), "from the sound to its labels"]);
  }
  if (stream.skew_ms !== null && stream.skew_ms !== undefined) {
    list.push(["Video behind sound", ms(stream.skew_ms), "negative: the video is ahead"]);
  }
  if (stream.dropped) list.push(["Windows dropped", String(stream.dropped), "since the daemon started: the machine was too slow for them"]);
  for (const [what, value] of Object.entries(stream.filled_ms || {})) {
    if (value) list.push([`Filled ${what}`, lasted(Number(value) / 1000), "holes that were filled from the media beside them"]);
  }
  for (const [what, why] of Object.entries(stream.missing || {})) {
    list.push([`No ${what}`, String(why), "this part of the window was missing"]);
  }
  return list;
}
