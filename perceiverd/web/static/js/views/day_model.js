// The day of the API as rows of events and times without listening. Knows nothing of the page.
import { COLOURED } from "../colours.js";
import { LISTENING } from "../words.js";

const HOUR_MS = 3_600_000;
const SHORT_MS = 2000; // every start passes through `starting`; such moments are not drawn

/**
 * @typedef {object} Row
 * @property {string} name a stream, `machine/stream`, or a label
 * @property {number[]} events indexes, by their start
 * @property {Uint8Array} lanes for each event, which of the parallel lines of the row it is on
 * @property {number} laneCount
 * @property {Gap[]} gaps
 *
 * @typedef {{from: number, to: number, kind: string, what: string, stream: string}} Gap
 */

/** One day. */
export class DayModel {
  /** @param {any} answer of api/1/day @param {string[]} streams names that are published now @param {number} now */
  constructor(answer, streams, now) {
    this.startMs = Date.parse(answer.start);
    this.endMs = Date.parse(answer.end);
    this.pastMs = Math.min(this.endMs, now);
    const line = answer.time_line;
    this.line = line;
    this.complete = line.complete;
    this.count = line.ids.length;
    this.streams = [...new Set([...line.names, ...Object.keys(answer.windows), ...streams])].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    this.labelCounts = new Int32Array(line.label_names.length);
    for (const label of line.labels) this.labelCounts[label] += 1;
    /** Labels by their number of events. */
    this.frequent = [...this.labelCounts.keys()].sort((a, b) => this.labelCounts[b] - this.labelCounts[a]);
    /** For each label which colour it has; -1 for those that share the last one. */
    this.colours = new Int16Array(line.label_names.length).fill(-1);
    this.frequent.slice(0, COLOURED).forEach((label, i) => (this.colours[label] = i));
    /** @type {Map<string, Gap[]>} */
    this.gaps = new Map(this.streams.map((name) => [name, gapsOf(name, answer, this.startMs, this.pastMs)]));
  }

  /** When the first stream began to listen on this day; its start if none did. */
  get heardMs() {
    const firsts = [...this.gaps.values()].map((gaps) => (gaps.length && gaps[0].from <= this.startMs ? endOfFirst(gaps) : this.startMs));
    const first = Math.min(...firsts, this.count ? this.line.start_ms[0] : Infinity);
    return first < this.pastMs ? Math.max(this.startMs, first) : this.startMs;
  }

  /** The events that are wanted, in the order of their starts. @param {string} stream all if empty @param {string} label all if empty */
  wanted(stream, label) {
    const { streams, labels, names, label_names: labelNames, ids } = this.line;
    const [streamAt, labelAt] = [names.indexOf(stream), labelNames.indexOf(label)];
    const found = [];
    for (let i = 0; i < ids.length; i++) {
      if ((!stream || streams[i] === streamAt) && (!label || labels[i] === labelAt)) found.push(i);
    }
    return found;
  }

  /** A row for each stream, or for each label of one stream. @param {string} stream @param {string} label @param {number} lanes @returns {Row[]} */
  rows(stream, label, lanes) {
    const wanted = this.wanted(stream, label);
    const { streams, labels, names, label_names: labelNames } = this.line;
    if (!stream) {
      /** @type {Map<string, number[]>} */
      const by = new Map(this.streams.map((name) => [name, []]));
      for (const i of wanted) by.get(names[streams[i]])?.push(i);
      return [...by].map(([name, events]) => this.row(name, events, this.gaps.get(name) || [], lanes));
    }
    /** @type {Map<number, number[]>} */
    const by = new Map();
    for (const i of wanted) {
      const events = by.get(labels[i]);
      if (events) events.push(i);
      else by.set(labels[i], [i]);
    }
    const sorted = [...by].sort((a, b) => b[1].length - a[1].length);
    const gaps = this.gaps.get(stream) || [];
    if (!sorted.length) return [this.row(stream, [], gaps, 1)];
    return sorted.map(([at, events]) => this.row(labelNames[at], events, gaps, 1));
  }

  /** @param {string} name @param {number[]} events @param {Gap[]} gaps @param {number} most @returns {Row} */
  row(name, events, gaps, most) {
    const lanes = new Uint8Array(events.length);
    const ends = new Float64Array(most);
    let laneCount = 1;
    events.forEach((event, at) => {
      let lane = ends.findIndex((end) => end <= this.line.start_ms[event]);
      if (lane < 0) lane = most - 1;
      ends[lane] = Math.max(ends[lane], this.line.end_ms[event]);
      lanes[at] = lane;
      laneCount = Math.max(laneCount, lane + 1);
    });
    return { name, events, lanes, laneCount, gaps };
  }

  /** All times without listening, of one stream or of all, by their start. @param {string} stream @returns {Gap[]} */
  allGaps(stream) {
    const lists = stream ? [this.gaps.get(stream) || []] : [...this.gaps.values()];
    return lists.flat().sort((a, b) => a.from - b.from);
  }
}

/**
 * When a stream was not listening: every time that no span `up` of it covers, that a bad span of its machine covers, or
 * that is an hour without a window.
 * @param {string} name @param {any} answer @param {number} start @param {number} end @returns {Gap[]}
 */
function gapsOf(name, answer, start, end) {
  const [machine, ...rest] = name.split("/");
  const stream = rest.join("/");
  const own = [];
  const bad = [];
  for (const each of answer.spans) {
    if (each.machine !== machine || (each.stream !== null && each.stream !== undefined && each.stream !== stream)) continue;
    const span = { from: Math.max(start, Date.parse(each.start)), to: Math.min(end, each.end ? Date.parse(each.end) : end), kind: each.kind, what: each.what || "", stream: name };
    if (each.stream === stream && each.kind === "up") own.push(span);
    else if (!LISTENING.has(each.kind) && span.to - span.from >= SHORT_MS) bad.push(span);
  }
  const covered = [...own, ...bad].sort((a, b) => a.from - b.from);
  const gaps = [...bad];
  const blank = (/** @type {number} */ from, /** @type {number} */ to) => to - from >= SHORT_MS && gaps.push({ from, to, kind: "no windows", what: "", stream: name });
  let at = start;
  for (const each of covered) {
    if (each.from > at) blank(at, each.from);
    at = Math.max(at, each.to);
  }
  blank(at, end);
  const windows = answer.windows[name] || [];
  const first = Date.parse(answer.windows_start || answer.start);
  windows.forEach((/** @type {number} */ count, /** @type {number} */ i) => {
    const [from, to] = [Math.max(start, first + i * HOUR_MS), Math.min(end, first + (i + 1) * HOUR_MS)];
    const isPast = first + (i + 1) * HOUR_MS <= end;
    if (!count && isPast && !gaps.some((gap) => gap.from <= from && gap.to >= to)) blank(from, to);
  });
  return joined(gaps.sort((a, b) => a.from - b.from));
}

/** Where the gaps that join the first one end. @param {Gap[]} gaps */
function endOfFirst(gaps) {
  let end = gaps[0].to;
  for (const gap of gaps) if (gap.from <= end + SHORT_MS) end = Math.max(end, gap.to);
  return end;
}

/** Neighbours of the same kind as one. @param {Gap[]} gaps @returns {Gap[]} */
function joined(gaps) {
  /** @type {Gap[]} */
  const list = [];
  for (const gap of gaps) {
    const last = list.at(-1);
    if (last && last.kind === gap.kind && last.what === gap.what && gap.from <= last.to + SHORT_MS) last.to = Math.max(last.to, gap.to);
    else list.push({ ...gap });
  }
  return list;
}
