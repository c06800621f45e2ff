"""What `perceiverd eval` has measured, as plain records: the JSON file, the table and the page are made of them.

NaN and infinity are null in JSON: a measure that does not exist, such as d' of a label whose areas are all 1.
"""

from __future__ import annotations

import msgspec

from perceiverd.evaluation.metrics import Interval
from perceiverd.evaluation.reliability import Bin
from perceiverd.evaluation.truth import TruthKind

SCHEMA = 1

MEASURES = {
    "mAP": "mean average precision over the labels",
    "mAUC": "mean area under the ROC curve over the labels",
    "d_prime": "d', from mAUC",
    "psds1": "PSDS 1 (asks for the right times)",
    "psds2": "PSDS 2 (asks for the right labels)",
    "calibration_error": "expected calibration error",
    "notable_calibration_error": "the same for scores from 0.1 on",
    "brier": "Brier score",
}
"""The measures of a model, with their meanings. Higher is better for the first five, lower for the others."""
ERRORS = frozenset({"calibration_error", "notable_calibration_error", "brier"})
"""Measures of which less is better."""
LETTERS = "AB"
"""What tables call the models, if there are two."""


class LabelAlerts(msgspec.Struct, frozen=True):
    """Events of one label at one threshold."""

    threshold: float | None
    """As in `AlertResult`."""
    found: int
    true: int
    false_alarms: int


class LabelResult(msgspec.Struct, frozen=True):
    """One label."""

    mid: str
    name: str
    recordings: int
    """Recordings that have it."""
    present: int
    """Units that have it."""
    absent: int
    """Units that lack it."""
    average_precision: Interval
    auc: Interval
    d_prime: float
    psds1: float | None
    psds2: float | None
    alerts: tuple[LabelAlerts, ...]


class AlertResult(msgspec.Struct, frozen=True):
    """The events of the daemon's rules at one threshold."""

    threshold: float | None
    """Of all labels; null: each label's own, from the model and the configuration."""
    found: int
    """True events, or labels of clips, that an event meets."""
    true: int
    """All of them."""
    found_share: Interval
    false_alarms: int
    false_alarms_per_hour: Interval
    """With the exact Poisson interval."""
    delay_median_s: Interval
    """From the start of a true event until the end of the window with which the daemon publishes it."""
    delay_p90_s: Interval
    """Nine of ten are not later."""
    flips_per_hour: float
    """Beginnings and ends of events."""
    raw_flips_per_hour: float
    """Crossings of the threshold by scores that are not smoothed."""


class ModelResult(msgspec.Struct, frozen=True):
    """One model."""

    name: str
    sha256: str
    """Of its weights, in hexadecimal."""
    measures: dict[str, Interval]
    """By the names in `MEASURES`; those that cannot be computed are left out."""
    labels: tuple[LabelResult, ...]
    alerts: tuple[AlertResult, ...]
    bins: tuple[Bin, ...]
    """Windows or clips by score, with the share that has the label."""
    psds_curves: dict[str, tuple[tuple[float, float], ...]]
    """By setting: false alarms per hour, and the share of events found less its deviation over the labels."""


class DifferenceResult(msgspec.Struct, frozen=True):
    """How much more the second model, B, has of a measure than the first, A, on the same draws of recordings."""

    measure: str
    """A name in `MEASURES`, `false_alarms_per_hour` or `found_share`."""
    threshold: float | None
    """For the last two; null: each label's own."""
    difference: Interval


class FailureResult(msgspec.Struct, frozen=True):
    """A row of the manifest that was not measured."""

    line: int
    file: str
    error: str


class EvaluationResult(msgspec.Struct, frozen=True, kw_only=True):
    """The whole of it."""

    version: str
    """Version of perceiverd."""
    manifest: str
    truth: TruthKind
    hop_s: float
    rounds: int
    """Draws of the bootstrap."""
    files: int
    recordings: int
    units: tuple[int, ...]
    """Clips, or windows, that each model has scored."""
    true_events: int
    """True events, or labels of clips."""
    hours: float
    """Of media that was measured."""
    unmeasured: tuple[str, ...]
    """Labels of the manifest that a model lacks."""
    failures: tuple[FailureResult, ...]
    models: tuple[ModelResult, ...]
    differences: tuple[DifferenceResult, ...]
    notes: tuple[str, ...]
    """What is missing, and why."""
    schema: int = SCHEMA

    def json(self) -> bytes:
        """As the JSON file has it."""
        return msgspec.json.format(msgspec.json.encode(self)) + b"\n"
