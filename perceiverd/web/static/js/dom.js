// Makes elements. Data becomes text nodes only: no text from outside is ever read as HTML.

/**
 * @typedef {Node | string | number | null | undefined | false | any[]} Child
 * A node, text, nothing, or a list of them.
 */

/**
 * An element with attributes and children.
 * An attribute that begins with `on` is a listener, `style` an object of CSS properties, `data` an object of data
 * attributes; `true` sets an empty attribute; `false`, null and undefined set none.
 * @param {string} name
 * @param {Record<string, any>} [attributes]
 * @param {...Child} children
 * @returns {HTMLElement}
 */
export function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) set(element, key, value);
  append(element, children);
  return element;
}

/**
 * An SVG element; see `el`.
 * @param {string} name
 * @param {Record<string, any>} [attributes]
 * @param {...Child} children
 * @returns {SVGElement}
 */
export function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) set(element, key, value);
  append(element, children);
  return element;
}

/** @param {HTMLElement | SVGElement} element @param {string} key @param {any} value */
function set(element, key, value) {
  if (value === false || value === null || value === undefined) return;
  if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
  else if (key === "style") for (const [name, text] of Object.entries(value)) element.style.setProperty(name, String(text));
  else if (key === "data") for (const [name, text] of Object.entries(value)) element.dataset[name] = String(text);
  else element.setAttribute(key, value === true ? "" : String(value));
}

/** @param {Element} element @param {Child[]} children */
function append(element, children) {
  for (const child of children) {
    if (Array.isArray(child)) append(element, child);
    else if (child !== null && child !== undefined && child !== false) element.append(child instanceof Node ? child : String(child));
  }
}

/** Replace what an element contains. @param {Element} element @param {...Child} children */
export function fill(element, ...children) {
  element.replaceChildren();
  append(element, children);
}

/** As `fill`; a link or button that has the focus keeps it. @param {Element} element @param {...Child} children */
export function refill(element, ...children) {
  const focused = document.activeElement;
  const key = focused && element.contains(focused) ? keyOf(focused) : "";
  fill(element, ...children);
  if (!key) return;
  for (const each of element.querySelectorAll("a, button")) {
    if (keyOf(each) === key && each instanceof HTMLElement) return each.focus({ preventScroll: true });
  }
}

/** @param {Element} element */
function keyOf(element) {
  const name = element instanceof HTMLElement ? element.dataset.name : "";
  return element.getAttribute("href") || name || element.textContent || "";
}

/** Change a text only if it differs, so that screen readers and layout are not disturbed. @param {Element} element @param {string} text */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** An icon of the style sheet, which says nothing to screen readers. @param {string} name */
export function icon(name) {
  return el("span", { class: `icon ${name}`, "aria-hidden": "true" });
}

/** A button with an icon and its words. @param {string} text @param {() => void} onclick @param {Record<string, any>} [attributes] @param {string} [picture] */
export function button(text, onclick, attributes = {}, picture = "") {
  return el("button", { type: "button", onclick, ...attributes }, picture && icon(picture), el("span", {}, text));
}

/** Words for screen readers only. @param {string} text */
export function unseen(text) {
  return el("span", { class: "unseen" }, text);
}

/** Let screen readers say a sentence. @param {string} text */
export function say(text) {
  const spoken = document.getElementById("spoken");
  if (spoken) spoken.textContent = text;
}
