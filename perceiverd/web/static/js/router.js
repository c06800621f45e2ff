// Views are named in the fragment: `#/search?label=Dog`. Parts of a path and values are percent-encoded.

/**
 * @typedef {object} Route
 * @property {string} view
 * @property {string[]} parts what follows the view
 * @property {URLSearchParams} query
 */

/** Read a fragment; a damaged one is the overview. @param {string} fragment @returns {Route} */
export function parse(fragment) {
  const [where, query = ""] = fragment.replace(/^#\/?/, "").split("?", 2);
  try {
    const [view, ...parts] = where.split("/").map(decodeURIComponent);
    return { view: view || "streams", parts, query: new URLSearchParams(query) };
  } catch {
    return { view: "streams", parts: [], query: new URLSearchParams() };
  }
}

/** The fragment of a view. Empty values are left out. @param {(string | number)[]} parts @param {Record<string, any>} [query] */
export function link(parts, query = {}) {
  const values = new URLSearchParams();
  for (const [key, value] of Object.entries(query)) {
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== null && each !== undefined && each !== "") values.append(key, String(each));
    }
  }
  const text = values.toString();
  return `#/${parts.map((each) => encodeURIComponent(each)).join("/")}${text ? `?${text}` : ""}`;
}

/** Change the address without a new view and without an entry in the history of the browser. @param {string} fragment */
export function replace(fragment) {
  history.replaceState(null, "", fragment);
}

/** Go to a view. @param {string} fragment */
export function go(fragment) {
  location.hash = fragment;
}
