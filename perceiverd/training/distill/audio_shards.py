"""Mixtures with the teacher's opinion, in shards on disk: made once, seen many times.

Each shard NNNNN holds 2,048 windows in five arrays, written under another name and renamed, the mel
last, so that a fit may read the pool while it grows: where NNNNN.mel.npy exists, the others do.
"""

import csv
import logging
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from perceiverd.model.encoding import log_mel
from perceiverd.training.data import mixtures, processes
from perceiverd.training.data.augment import WINDOW
from perceiverd.training.data.corpus import HOP, Clip, Corpus
from perceiverd.training.data.mixtures import Mixtures
from perceiverd.training.data.truth import TruthBuilder
from perceiverd.training.teachers import yamnet

log = logging.getLogger(__name__)

SHARD = 2_048
"""Mixtures of a shard."""
BATCH = 64
MEL_OFFSET, MEL_STEPS = 7.0, 20.0
"""Cached log-mel: q = clip(round((log_mel + MEL_OFFSET) * MEL_STEPS), 0, 255), 0.05 a step from -7 to 5.75."""
VALIDATION_HOP = 10_240
"""Samples from one window of a held-out clip to the next, 0.64 s."""


def quantise(mel: torch.Tensor) -> torch.Tensor:
    """Log-mel as uint8."""
    return ((mel + MEL_OFFSET) * MEL_STEPS).round().clamp(0, 255).to(torch.uint8)


def dequantise(mel: torch.Tensor) -> torch.Tensor:
    """uint8 as log-mel, float32; what the teacher saw, and the student should."""
    return mel.float() / MEL_STEPS - MEL_OFFSET


class Seen:
    """Arrays of windows as they are collected: mel, and the teacher's answers to exactly that mel."""

    def __init__(self, teacher: yamnet.YamnetTeacher) -> None:
        self._teacher = teacher
        self._mel: list[NDArray[np.uint8]] = []
        self._logits: list[NDArray[np.float16]] = []
        self._embedding: list[NDArray[np.float16]] = []

    def add(self, pcm: NDArray[np.float32]) -> None:
        """(B, 20480) within ±1."""
        with torch.inference_mode():
            mel = quantise(log_mel(torch.from_numpy(pcm)))
            logits, embedding = self._teacher(dequantise(mel))
        self._mel.append(mel.numpy())
        self._logits.append(logits.astype(np.float16))
        self._embedding.append(embedding.astype(np.float16))

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        return {
            "teacher": np.concatenate(self._logits),
            "embedding": np.concatenate(self._embedding),
            "mel": np.concatenate(self._mel),
        }


