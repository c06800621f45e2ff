// What the page knows of all streams: their newest state, the scores of the last minutes, and the newest events.
import { get, path } from "./api.js";
import { Heat } from "./heat.js";

const MOST_EVENTS = 60;
const LATE_MS = 20_000;
const SEED_MINUTES = 6;
const RENDER_MS = 250; // streams change up to 4 times a second; people read slower
const AT_ONCE = 3; // requests for heat maps

/** `machine/stream`. @param {{machine: string, stream: string}} each */
export function nameOf(each) {
  return `${each.machine}/${each.stream}`;
}

/** What identifies an event: the history numbers it up to 2 s after its first message. @param {any} event */
export function keyOf(event) {
  return `${event.machine}/${event.stream}/${event.key}`;
}

/** Streams and events as they arrive. Sends `membership`, `streams` (a set of names) and `events`. */
export class House extends EventTarget {
  /** @param {import("./live.js").Live} live */
  constructor(live) {
    super();
    this.live = live;
    /** @type {Map<string, any>} by `machine/stream`, in order */
    this.streams = new Map();
    /** @type {Map<string, Heat>} */
    this.heats = new Map();
    /** @type {any[]} the newest first */
    this.events = [];
    /** @type {any} */
    this.about = null;
    /** @type {Set<string>} */
    this.changed = new Set();
    /** @type {Set<string>} */
    this.seeded = new Set();
    /** @type {(() => Promise<void>)[]} */
    this.waiting = [];
    this.asking = 0;
    this.loaded = false;
    this.eventsChanged = false;
    live.on("streams", (data) => this.setStreams(data.streams || data));
    live.on("stream", (stream) => this.setStream(stream));
    live.on("event", (event) => this.setEvent(event));
    live.on("machine", (machine) => this.setMachine(machine));
    live.on("missed", () => this.refresh());
    live.on("opened", () => this.refresh());
    setInterval(() => this.flush(), RENDER_MS);
  }

  /** Listen. @param {string} kind @param {(data: any) => void} handler @param {AbortSignal} signal */
  on(kind, handler, signal) {
    this.addEventListener(kind, (event) => handler(/** @type {CustomEvent} */ (event).detail), { signal });
  }

  /** @param {string} kind @param {any} [detail] */
  send(kind, detail = null) {
    this.dispatchEvent(new CustomEvent(kind, { detail }));
  }

  /** After each connection: what happened meanwhile. */
  async refresh() {
    await this.refreshAbout();
    if (!this.about || !this.about.history) return;
    const page = await get("events", { limit: 30 }).catch(() => null);
    if (page) {
      this.events = page.events;
      this.send("events");
    }
  }

  async refreshAbout() {
    const about = await get("about").catch(() => null);
    if (about) {
      this.about = about;
      this.send("about");
    }
  }

  /** @param {any} machine */
  setMachine(machine) {
    if (!this.about) return;
    const others = this.about.machines.filter((/** @type {any} */ each) => each.name !== machine.name);
    const several = others.length !== this.about.machines.length;
    this.about.machines = [...others, machine].sort((a, b) => a.name.localeCompare(b.name));
    this.send(several ? "machines" : "about");
  }

  /** @param {any[]} streams */
  setStreams(streams) {
    const before = [...this.streams.keys()].join("\n");
    const sorted = [...streams].sort((a, b) => nameOf(a).localeCompare(nameOf(b), "en", { numeric: true }));
    this.streams = new Map(sorted.map((each) => [nameOf(each), each]));
    for (const name of this.heats.keys()) if (!this.streams.has(name)) this.heats.delete(name);
    for (const each of sorted) this.setStream(each);
    this.loaded = true;
    if (before !== [...this.streams.keys()].join("\n") || !before) this.send("membership");
  }

  /** @param {any} stream */
  setStream(stream) {
    const name = nameOf(stream);
    if (!this.streams.has(name)) return; // `streams` announces new ones
    const before = this.streams.get(name);
    this.streams.set(name, stream);
    this.changed.add(name);
    if (!stream.window_end || !stream.labels || !stream.labels.length) return;
    const now = Date.now();
    const end = Date.parse(stream.window_end);
    if (Math.abs(now - end) < LATE_MS) this.heat(name).add(end, stream.labels);
    // The clock of its machine is wrong, or ours: a new window belongs to now.
    else if (before.window_end !== stream.window_end) this.heat(name).add(now, stream.labels);
  }

  /** The scores of a stream's last minutes. @param {string} name @returns {Heat} */
  heat(name) {
    let heat = this.heats.get(name);
    if (!heat) {
      heat = new Heat();
      this.heats.set(name, heat);
    }
    return heat;
  }

  /** Ask the history for the minutes before the page was opened, once for a stream. @param {string} name */
  seed(name) {
    const stream = this.streams.get(name);
    if (!stream || this.seeded.has(name) || (this.about && !this.about.history)) return;
    this.seeded.add(name);
    this.waiting.push(async () => {
      const now = Date.now();
      const query = { start: new Date(now - SEED_MINUTES * 60_000).toISOString(), end: new Date(now).toISOString(), labels: 20 };
      const map = await get(`streams/${path(stream.machine, stream.stream)}/heatmap`, query).catch(() => null);
      if (map && this.streams.has(name)) {
        this.heat(name).seed(map);
        this.changed.add(name);
      }
    });
    this.work();
  }

  work() {
    while (this.asking < AT_ONCE && this.waiting.length) {
      this.asking += 1;
      const job = /** @type {() => Promise<void>} */ (this.waiting.shift());
      job().finally(() => {
        this.asking -= 1;
        this.work();
      });
    }
  }

  /** An event began, changed or ended. @param {any} event */
  setEvent(event) {
    const at = this.events.findIndex((each) => keyOf(each) === keyOf(event));
    if (at >= 0) this.events[at] = event.id === null ? { ...event, id: this.events[at].id } : event;
    else {
      this.events.unshift(event);
      this.events.sort((a, b) => Date.parse(b.start) - Date.parse(a.start));
      this.events.length = Math.min(this.events.length, MOST_EVENTS);
    }
    this.eventsChanged = true;
  }

  /** The newest stored event of a stream and label that is open. @param {string} name @param {string} mid */
  openEvent(name, mid) {
    return this.events.find((each) => each.state === "open" && each.mid === mid && nameOf(each) === name);
  }

  flush() {
    if (document.hidden) return;
    for (const heat of this.heats.values()) heat.advance(Date.now());
    if (this.changed.size) {
      const changed = this.changed;
      this.changed = new Set();
      this.send("streams", changed);
    }
    if (this.eventsChanged) {
      this.eventsChanged = false;
      this.send("events");
    }
  }
}
