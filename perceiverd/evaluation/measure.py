"""From what models have scored to results: measures with intervals, labels, alerts, differences between two models.

All bootstraps draw whole recordings, and the same draws serve all models, so that differences are paired.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from perceiverd.evaluation import alerts, psds, reliability
from perceiverd.evaluation.alerts import AlertCounts
from perceiverd.evaluation.detections import Threshold
from perceiverd.evaluation.metrics import Facts, Interval, rate
from perceiverd.evaluation.psds import PsdsResult
from perceiverd.evaluation.ranking import Ranking, discriminability, recording_draws
from perceiverd.evaluation.results import AlertResult, DifferenceResult, LabelAlerts, LabelResult, ModelResult
from perceiverd.evaluation.scoring import ScoredStretch
from perceiverd.evaluation.truth import MeasuredLabels, TruthKind

HOUR_S = 3600
NO_INTERVAL = Interval(float("nan"), float("nan"), float("nan"))

Draws = NDArray[np.integer]
Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ModelMeasures:
    """One model's scores, and the arrays (1 + draws, ...) of its measures: first the measure, then each draw's."""

    name: str
    sha256: str
    stretches: Sequence[ScoredStretch]
    owners: NDArray[np.intp]
    """(stretches,): the recording of each."""
    kind: TruthKind
    labels: MeasuredLabels
    thresholds: tuple[Threshold, ...]
    draws: Draws
    """(recordings, 1 + rounds)"""

    @cached_property
    def scores(self) -> NDArray[np.float32]:
        """Scores (units, labels)."""
        return np.concatenate([one.unit_scores(self.kind) for one in self.stretches])

    @cached_property
    def facts(self) -> Facts:
        """Facts (units, labels)."""
        return np.concatenate([one.unit_facts(self.kind, self.labels) for one in self.stretches])

    @cached_property
    def unit_owners(self) -> NDArray[np.intp]:
        """(units,): the recording of each."""
        counts = [len(one.scores) if self.kind == "events" else 1 for one in self.stretches]
        return np.repeat(self.owners, counts)

    @cached_property
    def classes(self) -> list[int]:
        """The labels that some unit has and some unit lacks."""
        return np.flatnonzero((self.facts == 1).any(axis=0) & (self.facts == 0).any(axis=0)).tolist()

    @cached_property
    def ranked(self) -> tuple[Values, Values]:
        """Average precision and area under the ROC curve, each (labels of `classes`, 1 + draws)."""
        pairs = []
        for place in self.classes:
            known = self.facts[:, place] >= 0
            ranking = Ranking(self.scores[known, place], self.facts[known, place] == 1)
            pairs.append(ranking.measures(self.draws[self.unit_owners[known]]))
        precision, area = (np.array(each) for each in zip(*pairs, strict=True))
        return precision, area

    @cached_property
    def psds(self) -> dict[str, PsdsResult]:
        """By setting; empty for clips, and without the library."""
        if self.kind == "clips" or not psds.available():
            return {}
        return psds.measure(self.stretches, self.owners, self.labels, self.draws)

    @cached_property
    def reliability(self) -> tuple[reliability.Reliability, Values]:
        """The reliability, and its three errors (1 + draws, 3)."""
        return reliability.measure_draws(self.scores, self.facts, self.unit_owners, self.classes, self.draws)

    @cached_property
    def measures(self) -> dict[str, Values]:
        """Each measure that exists by its name, (1 + draws,)."""
        found: dict[str, Values] = {}
        if self.classes:
            precision, area = self.ranked
            found |= {"mAP": _mean(precision), "mAUC": _mean(area)}
            found["d_prime"] = np.array([discriminability(value) for value in found["mAUC"].tolist()])
        found |= {name: each.values for name, each in self.psds.items()}
        if self.classes:
            names = ("calibration_error", "notable_calibration_error", "brier")
            found |= dict(zip(names, self.reliability[1].T, strict=True))
        return found

    @cached_property
    def alerts(self) -> dict[Threshold, AlertCounts]:
        """The events at each threshold."""
        count = len(self.draws)
        return {
            each: alerts.count(self.stretches, self.owners, count, each, self.kind, self.labels)
            for each in self.thresholds
        }


def _mean(values: Values) -> Values:
    """The mean over the labels of each draw, without those that have no value in it."""
    sure = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(sure, values, 0).sum(axis=0) / np.where(sure.any(axis=0), sure.sum(axis=0), np.nan))


def draws_of(stretches: Sequence[ScoredStretch], rounds: int) -> tuple[NDArray[np.intp], Draws]:
    """The recording of each stretch by number, and draws of the recordings."""
    names, owners = np.unique([one.stretch.recording for one in stretches], return_inverse=True)
    return owners, recording_draws(len(names), rounds)


def result(model: ModelMeasures) -> ModelResult:
    """One model's part of the result."""
    return ModelResult(
        name=model.name,
        sha256=model.sha256,
        measures={name: Interval.of(values) for name, values in model.measures.items()},
        labels=tuple(_label(model, place) for place in range(len(model.labels.labels)) if _is_listed(model, place)),
        alerts=tuple(_alerts(counts, each, model.draws) for each, counts in model.alerts.items()),
        bins=model.reliability[0].bins if model.classes else (),
        psds_curves={name: each.curve for name, each in model.psds.items()},
    )


