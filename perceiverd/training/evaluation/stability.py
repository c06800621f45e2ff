"""How much scores change if the sound does not: by gain, by sample rate, by where windows start, on steady sounds.

Recordings are decoded at their own rate and go through the resampler and the windower of the daemon. The teacher gets
the same windows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import soxr
import torch
from numpy.typing import NDArray

from perceiverd.config import WindowConfig
from perceiverd.core.errors import MediaError
from perceiverd.core.labels import ontology
from perceiverd.core.media import NS_PER_S, Chunk
from perceiverd.evaluation.metrics import Facts, correlation, mean_precision, quartiles, ranks
from perceiverd.model.encoding import log_mel
from perceiverd.model.geometry import Audio
from perceiverd.pipeline.rules import related
from perceiverd.pipeline.tagger import Tagger
from perceiverd.pipeline.windower import Window, Windower
from perceiverd.sources.decode.audio import Resampler
from perceiverd.training.distill.audio_shards import dequantise, quantise
from perceiverd.training.evaluation.heldout import HeldOut
from perceiverd.training.evaluation.scores import sigmoid
from perceiverd.training.teachers import yamnet

GAINS_DB = (-30, -24, -18, -12, -6, 6)
RATES_HZ = (8_000, 11_025, 16_000, 22_050, 32_000, 44_100)
HOP_S = 0.5
PIECE_S = 0.02
STEADY = (
    "Rain", "Vacuum cleaner", "Engine", "Wind", "Waves, surf", "Helicopter", "Mechanisms", "Insect", "Cricket",
    "Toothbrush", "Fixed-wing aircraft, airplane", "Train",
)  # fmt: skip
"""Classes that have recordings that hardly change for seconds."""
EACH = 3
"""Recordings of each such class: the steadiest."""
MOST = 4
"""The most recordings of a class."""
LOOP_S, SEAM_S = 30, 0.25
BATCH = 32

Wave = NDArray[np.float32]
Scores = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Recording:
    """A held-out clip as it is in its file."""

    samples: Wave
    rate_hz: int
    label: int
    """The class that its name gives."""
    facts: Facts
    """(classes,)"""
    name: str
    """Of its recording."""


def read(held: HeldOut, folder: Path, labels: Sequence[str]) -> list[Recording]:
    """A clip of up to MOST recordings of each class, from files in a folder. Raises MediaError if none is there."""
    found: list[Recording] = []
    for path, names, facts, recording in zip(held.paths, held.labels, held.wide_facts, held.recordings, strict=True):
        file = folder / Path(path).name
        alike = [one.name for one in found if names and labels[one.label] == names[0]]
        if names and file.is_file() and recording not in alike and len(alike) < MOST:
            samples, rate_hz = decode(file)
            found.append(Recording(samples, rate_hz, labels.index(names[0]), facts, recording))
    if not found:
        raise MediaError(f"{folder}: has no file of the held-out clips")
    return found


def decode(file: Path) -> tuple[Wave, int]:
    """All audio of a file, mono, and its rate in Hz."""
    with av.open(file, metadata_errors="ignore") as container:
        stream = container.streams.audio[0]
        resampler = av.AudioResampler("flt", "mono", stream.rate)
        frames = [out for frame in container.decode(stream) for out in resampler.resample(frame)]
        return np.concatenate([frame.to_ndarray()[0] for frame in frames]).astype(np.float32), stream.rate


# ---------------------------------------------------------------------------------------------- both models
class ComparedModels:
    """A model and its teacher on the same windows."""

    def __init__(self, tagger: Tagger, teacher: yamnet.YamnetTeacher) -> None:
        self._tagger, self._teacher = tagger, teacher
        audio = tagger.card.geometry.audio
        assert audio is not None
        self.audio: Audio = audio

    def windows(self, samples: Wave, rate_hz: int, hop_s: float, late_s: float = 0.0) -> list[NDArray[np.float32]]:
        """The audio of each window that the daemon would cut, if the first window starts after `late_s` seconds."""
        resampler = Resampler(self.audio.rate_hz)
        size, skip = round(PIECE_S * rate_hz), round(late_s * rate_hz)
        chunks: list[Chunk] = []
        for at in range(skip, len(samples), size):
            chunks += resampler.feed(samples[at : at + size], rate_hz, at * NS_PER_S // rate_hz)
        chunks += resampler.flush()
        windower = Windower(self._tagger.card.geometry, round(hop_s * NS_PER_S), WindowConfig().tolerance)
        cut = [window for chunk in chunks for window in windower.push(chunk)] + windower.flush()
        return [window.audio for window in cut if window.audio is not None]

    def __call__(self, windows: Sequence[NDArray[np.float32]]) -> tuple[Scores, Scores]:
        """(T, classes) of the model, calibrated, and of the teacher, 0 for a label that it lacks."""
        own, others = [], []
        for at in range(0, len(windows), BATCH):
            part = windows[at : at + BATCH]
            own.append(self._tagger.tag([Window(0, 1, samples, None) for samples in part]))
            mel = dequantise(quantise(log_mel(torch.from_numpy(np.stack(part)))))
            others.append(np.nan_to_num(sigmoid(self._teacher(mel)[0])))
        return np.concatenate(own), np.concatenate(others)

    def clips(
        self, recordings: Sequence[Recording], change: Callable[[Recording], tuple[Wave, int, float]]
    ) -> MeanScores:
        """The mean scores of each recording's windows. `change` gives (samples, rate in Hz, seconds late)."""
        hop_s = self.audio.samples / self.audio.rate_hz
        cut = []
        for one in recordings:
            samples, rate_hz, late_s = change(one)
            cut.append(self.windows(samples, rate_hz, hop_s, late_s))
        own, other = self([window for windows in cut for window in windows])
        ends = np.cumsum([len(windows) for windows in cut])[:-1]
        means = [np.stack([part.mean(axis=0) for part in np.split(scores, ends)]) for scores in (own, other)]
        return MeanScores(*means)


