// The API of the server. All addresses are relative, so a reverse proxy may serve the page below any path.

/** What a request that failed says, in one sentence for people. */
export class ApiError extends Error {
  /** @param {string} message @param {number} status 0 if the server did not answer. */
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

const TIMEOUT_MS = 30_000; // a query over a year takes seconds on a small machine
let csrf = "";
/** @type {() => void} */
let signedOut = () => {};

/** Remember the token that changes need. @param {string} token */
export function setToken(token) {
  csrf = token;
}

/** Call this when the server no longer knows us. @param {() => void} handler */
export function onSignedOut(handler) {
  signedOut = handler;
}

/**
 * The address of a part of the API. Values that are null or empty are left out; lists repeat their key.
 * @param {string} path @param {Record<string, any>} [query]
 */
export function address(path, query = {}) {
  const values = new URLSearchParams();
  for (const [key, value] of Object.entries(query)) {
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== null && each !== undefined && each !== "") values.append(key, String(each));
    }
  }
  const text = values.toString();
  return `api/1/${path}${text ? `?${text}` : ""}`;
}

/** The parts of a path, each encoded. @param {...(string | number)} parts */
export function path(...parts) {
  return parts.map((each) => encodeURIComponent(each)).join("/");
}

/** Read. @param {string} where @param {Record<string, any>} [query] @param {AbortSignal} [signal] @returns {Promise<any>} */
export function get(where, query = {}, signal = undefined) {
  return ask("GET", address(where, query), undefined, signal);
}

/** Add. @param {string} where @param {any} body @returns {Promise<any>} */
export function post(where, body) {
  return ask("POST", address(where), body);
}

/** Remove. @param {string} where @returns {Promise<any>} */
export function remove(where) {
  return ask("DELETE", address(where));
}

/** @param {string} method @param {string} url @param {any} [body] @param {AbortSignal} [signal] @param {boolean} [again] @returns {Promise<any>} */
async function ask(method, url, body = undefined, signal = undefined, again = true) {
  /** @type {Record<string, string>} */
  const headers = { Accept: "application/json" };
  if (method !== "GET") headers["X-CSRF-Token"] = csrf;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const limit = AbortSignal.timeout(TIMEOUT_MS);
  let response;
  try {
    response = await fetch(url, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
      credentials: "same-origin",
    });
  } catch (error) {
    if (signal && signal.aborted) throw error;
    throw new ApiError("The server does not answer. Check that perceiverd web runs, and the network.", 0);
  }
  if (response.status === 204) return null;
  const answer = await response.json().catch(() => null);
  if (response.ok) return answer;
  if (response.status === 403 && method !== "GET" && again) {
    // The server was restarted since, or we signed in elsewhere: the token is another one now.
    setToken((await ask("GET", address("session"))).csrf);
    return ask(method, url, body, signal, false);
  }
  if (response.status === 401 && !url.startsWith("api/1/session")) signedOut();
  throw new ApiError((answer && answer.error) || `The server answered with status ${response.status}.`, response.status);
}
