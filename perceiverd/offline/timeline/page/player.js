// The element that plays the file, if the browser can; without it the playhead moves all the same.
import { bytesOf, takeBlock } from "./bytes.js";

const NO_MEDIA = "The file came through a pipe or from a URL, so this page cannot play it.";

/** Make the player for the file's media. Returns an object with `seek`, `toggle` and `element` (or null). */
export function makePlayer(model, state, notice) {
  const about = model.summary.media;
  const silent = { element: null, seek: (t) => state.set({ t }), toggle: () => {} };
  const say = (text) => {
    notice.textContent = text;
    notice.hidden = false;
  };
  if (about.kind !== "video") document.getElementById("stage").classList.add("flat");
  if (!about.kind || !(about.href || about.type)) {
    say(NO_MEDIA);
    return silent;
  }
  const element = document.createElement(about.kind);
  element.controls = true;
  element.preload = "metadata";
  element.playsInline = true;
  element.setAttribute("aria-label", model.summary.file);
  const embedded = takeBlock("media");
  element.src = embedded ? URL.createObjectURL(new Blob([bytesOf(embedded)], { type: about.type })) : about.href;
  addCaptions(element, model);
  let works = true;
  let wanted = null;
  element.addEventListener("error", () => {
    works = false;
    say(`The browser cannot play ${model.summary.file}: it was moved, or its format is unknown here. The timeline works without it.`);
  });
  const follow = () => {
    if (works && wanted === null) state.set({ t: element.currentTime });
  };
  const frame = () => {
    follow();
    if (!element.paused) requestAnimationFrame(frame);
  };
  element.addEventListener("play", () => {
    state.set({ playing: true });
    requestAnimationFrame(frame);
  });
  for (const name of ["pause", "ended"]) element.addEventListener(name, () => state.set({ playing: false }));
  element.addEventListener("timeupdate", follow);
  element.addEventListener("seeked", () => {
    wanted = null;
    follow();
  });
  element.addEventListener("loadedmetadata", () => {
    if (wanted !== null) element.currentTime = wanted;
  });
  document.getElementById("player").append(element);
  return {
    element,
    seek(t) {
      state.set({ t });
      if (!works) return;
      wanted = t;
      if (element.readyState >= 1) element.currentTime = t;
    },
    toggle() {
      if (!works) return;
      if (element.paused) element.play().catch(() => {});
      else element.pause();
    },
  };
}

/** The events as captions, which the player's own menu switches on. */
function addCaptions(element, model) {
  if (element.tagName !== "VIDEO" || !model.events.length) return;
  const track = element.addTextTrack("captions", "Labels", "en");
  track.mode = "hidden";
  for (const event of model.events) track.addCue(new VTTCue(event.start, event.end, event.label.name));
}
