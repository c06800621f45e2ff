"""The polyphonic sound detection score (PSDS, Bilen et al. 2020), computed by the library sed_scores_eval.

Only for a manifest that is read as events. The two settings are those of DCASE's task 4: the first asks for the right
times, the second for the right labels. A window's score stands for the time around the window's middle.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceiverd.core.errors import PerceiverdError
from perceiverd.evaluation.metrics import Interval
from perceiverd.evaluation.scoring import ScoredStretch
from perceiverd.evaluation.truth import MeasuredLabels

SETTINGS: dict[str, dict[str, float]] = {
    "psds1": {"dtc_threshold": 0.7, "gtc_threshold": 0.7, "alpha_st": 1.0},
    "psds2": {"dtc_threshold": 0.1, "gtc_threshold": 0.1, "cttc_threshold": 0.3, "alpha_ct": 0.5, "alpha_st": 1.0},
}
"""DCASE 2021 to 2023, task 4: scenario 1 and scenario 2."""
MAX_EFPR = 100.0
"""False alarms per hour up to which the curve counts."""
MOST_DRAWS = 100
"""Each draw of a PSDS takes a tenth of a second or more."""
PIECE_S = 300.0
"""The library's memory grows with the square of a file's length, so longer ones are cut, between events if possible."""
PLACES = 6
"""Decimals of seconds to which times are rounded, so that frames meet exactly."""


@dataclass(frozen=True, eq=False)
class PsdsResult:
    """One setting."""

    values: NDArray[np.float64]
    """(1 + draws,): the score itself, then that of each draw; NaN for a draw that lacks every event of all labels."""
    by_label: dict[int, float]
    """The score of single labels by their place."""
    curve: tuple[tuple[float, float], ...]
    """False alarms per hour and the share of events that are found, less its deviation over the labels."""

    @property
    def interval(self) -> Interval:
        return Interval.of(self.values)


def available() -> bool:
    """Whether the library is installed."""
    from importlib.util import find_spec

    return find_spec("sed_scores_eval") is not None


def measure(
    stretches: Sequence[ScoredStretch], owners: NDArray[np.intp], labels: MeasuredLabels, draws: NDArray[np.integer]
) -> dict[str, PsdsResult]:
    """Both settings. `draws` (recordings, 1 + rounds) as `recording_draws` makes them; `owners` (stretches,).

    Empty if no label has an event. Raises PerceiverdError if the library is missing.
    """
    # The library imports Matplotlib, which logs on its first run that it looks for fonts. Nothing is drawn here.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    try:
        from sed_scores_eval.intersection_based import intermediate_statistics_deltas
    except ModuleNotFoundError as error:
        if error.name != "sed_scores_eval":
            raise
        raise PerceiverdError(f"PSDS needs an extra: pip install 'perceiverd[eval]' ({error})") from error
    places = sorted({int(label) for one in stretches for _, _, label in _joined(one)})
    if not places:
        return {}
    pieces = [(piece, owner) for one, owner in zip(stretches, owners, strict=True) for piece in _pieces(one)]
    owners = np.array([owner for _, owner in pieces])
    scores = {str(number): piece.frame(places) for number, (piece, _) in enumerate(pieces)}
    truth = {str(number): piece.events for number, (piece, _) in enumerate(pieces)}
    lengths = {str(number): piece.length_s for number, (piece, _) in enumerate(pieces)}
    out = {}
    for name, setting in SETTINGS.items():
        setting = setting if len(places) > 1 else _alone(setting)
        criteria = {key: value for key, value in setting.items() if key.endswith("_threshold")}
        deltas = intermediate_statistics_deltas(scores, truth, **criteria)
        out[name] = _result(_Material(deltas, truth, lengths), owners, setting, draws[:, : 1 + MOST_DRAWS])
    return out


@dataclass(frozen=True, eq=False)
class _Material:
    """What the library needs for a score, by the number of the stretch."""

    deltas: dict[str, Any]
    truth: dict[str, list[tuple[float, float, str]]]
    lengths: dict[str, float]

    def drawn(self, counts: NDArray[np.integer]) -> _Material | None:
        """The stretches as often as `counts` (stretches,) says, with the labels that have events; None without any."""
        names = [(f"{n}.{copy}", str(n)) for n in np.flatnonzero(counts) for copy in range(int(counts[n]))]
        truth = {new: self.truth[old] for new, old in names}
        kept = {label for events in truth.values() for _, _, label in events}
        if not kept:
            return None
        deltas = {new: _only(self.deltas[old], kept) for new, old in names}
        return _Material(deltas, truth, {new: self.lengths[old] for new, old in names})


def _only(deltas: dict[str, Any], kept: set[str]) -> dict[str, Any]:
    """The same for these labels alone."""
    out = {}
    for label, (scores, changes) in deltas.items():
        if label not in kept:
            continue
        # Cross triggers are a dictionary by label, or keys `cts\\LABEL`, as the library computed them.
        changes = {key: each for key, each in changes.items() if "\\" not in key or key.partition("\\")[2] in kept}
        if isinstance(crossed := changes.get("cts"), dict):
            changes["cts"] = {other: each for other, each in crossed.items() if other in kept}
        out[label] = (scores, changes)
    return out


def _result(
    material: _Material, owners: NDArray[np.intp], setting: dict[str, float], draws: NDArray[np.integer]
) -> PsdsResult:
    value, by_label, curve = _score(material, setting)
    values = [value]
    for draw in draws[:, 1:].T:
        drawn = material.drawn(draw[owners])
        values.append(_score(drawn, setting)[0] if drawn else np.nan)
    found, alarms = curve
    points = tuple(zip(alarms.tolist(), found.tolist(), strict=True))
    return PsdsResult(np.array(values), {int(label): float(each) for label, each in by_label.items()}, points)


def _score(material: _Material, setting: dict[str, float]) -> tuple[float, dict[str, float], Any]:
    from sed_scores_eval.intersection_based import psds

    if len(next(iter(material.deltas.values()))) == 1:
        setting = _alone(setting)
    value, by_label, curve, _ = psds(
        None, material.truth, material.lengths, deltas=material.deltas, max_efpr=MAX_EFPR, **setting
    )
    return float(value), by_label, curve


def _alone(setting: dict[str, float]) -> dict[str, float]:
    """The setting for a single label: without others there are no cross triggers, and the library fails on none."""
    return {key: value for key, value in setting.items() if key not in ("alpha_ct", "cttc_threshold")}


@dataclass(frozen=True, eq=False)
class _PsdsPiece:
    """A part of a stretch, with times from its own start."""

    edges_s: NDArray[np.float64]
    """(frames + 1,): where one frame ends and the next one begins."""
    scores: NDArray[np.float32]
    """(frames, labels)"""
    events: list[tuple[float, float, str]]
    """Start, end and the label's place as text."""

    @property
    def length_s(self) -> float:
        return float(self.edges_s[-1])

    def frame(self, places: Sequence[int]) -> Any:
        """The scores as the library wants them."""
        from sed_scores_eval.base_modules.scores import create_score_dataframe

        return create_score_dataframe(
            self.scores[:, places].astype(np.float64), self.edges_s, [str(place) for place in places]
        )


