// What people said about events: right, wrong, missed, taught; each can be taken back.
import { get, path, remove } from "../api.js";
import { button, el, fill, say, write } from "../dom.js";
import { empty, heading, shortName } from "../parts.js";
import { link } from "../router.js";
import { counted, day, lasted, moment, ms } from "../times.js";
import { VERDICTS } from "../words.js";

/** @param {HTMLElement} root @param {import("../main.js").Context} context */
export async function correctionsView(root, { house, signal, title }) {
  title("Corrections");
  if (house.about && !house.about.corrections) {
    root.append(heading("Corrections"), empty("This server stores no corrections.", el("p", {}, "Start perceiverd web with --corrections FOLDER, or set it in web.toml.")));
    return;
  }
  const count = el("p", { class: "soft", role: "status" });
  const list = el("ul", { class: "correction-list" });
  const problem = el("div", {});
  root.append(
    heading("Corrections", count, el("a", { class: "button", href: "#/teach" }, "Teach a sound")),
    el("p", { class: "lead" }, "Training learns from these: ", el("code", {}, "perceiverd train fit --corrections FOLDER --out MODEL"), ". It changes nothing until you use the new model."),
    problem,
    list,
  );
  const load = async () => {
    const { corrections } = await get("corrections", {}, signal);
    write(count, corrections.length ? counted(corrections.length, "correction") : "");
    fill(list, corrections.map((/** @type {any} */ each) => entry(each)));
    if (!corrections.length) {
      fill(list, el("li", {}, empty("No corrections yet.", el("p", {}, "Open an event and press Right or Wrong, or mark a missed event on the day."))));
    }
  };
  /** @param {any} each */
  const entry = (each) => {
    const words = VERDICTS[each.verdict] || each.verdict;
    const undo = button("Take back", async () => {
      undo.setAttribute("aria-disabled", "true");
      try {
        await remove(`corrections/${path(each.id)}`);
        const next = item.nextElementSibling || item.previousElementSibling;
        item.remove();
        say(`Taken back: ${each.name}.`);
        const focus = next && next.querySelector("button");
        if (focus instanceof HTMLElement) focus.focus();
        else root.querySelector("h1")?.focus();
        write(count, list.childElementCount ? counted(list.childElementCount, "correction") : "");
        if (!list.childElementCount) await load();
      } catch (error) {
        undo.removeAttribute("aria-disabled");
        fill(problem, el("p", { class: "notice bad", role: "alert" }, error instanceof Error ? error.message : String(error)));
      }
    }, { class: "undo", "aria-label": `Take back: ${each.name}, ${words}` }, "undo");
    const item = el(
      "li",
      { class: "correction" },
      el("span", { class: `verdict ${each.verdict}` }, words),
      el(
        "div",
        { class: "correction-what" },
        el("b", {}, each.name),
        el("span", { class: "soft" }, ` ${shortName(each, house)}, `, el("a", { href: link(["day", day(each.start)], { at: each.start, stream: `${each.machine}/${each.stream}` }) }, moment(each.start)), `, ${lasted((ms(each.end) - ms(each.start)) / 1000)}`),
        el("span", { class: each.sound ? "soft" : "warn-text" }, each.sound ? "with its sound" : `without sound${each.why ? `: ${each.why}` : ""}`),
      ),
      undo,
    );
    return item;
  };
  await load();
}
