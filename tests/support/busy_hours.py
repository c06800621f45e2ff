"""Two hours of a busy room, made of other people's recordings, and what measurements of `train fit --corrections` need.

`DATA` is a folder with `hours/hours.tsv` (file, kind), `sounds/sounds.tsv` (file, labels joined by `|`) and
`environmental/clips.csv` (file, class), each beside its sounds. The two hours share no recording.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from perceiverd.core.errors import MediaError
from perceiverd.core.labels import Label
from perceiverd.core.media import NS_PER_S, Chunk
from perceiverd.corrections import Verdict
from perceiverd.model.card import Card, load_card
from perceiverd.pipeline.windower import Window
from perceiverd.sources.decode import container
from perceiverd.training.corrections import output, windows
from perceiverd.training.corrections.learning import CLIP_HOP_S, CorrectionLearner, LearntClip, LearntRow, Ordinary
from perceiverd.training.corrections.replay import Classifier
from perceiverd.training.corrections.rows import Vectors
from perceiverd.training.corrections.windows import HOP_S, Embedder, Run
from perceiverd.training.distill import rehearsal

RATE_HZ = 16_000
HOUR = 3600 * RATE_HZ
LEVELS_DBFS = (-45.0, -22.0)
"""Each recording of an hour gets a level between these."""
FLOOR_DBFS = -60.0
"""Of the room's own noise."""
PAUSE_S = 8.0
"""Longest pause between two recordings."""
KINDS = (
    *("speech", "ambience", "music: light", "baby cry", "animals", "ringtones", "notification", "UI sounds"),
    *("desktop", "voice", "animals, steps", "rain", "ring tones", "engines, skids"),
)
TONES = ("ringtones", "notification", "UI", "desktop", "ring tones")
"""What a bell is most easily taken for: one recording in twelve."""
STRETCH = 120
"""Windows of background that are judged together: a minute."""
NOISES = 50

Sound = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Hour:
    """One hour of sound."""

    samples: NDArray[np.int16]
    vectors: Vectors
    """Of its windows, HOP_S apart."""

    def cut(self, samples: int, rng: np.random.Generator) -> Sound:
        """Some place in it, -1..1."""
        at = int(rng.integers(0, len(self.samples) - samples))
        return floats(self.samples[at : at + samples])


@dataclass(frozen=True, eq=False)
class Bench:
    """A model, an hour that it learns with, and an hour that it is measured on."""

    data: Path
    card: Card
    embedder: Embedder
    taught: Hour
    held: Hour
    learner: CorrectionLearner

    @classmethod
    def of(cls, data: Path, model: str) -> Bench:
        """Load the model and make both hours, which takes some minutes."""
        torch.set_num_threads(1)
        card = load_card(model)
        embedder = Embedder(card)
        taught, held = (_hour(data, card, embedder, which) for which in (0, 1))
        runs = [slice(at, min(at + STRETCH, len(taught.vectors))) for at in range(0, len(taught.vectors), STRETCH)]
        remembered = np.asarray(rehearsal.features(card, embedder.network).numpy(), np.float32)
        ordinary = Ordinary(taught.vectors, runs, HOP_S, remembered, tuple(card.geometry.vector_parts.values()))
        weight, bias = (each.detach().numpy() for each in (embedder.last.weight, embedder.last.bias))
        learner = CorrectionLearner(card.labels, card.calibration, weight, bias, ordinary)
        return cls(data, card, embedder, taught, held, learner)

    @property
    def old(self) -> Classifier:
        """The model as it is."""
        return output.corrected(self.card, self.embedder.last, self.card.labels, [])

    def corrected(self, labels: Sequence[Label], rows: Sequence[LearntRow]) -> Classifier:
        """The model with new rows."""
        return output.corrected(self.card, self.embedder.last, labels, rows)

    def sound(self, path: Path) -> Sound:
        """A file as the model hears it. Raises MediaError."""
        form = dataclasses.replace(self.card.geometry.media_format, video=None)
        return np.concatenate([each.samples for each in container.read(path, form) if isinstance(each, Chunk)])

    def windows(self, sound: Sound, hop_s: float = HOP_S) -> list[Window]:
        """All windows of a sound."""
        return list(_windows(sound, self.card.geometry.window_ns, hop_s))

    def vectors(self, sound: Sound) -> Vectors:
        """Of the windows of a sound, HOP_S apart."""
        return self.embedder.vectors(self.windows(sound))

    def clip(self, verdict: Verdict, label: Label, sound: Sound, shown: Sequence[Window], seed: int) -> LearntClip:
        """A correction with this sound; `shown` are the windows of its mark."""
        geometry = self.card.geometry.audio
        assert geometry is not None
        step = len(self.taught.samples) // NOISES
        noises = [
            floats(self.taught.samples[at : at + geometry.samples])
            for at in range(0, len(self.taught.samples) - step, step)
        ]
        examples = windows.variants(windows.audible(shown), noises, seed)
        context = self.embedder.vectors(self.windows(sound, CLIP_HOP_S))
        return LearntClip(verdict, label.mid, label.name, "stream", context, self.embedder.vectors(examples))

    def events(self, model: Classifier, vectors: Vectors) -> set[int]:
        """The labels that have an event."""
        return {each.label for each in model.events(vectors, HOP_S, self.card.geometry.window_ns)}

    def events_of_hour(self, model: Classifier, wanted: set[int]) -> int:
        """How many events of these labels the held-out hour has."""
        found = model.events(self.held.vectors, HOP_S, self.card.geometry.window_ns)
        return sum(each.label in wanted for each in found)