def _pieces(one: ScoredStretch) -> Iterator[_PsdsPiece]:
    """Frames that meet: each window stands for the time that is nearest to its middle."""
    middles = one.edges_s.mean(axis=1)
    inner = (middles[1:] + middles[:-1]) / 2
    edges = np.concatenate([[0.0], inner, [max(one.length_s, float(middles[-1]))]])
    events = _joined(one)
    first = 0
    while first < len(middles):
        last = _end_of_piece(edges, first, events)
        begin, end = float(edges[first]), float(edges[last])
        inside = [
            (round(max(start, begin) - begin, PLACES), round(min(stop, end) - begin, PLACES), label)
            for start, stop, label in events
            if start < end and stop > begin
        ]
        inside = [event for event in inside if event[0] < event[1]]
        yield _PsdsPiece(np.round(edges[first : last + 1] - begin, PLACES), one.scores[first:last], inside)
        first = last


def _end_of_piece(edges: NDArray[np.float64], first: int, events: Sequence[tuple[float, float, str]]) -> int:
    """The last edge of the piece that starts at this one: within PIECE_S, in no event if there is such an edge."""
    last = int(np.searchsorted(edges, edges[first] + PIECE_S, side="right")) - 1
    if last >= len(edges) - 1:
        return len(edges) - 1
    free = range(last, first, -1)
    return next(
        (at for at in free if not any(start < edges[at] < stop for start, stop, _ in events)), max(last, first + 1)
    )


def _joined(one: ScoredStretch) -> list[tuple[float, float, str]]:
    """The true events within the file. Those of one label that overlap are joined, as the library demands."""
    by_place: dict[int, list[tuple[float, float]]] = {}
    for event in sorted(one.stretch.events, key=lambda each: each.start_s):
        end_s = min(event.end_s, one.length_s)
        if event.start_s >= end_s:
            continue
        joined = by_place.setdefault(event.place, [])
        if joined and event.start_s <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end_s))
        else:
            joined.append((event.start_s, end_s))
    return [(start, end, str(place)) for place, spans in by_place.items() for start, end in spans]