def _is_listed(model: ModelMeasures, place: int) -> bool:
    """Labels with a truth, and labels with a false alarm."""
    return bool((model.facts[:, place] == 1).any()) or any(
        counts.true[:, place].any() or counts.false[:, place].any() for counts in model.alerts.values()
    )


def _label(model: ModelMeasures, place: int) -> LabelResult:
    label, facts = model.labels.labels[place], model.facts[:, place]
    precision = area = NO_INTERVAL
    if place in model.classes:
        row = model.classes.index(place)
        precision, area = (Interval.of(values[row]) for values in model.ranked)
    single = {name: each.by_label.get(place) for name, each in model.psds.items()}
    return LabelResult(
        mid=label.mid,
        name=label.name,
        recordings=len(np.unique(model.unit_owners[facts == 1])),
        present=int((facts == 1).sum()),
        absent=int((facts == 0).sum()),
        average_precision=precision,
        auc=area,
        d_prime=discriminability(area.value),
        psds1=single.get("psds1"),
        psds2=single.get("psds2"),
        alerts=tuple(
            LabelAlerts(each, *(int(part[:, place].sum()) for part in (counts.found, counts.true, counts.false)))
            for each, counts in model.alerts.items()
        ),
    )


def _alerts(counts: AlertCounts, threshold: Threshold, draws: Draws) -> AlertResult:
    hours = float(counts.seconds.sum()) / HOUR_S
    median, late = (Interval.of(_quantile(counts, draws, share)) for share in (0.5, 0.9))
    return AlertResult(
        threshold=threshold,
        found=int(counts.found.sum()),
        true=int(counts.true.sum()),
        found_share=Interval.of(_found_share(counts, draws)),
        false_alarms=int(counts.false.sum()),
        false_alarms_per_hour=rate(int(counts.false.sum()), hours),
        delay_median_s=median,
        delay_p90_s=late,
        flips_per_hour=2 * int(counts.events.sum()) / hours,
        raw_flips_per_hour=int(counts.crossings.sum()) / hours,
    )


def _found_share(counts: AlertCounts, draws: Draws) -> Values:
    found, true = (part.sum(axis=1) @ draws.astype(np.int64) for part in (counts.found, counts.true))
    return np.asarray(found / np.where(true > 0, true, np.nan))


def _false_rate(counts: AlertCounts, draws: Draws) -> Values:
    hours = counts.seconds @ draws / HOUR_S
    return np.asarray((counts.false.sum(axis=1) @ draws.astype(np.int64)) / np.where(hours > 0, hours, np.nan))


def _quantile(counts: AlertCounts, draws: Draws, share: float) -> Values:
    """(1 + draws,): the delay that this share of the delays does not exceed; NaN without a delay."""
    if not len(counts.delays_s):
        return np.full(draws.shape[1], np.nan)
    order = np.argsort(counts.delays_s)
    running = np.cumsum(draws[counts.delay_owners[order]].astype(np.int64), axis=0)  # (delays, 1 + draws)
    place = (running >= share * running[-1]).argmax(axis=0)
    return np.where(running[-1] > 0, counts.delays_s[order][place], np.nan)


def differences(first: ModelMeasures, second: ModelMeasures) -> Iterator[DifferenceResult]:
    """What the second model has more than the first, with paired intervals."""
    for name, values in first.measures.items():
        if name in second.measures:
            yield DifferenceResult(name, None, Interval.of(_difference(second.measures[name], values)))
    for threshold, counts in first.alerts.items():
        others = second.alerts[threshold]
        for name, measure in (("found_share", _found_share), ("false_alarms_per_hour", _false_rate)):
            values = _difference(measure(others, second.draws), measure(counts, first.draws))
            yield DifferenceResult(name, threshold, Interval.of(values))


def _difference(one: Values, other: Values) -> Values:
    with np.errstate(invalid="ignore"):  # both may be infinite
        return one - other
