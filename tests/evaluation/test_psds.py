"""PSDS equals what the library gives for frames and events that are built here by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from sed_scores_eval.base_modules.scores import create_score_dataframe
from sed_scores_eval.intersection_based import psds as library

from perceiverd.core.labels import ontology
from perceiverd.evaluation import psds
from perceiverd.evaluation.manifest import Manifest, ManifestRow
from perceiverd.evaluation.ranking import recording_draws
from perceiverd.evaluation.scoring import ScoredStretch
from perceiverd.evaluation.truth import MeasuredLabels, measured_labels, stretches

MIDS = ("/m/0bt9lr", "/m/09x0r", "/m/03k3r")
HOP_S, WINDOW_S, WINDOWS, FILES = 0.5, 1.28, 37, 11
LENGTH_S = (WINDOWS - 1) * HOP_S + WINDOW_S

Spans = Sequence[tuple[float, float, int]]


def scored(events: Sequence[Spans], windows: int = WINDOWS) -> tuple[list[ScoredStretch], MeasuredLabels]:
    """Files with these events (start, end, place), and scores that follow them with noise."""
    rng = np.random.default_rng(3)
    every = ManifestRow(1, Path("x"), 0, 1, MIDS)
    labels = measured_labels(Manifest(Path("m"), (every,), ()), [ontology().labels])
    edges = np.stack([np.arange(windows) * HOP_S, np.arange(windows) * HOP_S + WINDOW_S], axis=1)
    out = []
    for number, own in enumerate(events):
        rows = [
            ManifestRow(at, Path(str(number)), start, end, (MIDS[place],)) for at, (start, end, place) in enumerate(own)
        ]
        rows = rows or [ManifestRow(0, Path(str(number)), 0, None, ())]
        (stretch,) = stretches(Manifest(Path("m"), tuple(rows), ()), "events", labels)[Path(str(number))]
        scores = rng.random((windows, len(MIDS))) * 0.6
        for start, end, place in own:
            scores[(edges.mean(axis=1) > start) & (edges.mean(axis=1) < end), place] += 0.35
        out.append(ScoredStretch(stretch, float(edges[-1, 1]), edges, scores.astype(np.float32), {}, {}))
    return out, labels


EVENTS: list[Spans] = [
    [(1.1 + n, 4.3 + n, n % 3), (9.0, 9.0 + 0.7 * (n + 1), (n + 1) % 3)] if n % 4 else [] for n in range(FILES)
]


@pytest.mark.parametrize("name", psds.SETTINGS)
def test_scores_equal_those_of_the_library(name: str) -> None:
    """The score, each label's score and the score of a draw are the library's own for the same frames."""
    found, labels = scored(EVENTS)
    owners = np.arange(FILES)
    draws = recording_draws(FILES, 3)
    ours = psds.measure(found, owners, labels, draws)[name]
    middles = np.arange(WINDOWS) * HOP_S + WINDOW_S / 2
    edges = np.round(np.concatenate([[0], (middles[1:] + middles[:-1]) / 2, [LENGTH_S]]), 6)
    for draw in range(4):
        copies = [(n, f"{n}-{copy}") for n in range(FILES) for copy in range(int(draws[n, draw]))]
        kept = sorted({place for n, _ in copies for _, _, place in EVENTS[n]})
        names = [str(place) for place in kept]
        frames = {
            key: create_score_dataframe(found[n].scores[:, kept].astype(float), edges, names) for n, key in copies
        }
        truth = {key: [(start, end, str(place)) for start, end, place in EVENTS[n]] for n, key in copies}
        lengths = {key: LENGTH_S for _, key in copies}
        value, single, *_ = library(frames, truth, lengths, max_efpr=100.0, **psds.SETTINGS[name])
        assert ours.values[draw] == pytest.approx(value)
        if draw == 0:
            assert ours.by_label == pytest.approx({int(label): each for label, each in single.items()})
            assert 0 < value <= 1


def test_a_draw_may_leave_a_single_label() -> None:
    """Cross triggers need a second label; a draw without it is measured without them, and so is a single label."""
    found, labels = scored([[(1, 4, 0)], [(1, 4, 1)], [(2, 6, 0)]])
    draws = np.array([[1, 2], [1, 0], [1, 1]], np.uint16)
    values = psds.measure(found, np.arange(3), labels, draws)["psds2"].values
    alone = psds.measure([found[0], found[0], found[2]], np.arange(3), labels, np.ones((3, 1), np.uint16))
    assert values[1] == pytest.approx(alone["psds2"].values[0])


def test_long_files_are_cut_between_events() -> None:
    """Pieces are at most five minutes, no event is cut, and together they have every frame once."""
    (one,), _ = scored([[(250, 320, 0), (700, 705, 1)]], windows=1801)
    pieces = list(psds._pieces(one))
    assert [piece.length_s <= psds.PIECE_S for piece in pieces] == [True] * len(pieces)
    assert sum(len(piece.scores) for piece in pieces) == 1801
    assert sum(piece.length_s for piece in pieces) == pytest.approx(one.length_s)
    spans = [(round(end - start, 6), label) for piece in pieces for start, end, label in piece.events]
    assert spans == [(70, "0"), (5, "1")]


def test_overlapping_events_of_a_label_are_one() -> None:
    """The library allows no overlap within a label; events beyond the file's end are cut or left out."""
    (one,), _ = scored([[(2, 5, 0), (4, 8, 0), (15, 99, 1), (70, 80, 2)]])
    assert psds._joined(one) == [(2, 8, "0"), (15, one.length_s, "1")]


def test_files_without_events_have_no_score() -> None:
    """Without any event there is nothing to measure."""
    found, labels = scored([[], []])
    assert psds.measure(found, np.arange(2), labels, recording_draws(2, 3)) == {}
