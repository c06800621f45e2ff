"""The events that a model finds in a stretch, by the daemon's rules, at several thresholds at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from perceiverd.core.labels import Label
from perceiverd.core.media import NS_PER_S
from perceiverd.evaluation.truth import MeasuredLabels
from perceiverd.model.card import Calibration
from perceiverd.pipeline.rules import EventOptions, Rules, resolve
from perceiverd.pipeline.tracker import EventChange, EventTracker
from perceiverd.pipeline.windower import Window

Threshold = float | None
"""For all labels; None: each label's own, from the model and the configuration."""


@dataclass(frozen=True, slots=True)
class Detection:
    """An event that a model has found."""

    place: int
    """The label's, in `MeasuredLabels`."""
    start_s: float
    end_s: float
    decided_s: float
    """When the daemon could publish its beginning, by media time: the end of the window that decided it."""


def rules_at(
    threshold: Threshold,
    labels: MeasuredLabels,
    model: tuple[Label, ...],
    calibration: Sequence[Calibration],
    options: EventOptions,
) -> Rules:
    """The rules that give the measured labels events at this threshold. Raises ConfigError if options contradict."""
    mids = tuple(label.mid for label in labels.labels)
    measured = {*mids, *(label.name for label in labels.labels)}
    # A denied label raises no label above it. One that is measured is not denied.
    options = replace(options, allow=mids, deny=tuple(label for label in options.deny if label not in measured))
    if threshold is not None:
        own = {name: replace(option, on=None, off=None) for name, option in options.labels.items()}
        options = replace(options, on=threshold, off=None, labels=own)
    return resolve(model, calibration, options)


class StretchTracker:
    """Tracks the events of one stretch at one threshold, and counts how often raw scores cross it."""

    def __init__(self, rules: Rules, columns: NDArray[np.intp]) -> None:
        """`columns`: the measured labels among the model's."""
        self._tracker = EventTracker(rules)
        self._columns, self._places = columns, {int(column): place for place, column in enumerate(columns)}
        self._on = rules.on[columns]
        self._begun: dict[str, float] = {}
        self._above: NDArray[np.bool_] | None = None
        self.crossings = 0
        """How often a score that is not smoothed went above its threshold or below it."""
        self.found: list[Detection] = []

    def add(self, window: Window, scores: NDArray[np.float32]) -> None:
        """Add a window with its scores (labels of the model,)."""
        self._take(self._tracker.track(scores, window.start_ns, window.end_ns, window.modalities))
        above = scores[self._columns] >= self._on
        if self._above is not None:
            self.crossings += int((above != self._above).sum())
        self._above = above

    def finish(self) -> None:
        """No window follows."""
        self._take(self._tracker.end("stream ended"))

    def _take(self, changes: Sequence[EventChange]) -> None:
        for change in changes:
            if change.kind == "begin":
                self._begun[change.id] = change.decided_ns / NS_PER_S
            elif change.kind == "end":
                self.found.append(
                    Detection(
                        self._places[change.index],
                        change.start_ns / NS_PER_S,
                        change.end_ns / NS_PER_S,
                        self._begun.pop(change.id),
                    )
                )
