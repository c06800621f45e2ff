"""A corpus of seven short clips of noise, written without decoding anything."""

import csv
from pathlib import Path

import numpy as np

from perceiverd.training.data.corpus import HOP, RATE_HZ, Clip, Corpus


def clip(index: int, path: str, labels: tuple[str, ...], group: str) -> Clip:
    return Clip(
        offset=index * 5 * RATE_HZ // HOP * HOP,
        samples=3 * RATE_HZ,
        source=group,
        path=path,
        recording=f"{group}:{index}",
        split="train",
        group=group,
        labels=labels,
        licence="x",
        sha256="0",
    )


CLIPS = [
    clip(0, "1/Dog/Dog/a", ("Dog", "Bark"), "environmental"),
    clip(1, "1/Rain/Rain/b", ("Rain",), "environmental"),
    clip(2, "1/Cat/Cat/c", ("Cat",), "environmental"),
    clip(3, "drum.wav", ("Snare drum",), "extra"),
    clip(4, "talk.wav", ("Speech",), "extra"),
    clip(5, "song.wav", ("Music",), "extra"),
    clip(6, "noise.wav", (), "extra"),
]


def small_corpus(folder: Path) -> Corpus:
    """CLIPS, all of noise; the first is digital silence after its first second."""
    rng = np.random.default_rng(0)
    length = (CLIPS[-1].offset + 5 * RATE_HZ) // HOP * HOP
    pcm = rng.integers(-3000, 3000, length).astype(np.int16)
    pcm[RATE_HZ // HOP * HOP : CLIPS[0].samples] = 0
    pcm.tofile(folder / "pcm.i16")
    power = np.mean((pcm.reshape(-1, HOP) / 32768.0) ** 2, axis=1)
    level = np.where(power > 0, 10 * np.log10(np.maximum(power, 1e-12)), -128)
    level.round().astype(np.int8).tofile(folder / "level.i8")
    with (folder / "index.tsv").open("w", newline="") as file:
        table = csv.writer(file, delimiter="\t")
        table.writerow(Clip.__dataclass_fields__)
        for one in CLIPS:
            table.writerow(["|".join(value) if name == "labels" else value for name, value in vars(one).items()])
    built = Corpus(folder)
    assert built.clips == CLIPS
    return built