def table(path: Path) -> list[dict[str, str]]:
    """The rows of a .tsv or .csv file."""
    tabs = path.suffix == ".tsv"
    with path.open(encoding="utf-8", newline="") as file:
        if tabs:
            return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        return list(csv.DictReader(file))


def arguments(description: str | None) -> argparse.Namespace:
    """The command line of a measurement."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="ear-and-eye-small")
    return parser.parse_args()


def heading(bench: Bench) -> str:
    """Names the weights, and how busy the machine is."""
    weights = hashlib.sha256((bench.card.folder / "model.safetensors").read_bytes()).hexdigest()
    return f"{bench.card.name}, weights {weights[:8]}, load {os.getloadavg()[0]:.0f}"


def floats(samples: NDArray[np.int16]) -> Sound:
    """The same, -1..1."""
    return samples.astype(np.float32) / np.float32(32767)


def loudness(sound: Sound) -> float:
    """RMS, never 0."""
    return max(1e-6, float(np.sqrt((sound**2).mean())))


def _windows(sound: Sound, window_ns: int, hop_s: float) -> Iterator[Window]:
    length, hop = window_ns * RATE_HZ // NS_PER_S, round(hop_s * RATE_HZ)
    for at in range(0, len(sound) - length + 1, hop):
        start_ns = at * NS_PER_S // RATE_HZ
        yield Window(start_ns, start_ns + window_ns, sound[at : at + length], None)


def _hour(data: Path, card: Card, embedder: Embedder, which: int) -> Hour:
    samples = _room(data, card, which)
    found = Run("room", datetime.now(UTC), floats(samples))
    return Hour(samples, embedder.vectors(list(found.windows(card.geometry))))


def _room(data: Path, card: Card, which: int) -> NDArray[np.int16]:
    """Every second recording, one after the other at random levels, over quiet noise that falls by 3 dB an octave."""
    rng = np.random.default_rng(which)
    rows = [each for each in table(data / "hours/hours.tsv") if any(kind in each["kind"] for kind in KINDS)]
    rows = [each for each in rows if "weapons" not in each["kind"]][which::2]
    tones = [each for each in rows if any(kind in each["kind"] for kind in TONES)]
    form = dataclasses.replace(card.geometry.media_format, video=None)
    spectrum = np.fft.rfft(rng.normal(0, 1, HOUR))
    line = np.fft.irfft(spectrum / np.sqrt(np.arange(1, len(spectrum) + 1)), HOUR).astype(np.float32)
    line *= 10 ** (FLOOR_DBFS / 20) / line.std()
    order = rng.permutation(len(rows)).tolist()
    rng.shuffle(tones)
    at = count = 0
    while at < HOUR - 20 * RATE_HZ:
        row = rows[order[count % len(order)]] if count % 12 else tones[count // 12 % len(tones)]
        count += 1
        try:
            parts = [
                each.samples for each in container.read(data / "hours" / row["file"], form) if isinstance(each, Chunk)
            ]
        except MediaError:
            continue
        sound = np.concatenate(parts)
        sound *= 10 ** (rng.uniform(*LEVELS_DBFS) / 20) / loudness(sound)
        fits = min(len(sound), HOUR - at)
        line[at : at + fits] += sound[:fits]
        at += len(sound) + int(rng.uniform(0, PAUSE_S) * RATE_HZ)
    return (np.clip(line, -1, 1) * 32767).astype(np.int16)