def build(corpus: Path, out: Path, *, wheel: Path, first: int, count: int, seed: int, threads: int) -> None:
    """Write the shards that hold mixtures first .. first + count - 1 and aren't there yet.

    One process a thread, each with shards of its own: mixing and teaching in numpy and torch with one
    thread each lose nothing to waiting.
    """
    Mixtures(Corpus(corpus), seed=seed, splits=frozenset({"train"}))  # what is wrong is told before a process begins
    yamnet.read(wheel)
    out.mkdir(parents=True, exist_ok=True)
    numbers = range(first // SHARD, -(-(first + count) // SHARD))
    missing = [number for number in numbers if not (out / f"{number:05d}.mel.npy").exists()]
    arguments = [(corpus, out, wheel, seed, missing[part::threads]) for part in range(threads)]
    processes.run(_work, arguments)


def _work(corpus: Path, out: Path, wheel: Path, seed: int, numbers: list[int]) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    teacher = yamnet.YamnetTeacher(wheel)
    endless = Mixtures(Corpus(corpus), seed=seed, splits=frozenset({"train"}))
    for number in numbers:
        begun = time.monotonic()
        _write(out, f"{number:05d}", shard(endless, teacher, number))
        log.info("shard=%05d windows_per_s=%.1f", number, SHARD / (time.monotonic() - begun))


def shard(
    endless: Mixtures, teacher: yamnet.YamnetTeacher, number: int, size: int = SHARD
) -> dict[str, NDArray[np.generic]]:
    """Arrays of mixtures number * size ...: mel, teacher, embedding, truth, class."""
    seen, truth, main = Seen(teacher), [], []
    for start in range(number * size, (number + 1) * size, BATCH):
        batch = [endless[index] for index in range(start, min(start + BATCH, (number + 1) * size))]
        seen.add(np.stack([one.pcm for one in batch]))
        truth += [one.truth for one in batch]
        main += [one.main for one in batch]
    # mel is written last: it marks the shard as whole.
    return {"truth": np.stack(truth), "class": np.array(main, np.int16), **seen.arrays()}


def _write(folder: Path, stem: str, arrays: dict[str, NDArray[np.generic]]) -> None:
    for name, array in arrays.items():
        hidden = folder / f".{stem}.{name}.npy"
        np.save(hidden, array)
        hidden.replace(folder / f"{stem}.{name}.npy")


def validation(corpus: Path, out: Path, *, wheel: Path, splits: tuple[str, ...] = ("validation", "test")) -> None:
    """Every window, 0.64 s apart, of the clips of held-out splits, nothing mixed or filtered.

    Writes SPLIT.{mel,teacher,embedding,truth,class}.npy with a row a window, as in the pool;
    SPLIT.clips.tsv with a line a clip; SPLIT.windows.tsv with the clip's line, the start in samples, dB
    below the clip's loudest window, and whether that counts as silence. Truth is the whole clip's, even
    in a silent window.
    """
    out.mkdir(parents=True, exist_ok=True)
    sounds, teacher = Corpus(corpus), yamnet.YamnetTeacher(wheel)
    truth_of = TruthBuilder(mixtures.everyday(sounds.clips))
    for split in splits:
        clips = [clip for clip in sounds.clips if clip.split == split]
        rows = [(at, start, below) for at, clip in enumerate(clips) for start, below in _windows(sounds, clip)]
        seen = Seen(teacher)
        for first in range(0, len(rows), BATCH):
            batch = [_window(sounds, clips[at], start) for at, start, _ in rows[first : first + BATCH]]
            seen.add(np.stack(batch))
        truth = [_clip_truth(truth_of, clip) for clip in clips]
        main = [truth_of.index[clip.labels[0]] if clip.labels else -1 for clip in clips]
        which = [at for at, _, _ in rows]
        more: dict[str, NDArray[np.generic]] = {
            "truth": np.stack(truth)[which],
            "class": np.array(main, np.int16)[which],
        }
        _write(out, split, {**more, **seen.arrays()})
        # The lists come after the arrays: who finds them finds all.
        with (out / f"{split}.clips.tsv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, delimiter="\t", lineterminator="\n")
            table.writerow(["source", "path", "recording", "labels", "samples", "licence"])
            table.writerows(
                [clip.source, clip.path, clip.recording, "|".join(clip.labels), clip.samples, clip.licence]
                for clip in clips
            )
        with (out / f"{split}.windows.tsv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, delimiter="\t", lineterminator="\n")
            table.writerow(["clip", "start", "below_db", "silent"])
            table.writerows([at, start, f"{below:.1f}", int(below > mixtures.SILENT_DB)] for at, start, below in rows)
        log.info("split=%s clips=%d windows=%d", split, len(clips), len(rows))


def _windows(sounds: Corpus, clip: Clip) -> list[tuple[int, float]]:
    """(start, dB below the clip's loudest window) of each window; a last one of less than 0.64 s is left out."""
    starts = list(range(0, max(clip.samples - VALIDATION_HOP, 1), VALIDATION_HOP))
    power = 10 ** (sounds.levels(clip) / 10.0)
    sums = [float(power[start // HOP : (start + WINDOW) // HOP].sum()) for start in starts]
    return [(start, 10 * float(np.log10(max(sums) / max(one, 1e-15)))) for start, one in zip(starts, sums, strict=True)]


def _window(sounds: Corpus, clip: Clip, start: int) -> NDArray[np.float32]:
    pcm = sounds.samples(clip)[start : start + WINDOW].astype(np.float32) / 32768
    return np.pad(pcm, (0, WINDOW - len(pcm)))


def _clip_truth(truth_of: TruthBuilder, clip: Clip) -> NDArray[np.int8]:
    exclusive = clip.group == "environmental" and bool(clip.labels)
    return truth_of.of(clip.labels, (), exclusive)
