"""Steadiness: the changes are what they say, and the windows are the daemon's."""

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
    as_it_is,
    at_rate,
    changes,
    decode,
    jitter,
    later,
    loop,
    louder,
    read,
    unrest,
)
from tests.support.heldout_set import write

NAMES = ["Rain", "Dog"]


class Known:
    """A teacher that answers by the mean of what it hears."""

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
    """A tiny model beside a teacher that is easily foreseen."""
    return ComparedModels(Tagger(load_card(tiny_model)), Known())  # type: ignore[arg-type]


def test_windows_are_those_of_the_sound(listener: ComparedModels) -> None:
    """Whatever the rate, a tone of 440 Hz comes out as one at the model's rate, window after window."""
    for rate_hz in (8_000, 16_000, 44_100):
        windows = listener.windows(tone(440, rate_hz, 2.0), rate_hz, 0.5)
        assert len(windows) == 4
        assert all(window.shape == (8_000,) for window in windows)
        assert np.abs(np.fft.rfft(windows[1])).argmax() * 2 == 440


def test_later_windows_begin_later(listener: ComparedModels) -> None:
    """A quarter of a second late is a quarter of a second of sound left out."""
    ramp = np.linspace(0, 1, 32_000, dtype=np.float32)
    first, late = (
        listener.windows(samples, rate_hz, 0.5, late_s)[0]
        for samples, rate_hz, late_s in (change(recording(ramp, 16_000)) for change in (as_it_is, partial(later, 0.25)))
    )
    assert first[0] == pytest.approx(0, abs=1e-4) and late[0] == pytest.approx(0.125, abs=1e-3)


def test_gain_is_in_decibels_and_clips() -> None:
    """-20 dB is a tenth; too loud is cut off at full scale."""
    samples, rate_hz, _ = louder(-20, recording(tone(440, 16_000, 0.1), 16_000))
    assert np.abs(samples).max() == pytest.approx(0.03, abs=1e-4) and rate_hz == 16_000
    assert np.abs(louder(20, recording(tone(440, 16_000, 0.1), 16_000))[0]).max() <= 1.00004


def test_another_rate_is_another_number_of_samples() -> None:
    """A device of 8 kHz delivers half the samples."""
    samples, rate_hz, _ = at_rate(8_000, recording(tone(440, 16_000, 1.0), 16_000))
    assert (len(samples), rate_hz) == (8_000, 8_000)


def test_a_loop_has_no_seam() -> None:
    """Repeated noise is as loud at the seam as elsewhere, and 30 s long."""
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    looped = loop(noise, 16_000)
    assert len(looped) == 30 * 16_000
    assert unrest(looped, 16_000) < 1.0
    assert unrest(np.concatenate([noise, 0.01 * noise]), 16_000) > 10


def test_a_change_to_kin_is_none() -> None:
    """From Dog to Bark and back nothing has changed; to Rain and back are two changes."""
    at = {label.name: label.index for label in ontology().labels}
    scores = np.zeros((5, 527), np.float32)
    for row, name in zip(scores, ("Dog", "Bark", "Dog", "Rain", "Dog"), strict=True):
        row[at[name]] = 0.9
    mean, deviation, most, changes = _moves(scores)
    assert mean == pytest.approx(0.54) and most == pytest.approx(0.9) and changes == 4
    assert deviation == pytest.approx(np.std([0.9, 0, 0.9, 0, 0.9]))


def test_the_tables_are_made(listener: ComparedModels, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row a change, and one a steady sound; what is not changed does not move."""
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


def test_files_are_found_by_their_names(tmp_path: Path, wav: Callable[[float], Path]) -> None:
    """The held-out clips' files are looked up in the folder; without one of them it is told in a line."""
    write(tmp_path, "validation")
    held = read_heldout(tmp_path, "validation")
    names = [label.name for label in ontology().labels]
    with pytest.raises(MediaError, match="none of the held-out clips"):
        read(held, tmp_path, names)
    wav(1.5).rename(tmp_path / "validation-4.wav")
    (one,) = read(held, tmp_path, names)
    assert (names[one.label], one.rate_hz, len(one.samples)) == ("Rain", 16_000, 24_000)
    assert decode(tmp_path / "validation-4.wav")[1] == 16_000
