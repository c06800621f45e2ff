"""A small set of labels with relatives, and trackers of them: for tests of events."""

from __future__ import annotations

from perceiverd.core.labels import Label, ontology
from perceiverd.model.card import Calibration
from perceiverd.pipeline.rules import EventOptions, Rules, resolve
from perceiverd.pipeline.tracker import EventTracker

NAMES = ("Animal", "Dog", "Bark", "Howl", "Cat", "Meow", "Music")
"""Two families and a label without relatives."""
LABELS = (
    *(Label(i, ontology().find(name).mid, name) for i, name in enumerate(NAMES)),
    Label(len(NAMES), "mine:hinge", "Hinge"),
)
"""The last one is unknown to the ontology."""
ANIMAL, DOG, BARK, HOWL, CAT, MEOW, MUSIC, HINGE = range(len(LABELS))
N = len(LABELS)
WINDOW_NS = 1_280_000_000
HOP_NS = 500_000_000


def make(options: EventOptions | None = None) -> EventTracker:
    return EventTracker(make_rules(options))


def make_rules(options: EventOptions | None = None) -> Rules:
    return resolve(LABELS, (Calibration(),) * N, options or EventOptions())
