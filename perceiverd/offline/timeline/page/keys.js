// Keys for everything. They can be switched off, because people who speak to their computer press them by accident.

/** Keys, their meaning, and the name of what they do. */
const KEYS = [
  [["Space", "K"], "play or pause", "toggle"],
  [["←", "→"], "1 second back, forward; with Shift 10", null],
  [["J", "L"], "10 seconds back, forward", null],
  [["P", "N"], "previous, next event of those in the table", null],
  [["Home", "End"], "to the start, to the end", null],
  [["+", "−", "0"], "zoom in, zoom out, fit", null],
  [["/"], "find a label", null],
  [["F"], "follow the playhead", null],
  [["T"], "dark or light", null],
  [["Esc"], "empty the search", null],
  [["?"], "this list", null],
];

/** Listen for keys and fill the list of them. `actions` has what they do. */
export function listenForKeys(actions) {
  const help = document.getElementById("help");
  const on = document.getElementById("keys-on");
  document.getElementById("help-open").addEventListener("click", () => help.showModal());
  document.getElementById("keys").append(
    ...KEYS.flatMap(([keys, meaning]) => {
      const [term, text] = [document.createElement("dt"), document.createElement("dd")];
      for (const key of keys) {
        const made = document.createElement("kbd");
        made.textContent = key;
        term.append(made, " ");
      }
      text.textContent = meaning;
      return [term, text];
    }),
  );
  const single = {
    " ": actions.toggle,
    k: actions.toggle,
    j: () => actions.move(-10),
    l: () => actions.move(10),
    n: () => actions.step(1),
    p: () => actions.step(-1),
    "+": actions.zoomIn,
    "=": actions.zoomIn,
    "-": actions.zoomOut,
    0: actions.fit,
    "/": actions.search,
    f: actions.follow,
    t: actions.theme,
    "?": () => help.showModal(),
  };
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || help.open) return;
    const target = event.target;
    if (event.key === "Escape" && (target.id === "search" || !takesKeys(target))) {
      actions.clear();
      target.blur();
      return;
    }
    if (takesKeys(target)) return;
    const steer = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    let act = null;
    if (steer) act = () => actions.move(steer * (event.shiftKey ? 10 : 1));
    else if (event.key === "Home") act = actions.home;
    else if (event.key === "End") act = actions.end;
    else if (on.checked && !(event.key === " " && isPressed(target))) act = single[event.key.toLowerCase()];
    if (act) {
      event.preventDefault();
      act();
    }
  });
}

/** Whether the element needs letters and arrows for itself. */
function takesKeys(element) {
  return element.matches("input:not([type=checkbox]), select, textarea, video, audio, dialog[open] *");
}

/** Whether a space presses the element. */
function isPressed(element) {
  return element.matches("button, a, summary, input");
}
