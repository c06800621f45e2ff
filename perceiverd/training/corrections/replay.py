"""What would have changed: the events that the old and the new model find in the same windows, and in stored clips."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from perceiverd.core.labels import Label
from perceiverd.core.media import NS_PER_S
from perceiverd.model.card import Calibration
from perceiverd.pipeline.rules import EventOptions, Rules, lineage, resolve
from perceiverd.pipeline.tagger import sigmoid
from perceiverd.pipeline.tracker import EventTracker
from perceiverd.training.corrections.rows import Vectors

MOST_PLACES = 10
"""Places that are noted."""
NEAR_NS = 3 * NS_PER_S
"""Two events of a label that begin this close to each other are the same."""


@dataclass(frozen=True, eq=False)
class Classifier:
    """The last layer of a model with its calibration: vectors in, events out."""

    labels: tuple[Label, ...]
    weight: NDArray[np.float32]
    """(classes, width)"""
    bias: NDArray[np.float32]
    """(classes,)"""
    calibration: tuple[Calibration, ...]

    @cached_property
    def _rules(self) -> Rules:
        return resolve(self.labels, self.calibration, EventOptions())

    def scores(self, vectors: Vectors) -> NDArray[np.float32]:
        """(N, classes), 0..1."""
        scale = np.array([one.scale for one in self.calibration], np.float32)
        shift = np.array([one.shift for one in self.calibration], np.float32)
        return sigmoid(scale * (vectors @ self.weight.T + self.bias) + shift)

    def events(self, vectors: Vectors, hop_s: float, window_ns: int) -> list[FoundEvent]:
        """The events in vectors of consecutive windows, by the default rules and the model's own thresholds."""
        tracker = EventTracker(self._rules)
        found = []
        for at, row in enumerate(self.scores(vectors)):
            start_ns = round(at * hop_s * NS_PER_S)
            changes = tracker.track(row, start_ns, start_ns + window_ns, ("audio",))
            found += [FoundEvent(each.index, each.start_ns) for each in changes if each.kind == "begin"]
        return found


@dataclass(frozen=True, slots=True)
class FoundEvent:
    """An event that begins."""

    label: int
    start_ns: int
    """From the start of the first window."""


@dataclass
class Changes:
    """Counts of what changes, by label."""

    stored: Counter[int] = field(default_factory=Counter)
    """Stored events of the label."""
    judged: Counter[int] = field(default_factory=Counter)
    """Of these, the ones whose sound is there and has the event with the old model."""
    gone: Counter[int] = field(default_factory=Counter)
    """Of these, the ones without the event with the new model."""
    heard_s: float = 0.0
    """Seconds of recent sound that both models judged."""
    before: Counter[int] = field(default_factory=Counter)
    after: Counter[int] = field(default_factory=Counter)
    """Events in the recent sound with the old and the new model."""
    lost: Counter[int] = field(default_factory=Counter)
    new: Counter[int] = field(default_factory=Counter)
    """Events in the recent sound with one of the models alone."""
    places: list[str] = field(default_factory=list)
    """Where some of these are, in words."""


class Comparison:
    """Compares two classifiers of the same network on vectors."""

    def __init__(self, old: Classifier, new: Classifier, concerned: Collection[int], window_ns: int) -> None:
        """`concerned`: the labels to count, by their index in the new model."""
        self._old, self._new, self._concerned, self._window_ns = old, new, frozenset(concerned), window_ns
        self.changes = Changes()

    def ordinary(self, vectors: Vectors, hop_s: float, stream: str = "", start: datetime | None = None) -> None:
        """Count the events in ordinary sound; with `start`, of the first window, note where what changes is."""
        before, after = (self._events(each, vectors, hop_s) for each in (self._old, self._new))
        changes = self.changes
        changes.heard_s += len(vectors) * hop_s
        changes.before.update(each.label for each in before)
        changes.after.update(each.label for each in after)
        changes.lost.update(each.label for each in before if not _has(after, each))
        changes.new.update(each.label for each in after if not _has(before, each))
        if start is not None:
            for what, some, others in (("lost", before, after), ("new", after, before)):
                for each in some:
                    if not _has(others, each) and len(changes.places) < MOST_PLACES:
                        at = (start + timedelta(microseconds=each.start_ns / 1000)).astimezone()
                        name = self._new.labels[each.label].name
                        changes.places.append(f"{what}: {name}, {stream} {at:%Y-%m-%d %H:%M:%S}")

    def stored(self, label: int, vectors: Vectors | None, hop_s: float) -> None:
        """Count a stored event of this label; `vectors` are those of its clip, None if there is no sound."""
        self.changes.stored[label] += 1
        if vectors is None or not any(each.label == label for each in self._events(self._old, vectors, hop_s)):
            return
        self.changes.judged[label] += 1
        if not any(each.label == label for each in self._events(self._new, vectors, hop_s)):
            self.changes.gone[label] += 1

    def _events(self, model: Classifier, vectors: Vectors, hop_s: float) -> list[FoundEvent]:
        return [each for each in model.events(vectors, hop_s, self._window_ns) if each.label in self._concerned]


def _has(events: Iterable[FoundEvent], wanted: FoundEvent) -> bool:
    return any(each.label == wanted.label and abs(each.start_ns - wanted.start_ns) <= NEAR_NS for each in events)


def concerned(labels: Sequence[Label], taught: Collection[int]) -> frozenset[int]:
    """The taught labels and those above and below them, whose events may come instead."""
    above, below = lineage(tuple(labels))
    related = {int(one) for one, other in zip(above, below, strict=True) if int(other) in taught}
    related |= {int(other) for one, other in zip(above, below, strict=True) if int(one) in taught}
    return frozenset(taught) | related
