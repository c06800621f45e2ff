"""A result of an evaluation, made by hand, that tests of its page and text use."""

from __future__ import annotations

import math

from perceiverd.evaluation.metrics import Interval
from perceiverd.evaluation.reliability import Bin
from perceiverd.evaluation.results import (
    AlertResult,
    DifferenceResult,
    EvaluationResult,
    FailureResult,
    LabelAlerts,
    LabelResult,
    ModelResult,
)


def interval(value: float) -> Interval:
    return Interval(value, value - 0.1, value + 0.1)


def model(name: str) -> ModelResult:
    alerts = tuple(
        AlertResult(each, 3, 4, interval(0.75), 2, interval(1.5), interval(1.2), interval(2.0), 8.0, 31.5)
        for each in (None, 0.5)
    )
    known = tuple(LabelAlerts(each, 3, 4, 2) for each in (None, 0.5))
    dog = LabelResult("/m/0bt9lr", "Dog <&>", 7, 9, 13, interval(0.5), interval(0.7), 0.74, 0.3, 0.4, known)
    sure = LabelResult(
        "/m/09x0r", "Speech", 3, 3, 19, interval(0.9), Interval(1.0, 1.0, 1.0), math.inf, None, None, known
    )
    bins = (Bin(50, 9, 0.1, interval(0.2)), Bin(20, 7, 0.8, interval(0.7)))
    measures = {"mAP": interval(0.7), "mAUC": interval(0.85), "d_prime": interval(1.4), "brier": interval(0.2)}
    return ModelResult(name, "0" * 64, measures, (dog, sure), alerts, bins, {"psds1": ((0.0, 0.2), (100.0, 0.6))})


def result(*names: str) -> EvaluationResult:
    differences = [DifferenceResult("mAP", None, interval(0.25))]
    differences += [
        DifferenceResult(name, each, interval(-0.5))
        for each in (None, 0.5)
        for name in ("found_share", "false_alarms_per_hour")
    ]
    return EvaluationResult(
        version="1.2.3",
        manifest="clips<1>.csv",
        truth="events",
        hop_s=0.5,
        rounds=500,
        files=7,
        recordings=7,
        units=(22,) * len(names),
        true_events=4,
        hours=0.5,
        unmeasured=("user/bell",),
        failures=(FailureResult(3, "gone.wav", "gone.wav: no such file"),),
        models=tuple(map(model, names)),
        differences=tuple(differences) if len(names) > 1 else (),
        notes=("A note.",),
    )
