// The form to sign in.
import { ApiError, post } from "../api.js";
import { el, fill } from "../dom.js";
import { field, heading, notice } from "../parts.js";

/** @param {HTMLElement} root @param {import("../main.js").Context} context */
export function signInView(root, { title, restart }) {
  title("Sign in");
  const password = /** @type {HTMLInputElement} */ (el("input", { type: "password", autocomplete: "current-password", required: true, maxlength: 1000 }));
  const user = el("input", { type: "text", autocomplete: "username", value: "perceiverd", hidden: true, "aria-hidden": "true", tabindex: "-1" });
  const problem = el("div", {});
  const send = el("button", { type: "submit", class: "main" }, "Sign in");
  const form = el("form", { class: "panel sign-in-form" }, heading("Sign in"), user, field("Password", password), send, problem);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (send.hasAttribute("aria-disabled")) return;
    send.setAttribute("aria-disabled", "true");
    fill(problem);
    try {
      await post("session", { password: password.value });
      password.value = "";
      await restart();
    } catch (error) {
      const text = error instanceof ApiError ? error.message : "Signing in failed.";
      fill(problem, notice(text, "bad"));
      password.select();
      password.focus();
    }
    send.removeAttribute("aria-disabled");
  });
  root.append(form);
  password.focus();
}
