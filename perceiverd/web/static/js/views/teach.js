// Teach a sound: hold the button while it sounds, five times.
import { post } from "../api.js";
import { el, fill, say, write } from "../dom.js";
import { empty, field, heading, labelField, notice, streamField } from "../parts.js";
import { Level } from "./level.js";

const WANTED = 5;
const SHORTEST_MS = 300; // a press that is shorter was a mistake
const LONGEST_MS = 60_000;

/** @param {HTMLElement} root @param {import("../main.js").Context} context */
export function teachView(root, { house, signal, query, title }) {
  title("Teach a sound");
  if (house.about && !house.about.corrections) {
    root.append(heading("Teach a sound"), empty("This server stores no corrections.", el("p", {}, "Start perceiverd web with --corrections FOLDER, or set it in web.toml.")));
    return;
  }
  const stream = streamField("Stream that hears it", house, query.get("stream") || [...house.streams.keys()][0] || "");
  const label = labelField("Name of the sound", query.get("label") || "", signal, "One of AudioSet's labels, or a name of your own, such as Door bell at home.");
  const level = new Level();
  const status = el("p", { class: "teach-status", role: "status" }, `Hold the button while it sounds. ${WANTED} times are enough to begin with.`);
  const dots = el("ol", { class: "dots", "aria-label": "Examples" });
  const hold = el("button", { type: "button", class: "hold" }, el("span", {}, "Hold while it sounds"));
  const latched = /** @type {HTMLInputElement} */ (el("input", { type: "checkbox" }));
  const problems = el("div", {});
  root.append(
    heading("Teach a sound", el("a", { class: "back", href: "#/corrections" }, "Corrections")),
    el("div", { class: "panel teaching" }, el("div", { class: "controls" }, stream.field, label.field), el("div", { class: "teach-level" }, level.element), hold, dots, status, latchField(latched), problems),
    el("p", { class: "lead" }, "Then train, and compare before you use the result: ", el("code", {}, "perceiverd train fit --corrections FOLDER --out MODEL"), "."),
  );
  /** @type {("kept" | "mute")[]} */
  const examples = [];
  let startedAt = 0;
  let timer = 0;
  let byHand = false;
  const showDots = () => fill(dots, Array.from({ length: Math.max(WANTED, examples.length) }, (_, i) => el("li", { class: examples[i] || "" }, el("span", { class: "unseen" }, examples[i] ? `Example ${i + 1}: stored` : `Example ${i + 1}: not yet`))));
  const begin = () => {
    if (startedAt) return;
    if (!label.input.value.trim() || !stream.select.value) {
      fill(problems, notice("First name the sound and choose its stream.", "bad"));
      (label.input.value.trim() ? stream.select : label.input).focus();
      return;
    }
    fill(problems);
    startedAt = Date.now();
    hold.classList.add("held");
    hold.setAttribute("aria-pressed", "true");
    write(status, latched.checked ? "Listening. Press again when it is over." : "Listening. Let go when it is over.");
    timer = setTimeout(end, LONGEST_MS);
  };
  const stop = () => {
    clearTimeout(timer);
    startedAt = 0;
    hold.classList.remove("held");
    hold.setAttribute("aria-pressed", "false");
  };
  const end = async () => {
    if (!startedAt) return;
    const [from, to] = [startedAt, Date.now()];
    stop();
    if (to - from < SHORTEST_MS) {
      write(status, "That was too short. Hold the button as long as it sounds.");
      return;
    }
    const chosen = house.streams.get(stream.select.value);
    if (!chosen) return;
    const body = { machine: chosen.machine, stream: chosen.stream, label: label.mid(), start: new Date(from).toISOString(), end: new Date(to).toISOString(), verdict: "example" };
    try {
      const answer = await post("corrections", body);
      examples.push(answer.sound || /minutes/.test(answer.why || "") ? "kept" : "mute");
      const seconds = ((to - from) / 1000).toFixed(1);
      const left = WANTED - examples.length;
      write(status, left > 0 ? `Stored ${seconds} s. ${left} more.` : `Stored ${seconds} s. That is enough; more make it better.`);
      fill(problems, !answer.sound && answer.why ? notice(answer.why) : null);
    } catch (error) {
      write(status, "It was not stored.");
      fill(problems, notice(error instanceof Error ? error.message : String(error), "bad"));
    }
    showDots();
  };
  hold.addEventListener("pointerdown", (event) => {
    byHand = true;
    if (event.button !== 0) return;
    if (latched.checked) return void (startedAt ? end() : begin());
    hold.setPointerCapture(event.pointerId);
    begin();
  });
  for (const kind of ["pointerup", "pointercancel"]) hold.addEventListener(kind, () => latched.checked || end());
  hold.addEventListener("contextmenu", (event) => event.preventDefault());
  hold.addEventListener("keydown", (event) => {
    if (event.key !== " " && event.key !== "Enter") return;
    event.preventDefault();
    byHand = true;
    if (event.repeat) return;
    if (latched.checked && startedAt) end();
    else begin();
  });
  hold.addEventListener("keyup", (event) => {
    if ((event.key === " " || event.key === "Enter") && !latched.checked) end();
  });
  hold.addEventListener("click", () => {
    // A click without a pointer or a key comes from assistive technology, which cannot hold.
    if (!byHand) {
      latched.checked = true;
      if (startedAt) end();
      else begin();
    }
    byHand = false;
  });
  hold.addEventListener("blur", () => startedAt && !latched.checked && end());
  signal.addEventListener("abort", stop);
  stream.select.addEventListener("change", () => say(`Stream ${stream.select.value}`));
  house.on("membership", stream.fillIn, signal);
  house.on("streams", () => level.update(house.streams.get(stream.select.value)?.level_dbfs), signal);
  showDots();
}

/** @param {HTMLInputElement} box */
function latchField(box) {
  const wrapped = field("Press once to begin and once to end, instead of holding", box);
  wrapped.classList.add("check");
  return wrapped;
}
