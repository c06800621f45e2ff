"""Mixtures with the teacher's scores, in shards on disk: made once, read many times.

Each shard NNNNN holds 2,048 windows in five arrays. `tokens` are the output of the teacher's last convolution: a
student whose stem is the whole teacher need not compute it again. Each array is written under another name and then
renamed, the mel last. If NNNNN.mel.npy exists, the others do too, so a fit may read the folder while it grows.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from perceiverd.core.errors import MediaError
from perceiverd.core.logs import log_event
from perceiverd.model.encoding import log_mel
from perceiverd.training.data import processes
from perceiverd.training.data.corpus import Corpus
from perceiverd.training.data.mixtures import Mixtures
from perceiverd.training.teachers import yamnet
from perceiverd.training.teachers.folder import FileTeacher

logger = logging.getLogger("perceiverd.training")

SHARD = 2_048
"""Mixtures in a shard."""
BATCH = 64
MEL_OFFSET, MEL_STEPS = 7.0, 20.0
"""Stored log-mel: q = clip(round((log_mel + MEL_OFFSET) * MEL_STEPS), 0, 255), 0.05 a step from -7 to 5.75."""
OTHERS = "embedding"
"""The array of other teachers' embeddings, which a shard may have."""
PIECES = 8
"""A batch is drawn from at most this many shards, because reading from all would touch too many pages."""

Arrays = dict[str, NDArray[np.generic]]


def quantise(mel: torch.Tensor) -> torch.Tensor:
    """Log-mel as uint8."""
    return ((mel + MEL_OFFSET) * MEL_STEPS).round().clamp(0, 255).to(torch.uint8)


def dequantise(mel: torch.Tensor) -> torch.Tensor:
    """uint8 as log-mel, float32: what the teacher got, and what the student must get."""
    return mel.float() / MEL_STEPS - MEL_OFFSET


class TeacherOutputs:
    """Collects windows: their mel, and the teacher's logits and tokens for exactly that mel.

    Other teachers hear the same windows. The logits of a label are the mean of the teachers that know it, and the
    embeddings of the others lie side by side.
    """

    def __init__(self, teacher: yamnet.YamnetTeacher, others: Sequence[FileTeacher] = ()) -> None:
        self._teacher, self._others = teacher, others
        self._embedding: list[NDArray[np.float16]] = []
        self._mel: list[NDArray[np.uint8]] = []
        self._logits: list[NDArray[np.float16]] = []
        self._tokens: list[NDArray[np.float16]] = []

    def add(self, pcm: NDArray[np.float32]) -> None:
        """Add windows (B, 20480) within ±1."""
        with torch.inference_mode():
            mel = quantise(log_mel(torch.from_numpy(pcm)))
            logits, tokens = self._teacher(dequantise(mel))
        answers = [other.hear(pcm) for other in self._others]
        found = np.stack([logits, *(one.logits for one in answers if one.logits is not None)])
        known = ~np.isnan(found)
        total, count = np.where(known, found, 0).sum(axis=0), known.sum(axis=0)
        logits = np.where(count > 0, total / np.maximum(count, 1), np.nan)
        if embeddings := [one.embedding for one in answers if one.embedding is not None]:
            self._embedding.append(np.concatenate(embeddings, axis=1).astype(np.float16))
        self._mel.append(mel.numpy())
        self._logits.append(logits.astype(np.float16))
        self._tokens.append(tokens.astype(np.float16))

    def arrays(self) -> Arrays:
        """Everything that was added: teacher (N, 527), tokens (N, 8, 1024), mel (N, 128, 64); mel is the last key.

        `embedding` (N, E) too if another teacher has one.
        """
        own: Arrays = {OTHERS: np.concatenate(self._embedding)} if self._embedding else {}
        return {
            **own,
            "teacher": np.concatenate(self._logits),
            "tokens": np.concatenate(self._tokens),
            "mel": np.concatenate(self._mel),
        }