@dataclass(frozen=True, eq=False)
class MeanScores:
    """Mean scores (recordings, classes)."""

    model: Scores
    teacher: Scores


# ---------------------------------------------------------------------------------------------- changes
def as_recorded(one: Recording) -> tuple[Wave, int, float]:
    return one.samples, one.rate_hz, 0.0


def louder(gain_db: float, one: Recording) -> tuple[Wave, int, float]:
    """Another gain at the microphone: samples beyond full scale are clipped, all are rounded to 16 bits."""
    wave = np.round(one.samples * 10 ** (gain_db / 20) * 32767).clip(-32768, 32767) / 32767
    return wave.astype(np.float32), one.rate_hz, 0.0


def at_rate(rate_hz: int, one: Recording) -> tuple[Wave, int, float]:
    """A device with another rate, whose filter passes all frequencies below half of that rate."""
    return soxr.resample(one.samples, one.rate_hz, rate_hz, quality="VHQ").astype(np.float32), rate_hz, 0.0


def later(late_s: float, one: Recording) -> tuple[Wave, int, float]:
    return one.samples, one.rate_hz, late_s


def changes(models: ComparedModels, recordings: Sequence[Recording]) -> Iterator[str]:
    """The table on gain, sample rate and start, as Markdown."""
    audio = models.audio
    facts = np.stack([one.facts for one in recordings])
    columns = sorted({one.label for one in recordings})
    usual = models.clips(recordings, as_recorded)
    kinds: list[tuple[str, Callable[[Recording], tuple[Wave, int, float]]]] = [("as recorded", as_recorded)]
    kinds += [(f"{gain_db:+d} dB", partial(louder, gain_db)) for gain_db in GAINS_DB]
    kinds += [(f"{rate_hz / 1000:g} kHz", partial(at_rate, rate_hz)) for rate_hz in RATES_HZ]
    kinds.append((f"{HOP_S / 2:g} s later", partial(later, HOP_S / 2)))
    yield (
        f"Stability: {len(recordings)} clips of {len({one.name for one in recordings})} held-out recordings,"
        f" {len(columns)} classes, windows of {audio.samples / audio.rate_hz:g} s without overlap"
    )
    yield ""
    yield (
        "| | change of the true label's score | rank correlation over the labels | mAP"
        " | teacher's change | teacher's rank correlation | teacher's mAP |"
    )
    yield "|---|--:|--:|--:|--:|--:|--:|"
    true = np.array([one.label for one in recordings])
    for name, change in kinds:
        found = usual if change is as_recorded else models.clips(recordings, change)
        cells = []
        for now, before in ((found.model, usual.model), (found.teacher, usual.teacher)):
            rows = np.arange(len(true))
            moved = float(np.abs(now[rows, true] - before[rows, true]).mean())
            same = float(np.nanmean(correlation(ranks(now), ranks(before))))
            cells.append(f"{moved:.3f} | {same:.3f} | {mean_precision(now, facts, columns):.3f}")
        yield f"| {name} | {' | '.join(cells)} |"
    yield ""


