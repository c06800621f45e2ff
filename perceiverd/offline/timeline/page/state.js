// What the person has chosen, and where the playhead is. Views subscribe and draw.

/** A value whose changes views can follow. Several changes before the next picture are reported as one. */
export class State {
  constructor(values) {
    this.values = values;
    this.listeners = [];
    this.changed = new Set();
  }

  get(key) {
    return this.values[key];
  }

  /** Change some values. */
  set(values) {
    for (const [key, value] of Object.entries(values)) {
      if (Object.is(this.values[key], value)) continue;
      this.values[key] = value;
      this.changed.add(key);
    }
    if (this.changed.size && !this.due) this.due = requestAnimationFrame(() => this.report());
  }

  /** Call `listener` before the next picture whenever one of these values has changed. */
  on(keys, listener) {
    this.listeners.push({ keys, listener });
  }

  /** Report what has changed now. */
  report() {
    if (this.due) cancelAnimationFrame(this.due);
    this.due = 0;
    const changed = this.changed;
    this.changed = new Set();
    for (const { keys, listener } of this.listeners) {
      if (keys.some((key) => changed.has(key))) listener(this.values);
    }
  }
}

/** The rows to show: labels that are found and strong enough, in the chosen order. */
export function foundLabels(model, { search, least, order, label }) {
  const found = model.labels.filter((each) => matches(each, search, label) && each.peak >= least);
  const by = {
    strength: (a, b) => (b.events.length > 0) - (a.events.length > 0) || b.peak - a.peak,
    time: (a, b) => (b.events.length > 0) - (a.events.length > 0) || a.firstS - b.firstS,
    name: (a, b) => a.name.localeCompare(b.name, "en"),
  };
  return found.sort(by[order]);
}

/** The events of the labels that are found, from the chosen score, in the order of their times. */
export function foundEvents(model, { search, least, label }) {
  return model.events.filter(
    (event) => event.peak >= least && matches(event.label, search, null) && (!label || event.label === label),
  );
}

function matches(label, search, chosen) {
  return label === chosen || search.every((word) => label.folded.includes(word));
}
