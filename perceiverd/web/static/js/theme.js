// Light and dark: as the system wishes, or as the button says. The choice is kept in this browser.
import { repaint } from "./colours.js";
import { write } from "./dom.js";

const KEY = "perceiverd.theme";
const CHOICES = ["auto", "light", "dark"];
const NAMES = { auto: "as the system", light: "light", dark: "dark" };

/** @param {HTMLElement} button @param {() => void} changed */
export function startTheme(button, changed) {
  const system = matchMedia("(prefers-color-scheme: dark)");
  let choice = read();
  const apply = () => {
    const dark = choice === "dark" || (choice === "auto" && system.matches);
    document.documentElement.classList.toggle("dark", dark);
    document.documentElement.dataset.theme = choice;
    write(/** @type {Element} */ (button.querySelector(".unseen")), `Colours: ${NAMES[choice]}. Change`);
    /** @type {HTMLElement} */ (button.querySelector(".icon")).className = `icon theme-${choice}`;
    button.title = `Colours: ${NAMES[choice]}`;
    repaint();
    changed();
  };
  button.addEventListener("click", () => {
    choice = /** @type {"auto"} */ (CHOICES[(CHOICES.indexOf(choice) + 1) % CHOICES.length]);
    try {
      localStorage.setItem(KEY, choice);
    } catch {
      // a browser that stores nothing keeps the choice until the page is closed
    }
    apply();
  });
  system.addEventListener("change", apply);
  apply();
}

/** @returns {"auto" | "light" | "dark"} */
function read() {
  try {
    const kept = localStorage.getItem(KEY);
    return kept === "light" || kept === "dark" ? kept : "auto";
  } catch {
    return "auto";
  }
}
