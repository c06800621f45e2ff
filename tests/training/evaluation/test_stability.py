"""Stability: each change does what its name says, and the windows are the daemon's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from perceiverd.core.errors import MediaError
from perceiverd.core.labels import ontology
from perceiverd.model.card import load_card
from perceiverd.pipeline.tagger import Tagger
from perceiverd.training.evaluation import stability
from perceiverd.training.evaluation.heldout import facts
from perceiverd.training.evaluation.heldout import read as read_heldout
from perceiverd.training.evaluation.stability import (
    ComparedModels,
    Recording,
    _moves,
    as_recorded,
    at_rate,
    changes,
    decode,
    jitter,
    later,
    level_deviation_db,
    loop,
    louder,
    read,
)
from tests.support.heldout_set import write

NAMES = ["Rain", "Dog"]


class MeanTeacher:
    """A teacher whose logits follow the mean of its input."""

    def __call__(self, mel: Tensor) -> tuple[np.ndarray, np.ndarray]:
        logits = mel.mean(dim=(1, 2))[:, None] + torch.linspace(-1, 1, 527)
        return logits.numpy(), np.zeros((len(mel), 1024), np.float32)


def tone(hz: float, rate_hz: int, seconds: float) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hz * np.arange(round(rate_hz * seconds)) / rate_hz)).astype(np.float32)


def recording(samples: np.ndarray, rate_hz: int, name: str = "r") -> Recording:
    (known,) = facts([["Rain"]], parents=False)
    return Recording(samples, rate_hz, 0, known, name)


@pytest.fixture(scope="module")
def listener(tiny_model: Path) -> ComparedModels:
    """A tiny model and a teacher with predictable logits."""
    return ComparedModels(Tagger(load_card(tiny_model)), MeanTeacher())  # type: ignore[arg-type]


def test_windows_are_those_of_the_sound(listener: ComparedModels) -> None:
    """At any sample rate, a tone of 440 Hz has 440 Hz in each window at the model's rate."""
    for rate_hz in (8_000, 16_000, 44_100):
        windows = listener.windows(tone(440, rate_hz, 2.0), rate_hz, 0.5)
        assert len(windows) == 4
        assert all(window.shape == (8_000,) for window in windows)
        assert np.abs(np.fft.rfft(windows[1])).argmax() * 2 == 440


def test_later_windows_start_later(listener: ComparedModels) -> None:
    """Windows that start 0.25 s later leave out the first 0.25 s of audio."""
    ramp = np.linspace(0, 1, 32_000, dtype=np.float32)
    first, late = (
        listener.windows(samples, rate_hz, 0.5, late_s)[0]
        for samples, rate_hz, late_s in (
            change(recording(ramp, 16_000)) for change in (as_recorded, partial(later, 0.25))
        )
    )
    assert first[0] == pytest.approx(0, abs=1e-4) and late[0] == pytest.approx(0.125, abs=1e-3)


def test_gain_is_in_decibels_and_clips() -> None:
    """A gain of -20 dB gives a tenth; samples beyond full scale are clipped."""
    samples, rate_hz, _ = louder(-20, recording(tone(440, 16_000, 0.1), 16_000))
    assert np.abs(samples).max() == pytest.approx(0.03, abs=1e-4) and rate_hz == 16_000
    assert np.abs(louder(20, recording(tone(440, 16_000, 0.1), 16_000))[0]).max() <= 1.00004


def test_another_rate_gives_another_number_of_samples() -> None:
    """A device of 8 kHz delivers half the samples."""
    samples, rate_hz, _ = at_rate(8_000, recording(tone(440, 16_000, 1.0), 16_000))
    assert (len(samples), rate_hz) == (8_000, 8_000)


def test_a_loop_has_no_seam() -> None:
    """Repeated noise has the same level at the seam as elsewhere, and lasts 30 s."""
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    looped = loop(noise, 16_000)
    assert len(looped) == 30 * 16_000
    assert level_deviation_db(looped, 16_000) < 1.0
    assert level_deviation_db(np.concatenate([noise, 0.01 * noise]), 16_000) > 10


def test_a_change_to_a_related_label_does_not_count() -> None:
    """From Dog to Bark and back counts as no change; to Rain and back counts as two."""
    at = {label.name: label.index for label in ontology().labels}
    scores = np.zeros((5, 527), np.float32)
    for row, name in zip(scores, ("Dog", "Bark", "Dog", "Rain", "Dog"), strict=True):
        row[at[name]] = 0.9
    mean, deviation, most, changes = _moves(scores)
    assert mean == pytest.approx(0.54) and most == pytest.approx(0.9) and changes == 4
    assert deviation == pytest.approx(np.std([0.9, 0, 0.9, 0, 0.9]))


def test_tables_have_a_row_for_each_change_and_sound(listener: ComparedModels, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each change and each steady sound has a row; the row without a change has a difference of 0."""
    monkeypatch.setattr(stability, "GAINS_DB", (-6,))
    monkeypatch.setattr(stability, "RATES_HZ", (8_000,))
    monkeypatch.setattr(stability, "LOOP_S", 3)
    rng = np.random.default_rng(0)
    both = [recording(rng.normal(0, 0.1, 48_000).astype(np.float32), 16_000, f"r{n}") for n in range(2)]
    text = list(changes(listener, both))
    assert [line.split(" | ")[0] for line in text[4:-1]] == ["| as recorded", "| -6 dB", "| 8 kHz", "| 0.25 s later"]
    assert text[4].startswith("| as recorded | 0.000 | 1.000 |")
    rows = [line for line in jitter(listener, both, NAMES) if line.startswith(("| Rain", "| mains", "| mean |"))]
    assert [row.split(" | ")[:2] for row in rows] == [["| Rain", "2"], ["| mains hum", "1"], ["| mean", "4"]]


def test_files_are_found_by_name(tmp_path: Path, wav: Callable[[float], Path]) -> None:
    """The folder is searched for the held-out clips' files; it is an error if none is there."""
    write(tmp_path, "validation")
    held = read_heldout(tmp_path, "validation")
    names = [label.name for label in ontology().labels]
    with pytest.raises(MediaError, match="has no file of the held-out clips"):
        read(held, tmp_path, names)
    wav(1.5).rename(tmp_path / "validation-4.wav")
    (one,) = read(held, tmp_path, names)
    assert (names[one.label], one.rate_hz, len(one.samples)) == ("Rain", 16_000, 24_000)
    assert decode(tmp_path / "validation-4.wav")[1] == 16_000