def build(
    corpus: Path, out: Path, *, wheel: Path, count: int, seed: int, threads: int, folders: Sequence[Path] = ()
) -> None:
    """Write the shards with mixtures 0 .. count - 1 that do not exist yet. `folders`: other teachers.

    Each process writes its own shards and uses one thread, so that no process waits for another.
    """
    Mixtures(Corpus(corpus), seed=seed, splits=frozenset({"train"}))  # reports a bad corpus before a process starts
    yamnet.read(wheel)
    for folder in folders:
        FileTeacher(folder)
    out.mkdir(parents=True, exist_ok=True)
    missing = [n for n in range(-(-count // SHARD)) if not (out / f"{n:05d}.mel.npy").exists()]
    processes.run(
        _work, [(corpus, out, wheel, seed, missing[part::threads], tuple(folders)) for part in range(threads)]
    )


def _work(corpus: Path, out: Path, wheel: Path, seed: int, numbers: list[int], folders: tuple[Path, ...]) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    teacher, others = yamnet.YamnetTeacher(wheel), [FileTeacher(folder) for folder in folders]
    endless = Mixtures(Corpus(corpus), seed=seed, splits=frozenset({"train"}))
    for number in numbers:
        start_s = time.monotonic()
        write_arrays(out, f"{number:05d}", shard(endless, teacher, number, others=others))
        log_shard(number, SHARD / (time.monotonic() - start_s))


def log_shard(number: int, windows_per_s: float) -> None:
    log_event(logger, logging.INFO, "shard-written", shard=f"{number:05d}", windows_per_s=f"{windows_per_s:.1f}")


def shard(
    endless: Mixtures,
    teacher: yamnet.YamnetTeacher,
    number: int,
    size: int = SHARD,
    others: Sequence[FileTeacher] = (),
) -> Arrays:
    """Arrays of the mixtures from number * size on: truth, class, teacher, tokens, mel."""
    outputs, truth, main = TeacherOutputs(teacher, others), [], []
    for start in range(number * size, (number + 1) * size, BATCH):
        batch = [endless[index] for index in range(start, min(start + BATCH, (number + 1) * size))]
        outputs.add(np.stack([one.pcm for one in batch]))
        truth += [one.truth for one in batch]
        main += [one.main for one in batch]
    return {"truth": np.stack(truth), "class": np.array(main, np.int16), **outputs.arrays()}


def write_arrays(folder: Path, stem: str, arrays: Mapping[str, NDArray[np.generic]]) -> None:
    """Write STEM.NAME.npy for each array, in order; the last one marks all as complete."""
    for name, array in arrays.items():
        hidden = folder / f".{stem}.{name}.npy"
        np.save(hidden, array)
        hidden.replace(folder / f"{stem}.{name}.npy")


class AudioShards:
    """The shards in one or more folders, as far as they exist."""

    FIELDS = ("mel", "teacher", "truth", "tokens", "class")

    def __init__(self, folders: Iterable[Path]) -> None:
        """Raises MediaError if the folders have no shard."""
        self._folders = tuple(folders)
        self._shards: dict[str, Arrays] = {}
        self.refresh()
        if not self._shards:
            names = ", ".join(map(str, self._folders))
            raise MediaError(f"{names}: has no shard of mixtures; make some with `perceiverd train pool`")

    @property
    def shape(self) -> tuple[int, int]:
        """(frames, bands) of a spectrogram."""
        frames, bands = next(iter(self._shards.values()))["mel"].shape[1:]
        return frames, bands

    @property
    def embedding(self) -> int:
        """Channels of the embeddings to imitate: the mean of the tokens, and those of other teachers."""
        shard = next(iter(self._shards.values()))
        return int(shard["tokens"].shape[2]) + (int(shard[OTHERS].shape[1]) if OTHERS in shard else 0)

    def refresh(self) -> int:
        """Find shards that were written since the last call; returns the number of windows."""
        for folder in self._folders:
            for path in sorted(folder.glob("[0-9]*.mel.npy")):
                number = path.name.split(".")[0]
                if (key := f"{folder}/{number}") not in self._shards:
                    fields = [field for field in (*self.FIELDS, OTHERS) if (folder / f"{number}.{field}.npy").exists()]
                    self._shards[key] = {
                        field: np.load(folder / f"{number}.{field}.npy", mmap_mode="r") for field in fields
                    }
        return sum(len(shard["mel"]) for shard in self._shards.values())

    def all(self) -> Iterator[Arrays]:
        """Every shard, in order."""
        yield from self._shards.values()

    def draw(self, rng: np.random.Generator, count: int) -> Arrays:
        """`count` random windows from a few shards."""
        names = list(self._shards)
        parts = []
        for piece in np.array_split(np.arange(count), min(PIECES, count)):
            shard = self._shards[names[rng.integers(len(names))]]
            rows = rng.integers(len(shard["mel"]), size=len(piece))
            parts.append({field: shard[field][rows] for field in shard})
        fields = [field for field in parts[0] if all(field in part for part in parts)]
        return {field: np.concatenate([part[field] for part in parts]) for field in fields}
