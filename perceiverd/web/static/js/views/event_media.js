// Picture, clip, sound and spectrogram of an event. The spectrogram moves with the player, and seeks.
import { address, path } from "../api.js";
import { button, el, fill } from "../dom.js";
import { lasted } from "../times.js";
import { whyNoMedia } from "../words.js";

const STEP_S = 1;
/** Where the spectrum begins and ends in its picture, beside the scales; sources/snapshots/spectrogram.py draws it. */
const [FROM, TO] = [52 / 800, 792 / 800];

/** @param {any} event */
export function mediaPart(event) {
  const box = el("section", { class: "panel media", "aria-label": "Picture and sound" });
  const where = (/** @type {string} */ kind) => address(`events/${path(event.id)}/media/${kind}`);
  if (!event.picture && !event.clip && !event.sound && !event.spectrogram) {
    box.append(el("p", { class: "no-media" }, whyNoMedia(event)));
    return box;
  }
  const alternative = `Picture of the beginning of ${event.name}`;
  /** @type {HTMLMediaElement | null} */
  let player = null;
  if (event.clip) {
    player = /** @type {HTMLVideoElement} */ (el("video", { controls: true, preload: "metadata", playsinline: true, src: where("clip"), poster: event.picture ? where("picture") : null, "aria-label": `Clip of ${event.name}` }));
  } else if (event.picture) box.append(picture(where("picture"), alternative, "photo"));
  if (!player && event.sound) {
    player = /** @type {HTMLAudioElement} */ (el("audio", { controls: true, preload: "metadata", src: where("sound"), "aria-label": `Sound of ${event.name}` }));
  }
  if (event.clip && player) box.append(player);
  if (event.spectrogram) box.append(spectrogram(where("spectrogram"), player, event));
  if (!event.clip && player) box.append(player);
  if (player) box.append(...extras(player, where(event.clip ? "clip" : "sound"), event));
  return box;
}

/** @param {string} source @param {string} text @param {string} name */
function picture(source, text, name) {
  const image = el("img", { src: source, alt: text, class: name });
  image.addEventListener("error", () => image.replaceWith(el("p", { class: "soft" }, "The picture is gone: the daemon deletes old ones.")));
  return image;
}

/** @param {HTMLMediaElement} player @param {string} source @param {any} event */
function extras(player, source, event) {
  const note = el("p", { class: "soft media-note" });
  player.addEventListener("error", () => {
    fill(note, "This browser cannot play it, or the file is gone: the daemon deletes old ones. ", el("a", { href: source, download: "" }, "Download the file"));
  });
  const slow = button("Half speed", () => {
    const on = player.playbackRate === 1;
    player.playbackRate = on ? 0.5 : 1;
    slow.setAttribute("aria-pressed", String(on));
  }, { "aria-pressed": "false" });
  const download = el("a", { class: "button", href: source, download: `${event.name} ${event.id}` }, "Download");
  return [el("div", { class: "media-tools" }, slow, download), note];
}

/** A spectrogram with the place of the player. @param {string} source @param {HTMLMediaElement | null} player @param {any} event */
function spectrogram(source, player, event) {
  const image = picture(source, `Spectrogram of ${event.name}: time to the right, pitch upwards`, "spectrogram");
  if (!player) return image;
  const head = el("i", { "aria-hidden": "true" });
  const slider = el("div", { class: "scrub", role: "slider", tabindex: "0", "aria-label": "Place in the sound", "aria-valuemin": 0, "aria-valuemax": 0, "aria-valuenow": 0 }, image, head);
  const show = () => {
    const length = Number.isFinite(player.duration) ? player.duration : 0;
    head.style.setProperty("left", `${100 * (FROM + (TO - FROM) * (length ? player.currentTime / length : 0))}%`);
    slider.setAttribute("aria-valuemax", length.toFixed(1));
    slider.setAttribute("aria-valuenow", player.currentTime.toFixed(1));
    slider.setAttribute("aria-valuetext", `${lasted(player.currentTime)} of ${lasted(length)}`);
    if (!player.paused) requestAnimationFrame(show);
  };
  for (const kind of ["loadedmetadata", "play", "pause", "seeked", "timeupdate"]) player.addEventListener(kind, show);
  const seek = (/** @type {number} */ time) => {
    if (Number.isFinite(player.duration)) player.currentTime = Math.min(player.duration, Math.max(0, time));
  };
  const at = (/** @type {PointerEvent} */ pressed) => {
    const box = slider.getBoundingClientRect();
    seek((((pressed.clientX - box.left) / box.width - FROM) / (TO - FROM)) * player.duration);
  };
  slider.addEventListener("pointerdown", (pressed) => {
    slider.setPointerCapture(pressed.pointerId);
    at(pressed);
  });
  slider.addEventListener("pointermove", (pressed) => slider.hasPointerCapture(pressed.pointerId) && at(pressed));
  slider.addEventListener("keydown", (pressed) => {
    /** @type {Record<string, () => void>} */
    const keys = {
      ArrowLeft: () => seek(player.currentTime - STEP_S),
      ArrowRight: () => seek(player.currentTime + STEP_S),
      Home: () => seek(0),
      End: () => seek(player.duration),
      " ": () => void (player.paused ? player.play() : player.pause()),
    };
    if (Object.hasOwn(keys, pressed.key)) {
      pressed.preventDefault();
      keys[pressed.key]();
    }
  });
  return slider;
}
