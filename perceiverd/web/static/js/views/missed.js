// The dialog that marks an event that was missed: a stretch of time, a stream and a label.
import { post } from "../api.js";
import { button, el, fill, say } from "../dom.js";
import { dialog, field, labelField, notice, streamField } from "../parts.js";
import { fromInput, inputTime, lasted, zoneName } from "../times.js";

/**
 * @param {import("../house.js").House} house @param {AbortSignal} signal
 * @param {{from: number, to: number, stream: string, label: string}} proposed
 */
export function askForMissed(house, signal, proposed) {
  const stream = streamField("Stream", house, proposed.stream || [...house.streams.keys()][0] || "");
  const label = labelField("What it was", proposed.label, signal);
  label.input.required = true;
  const time = (/** @type {number} */ at) => /** @type {HTMLInputElement} */ (el("input", { type: "datetime-local", step: 1, required: true, value: inputTime(at) }));
  const from = time(proposed.from);
  const to = time(proposed.to);
  const result = el("div", {});
  const send = el("button", { type: "submit", class: "main" }, "Store");
  const form = el(
    "form",
    { class: "stack" },
    stream.field,
    label.field,
    el("div", { class: "pair" }, field(`From (${zoneName(proposed.from)})`, from), field("To", to)),
    result,
    el("div", { class: "actions" }, send, button("Cancel", () => box.close())),
  );
  const box = dialog("Mark a missed event", form);
  signal.addEventListener("abort", () => box.close());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const [start, end] = [fromInput(from.value), fromInput(to.value)];
    const [machine, ...rest] = stream.select.value.split("/");
    if (!(end > start)) return fill(result, notice("The end must be after the beginning.", "bad"));
    send.setAttribute("aria-disabled", "true");
    try {
      const body = { machine, stream: rest.join("/"), label: label.mid(), start: new Date(start).toISOString(), end: new Date(end).toISOString(), verdict: "missed" };
      const answer = await post("corrections", body);
      const text = answer.sound ? `Stored ${lasted((end - start) / 1000)} with its sound.` : `Stored without sound${answer.why ? `: ${answer.why}` : ""}.`;
      fill(form, notice(text, "good"), el("p", {}, el("a", { href: "#/corrections" }, "All corrections")), el("div", { class: "actions" }, button("Close", () => box.close(), { class: "main" })));
      form.querySelector("button")?.focus();
      say(text);
    } catch (error) {
      send.removeAttribute("aria-disabled");
      fill(result, notice(error instanceof Error ? error.message : String(error), "bad"));
    }
  });
}
