// The live connection: server-sent events, opened again with growing pauses when it breaks.
import { address, get } from "./api.js";

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 15_000;
const QUIET_MS = 40_000; // the server sends a comment each 15 s, which scripts cannot see; after this we ask it
const OPENING_MS = 20_000; // a proxy may accept a connection and never answer
const KINDS = ["streams", "stream", "event", "machine", "explain", "missed"];

/** Hands on what the server sends. Listeners are removed by their signal. */
export class Live extends EventTarget {
  /** @param {() => void} onSignedOut called if the server no longer knows us */
  constructor(onSignedOut) {
    super();
    this.onSignedOut = onSignedOut;
    /** @type {EventSource | null} */
    this.source = null;
    this.explained = "";
    this.pauseMs = FIRST_PAUSE_MS;
    this.timer = 0;
    this.running = false;
    this.connected = false;
    /** When the connection broke; 0 before the first one. */
    this.lostAt = 0;
    this.heardAt = 0;
    addEventListener("online", () => this.again());
    document.addEventListener("visibilitychange", () => document.hidden || this.again());
    setInterval(() => this.check(), 5000);
  }

  /** Call a handler with each message of a kind, parsed. @param {string} kind @param {(data: any) => void} handler @param {AbortSignal} [signal] */
  on(kind, handler, signal = undefined) {
    this.addEventListener(kind, (event) => handler(/** @type {CustomEvent} */ (event).detail), { signal });
  }

  start() {
    this.running = true;
    this.open();
  }

  stop() {
    this.running = false;
    clearTimeout(this.timer);
    this.close();
    this.tell(false);
    this.lostAt = 0;
  }

  /** Also ask for the explanations of one stream, `machine/stream`; of none if it is empty. @param {string} name */
  explain(name) {
    if (name === this.explained) return;
    this.explained = name;
    if (this.running) this.open();
  }

  /** Try at once if we wait for the next try. */
  again() {
    if (this.running && !this.source) {
      this.pauseMs = FIRST_PAUSE_MS;
      this.open();
    }
  }

  open() {
    clearTimeout(this.timer);
    this.close();
    const source = new EventSource(address("live", { explain: this.explained }));
    this.source = source;
    this.heardAt = Date.now();
    source.onopen = () => {
      this.pauseMs = FIRST_PAUSE_MS;
      this.heardAt = Date.now();
      this.tell(true);
      this.dispatchEvent(new CustomEvent("opened")); // something may have happened since the last connection
    };
    source.onerror = () => this.source === source && this.broken();
    for (const kind of KINDS) {
      source.addEventListener(kind, (message) => {
        this.heardAt = Date.now();
        let data;
        try {
          data = JSON.parse(/** @type {MessageEvent} */ (message).data);
        } catch {
          return this.broken(); // cut in the middle
        }
        this.dispatchEvent(new CustomEvent(kind, { detail: data }));
      });
    }
  }

  close() {
    if (this.source) this.source.close();
    this.source = null;
  }

  broken() {
    this.close();
    this.tell(false);
    clearTimeout(this.timer);
    if (!this.running) return;
    const pauseMs = this.pauseMs * (0.75 + Math.random() / 2); // so that many pages do not come at the same moment
    this.pauseMs = Math.min(LONGEST_PAUSE_MS, this.pauseMs * 2);
    this.timer = setTimeout(() => this.retry(), pauseMs);
  }

  async retry() {
    try {
      const session = await get("session");
      if (!session.signed_in) return this.onSignedOut();
    } catch {
      return this.broken();
    }
    if (this.running && !this.source) this.open();
  }

  /** A connection may be dead without an error: ask the server if nothing has come for a while. */
  async check() {
    if (!this.running || !this.source) return;
    const quietMs = Date.now() - this.heardAt;
    if (quietMs < (this.connected ? QUIET_MS : OPENING_MS)) return;
    if (!this.connected) return this.broken();
    this.heardAt = Date.now();
    try {
      await get("session");
    } catch {
      this.broken();
    }
  }

  /** @param {boolean} connected */
  tell(connected) {
    if (this.connected === connected && (connected || this.lostAt)) return;
    this.connected = connected;
    this.lostAt = connected ? 0 : Date.now();
    this.dispatchEvent(new CustomEvent("connection", { detail: connected }));
  }
}