# ---------------------------------------------------------------------------------------------- jitter
def loop(samples: Wave, rate_hz: int) -> Wave:
    """A sound repeated for LOOP_S seconds. Each end fades into the next start."""
    seam = round(SEAM_S * rate_hz)
    rise = np.sin(np.linspace(0, np.pi / 2, seam, dtype=np.float32))
    turn = samples[:-seam].copy()
    turn[:seam] = turn[:seam] * rise + samples[-seam:] * rise[::-1]
    return np.resize(turn, LOOP_S * rate_hz)


def level_deviation_db(samples: Wave, rate_hz: int) -> float:
    """Standard deviation of a sound's level in dB, over blocks of 0.1 s."""
    size = rate_hz // 10
    power = np.square(samples[: len(samples) // size * size].reshape(-1, size)).mean(axis=1)
    return float(np.std(10 * np.log10(np.maximum(power, 1e-12)))) if len(power) else np.inf


def steady(recordings: Sequence[Recording], labels: Sequence[str]) -> list[tuple[str, Wave, int]]:
    """(class, looped sound, rate in Hz) of the steadiest recordings of each class, and of two generated sounds."""
    out: list[tuple[str, Wave, int]] = []
    for name in STEADY:
        whole = [one for one in recordings if labels[one.label] == name and len(one.samples) > 2 * one.rate_hz]
        steadiest = sorted(whole, key=lambda one: level_deviation_db(one.samples, one.rate_hz))[:EACH]
        out += [(name, loop(one.samples, one.rate_hz), one.rate_hz) for one in steadiest]
    t = np.arange(LOOP_S * 16_000) / 16_000
    chord = sum(np.sin(2 * np.pi * hz * n * t) / n**1.5 for hz in (110.0, 164.8, 220.0) for n in range(1, 8))
    hum = sum(np.sin(2 * np.pi * 50 * n * t) / n for n in (1, 2, 3, 5))
    made = (("a drone of three notes", chord), ("mains hum", hum))
    return out + [(name, (0.1 * np.asarray(wave)).astype(np.float32), 16_000) for name, wave in made]


def jitter(models: ComparedModels, recordings: Sequence[Recording], labels: Sequence[str]) -> Iterator[str]:
    """The table on steady sounds, as Markdown."""
    yield (
        f"Steady sounds in a loop, {LOOP_S} s each, hop {HOP_S:g} s: how the score of the label with the best"
        " mean score moves, and how often the best label changes to one that is neither above nor below it"
    )
    yield ""
    yield (
        "| sound | loops | mean score | standard deviation | largest step between windows | unrelated changes a minute"
        " | teacher's: mean | deviation | largest step | unrelated changes |"
    )
    yield "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    loops = steady(recordings, labels)
    rows = []
    for name in dict.fromkeys(name for name, _, _ in loops):
        both = [models(models.windows(wave, rate_hz, HOP_S)) for kind, wave, rate_hz in loops if kind == name]
        figures = np.array([[*_moves(own), *_moves(other)] for own, other in both])
        rows.append(figures.mean(axis=0))
        yield f"| {name} | {len(both)} | {_cells(rows[-1])} |"
    yield f"| mean | {len(loops)} | {_cells(np.mean(rows, axis=0))} |"
    yield ""
    spread = np.array(rows)
    yield f"Standard deviation over these sounds: {quartiles(spread[:, 1])}; the teacher's {quartiles(spread[:, 5])}."
    yield ""


def _moves(scores: Scores) -> tuple[float, float, float, float]:
    """Mean, deviation and largest step of the label with the best mean; changes a minute to an unrelated label."""
    best = scores[:, scores.mean(axis=0).argmax()]
    # A change from Dog to Bark does not count: a label above another has about the same score.
    is_related = related(ontology().labels)
    firsts = scores.argmax(axis=1)
    changes = sum(not is_related[a, b] for a, b in pairwise(firsts))
    return float(best.mean()), float(best.std()), float(np.abs(np.diff(best)).max()), changes / (LOOP_S / 60)


def _cells(figures: NDArray[np.float64]) -> str:
    return " | ".join(f"{value:.1f}" if place % 4 == 3 else f"{value:.3f}" for place, value in enumerate(figures))
