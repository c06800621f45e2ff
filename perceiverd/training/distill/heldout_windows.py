"""Cuts the clips of held-out splits into windows, with the teacher's scores. Nothing is mixed or filtered."""

import csv
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perceiverd.core.errors import MediaError
from perceiverd.core.logs import log_event
from perceiverd.training.data.augment import WINDOW
from perceiverd.training.data.corpus import HOP, Clip, Corpus
from perceiverd.training.data.mixtures import SILENT_DB, everyday
from perceiverd.training.data.truth import Truth, TruthBuilder
from perceiverd.training.distill.audio_shards import BATCH, Arrays, TeacherOutputs, write_arrays
from perceiverd.training.teachers import yamnet

logger = logging.getLogger("perceiverd.training")

VALIDATION_HOP = 10_240
"""Samples from one window of a held-out clip to the next, 0.64 s."""

Row = tuple[int, int, float]
"""Number of the clip, first sample of the window, dB below the clip's loudest window."""


def build(corpus: Path, out: Path, *, wheel: Path, splits: Sequence[str] = ("validation", "test")) -> None:
    """Write the windows of each split, 0.64 s apart.

    SPLIT.{mel,teacher,tokens,truth,class}.npy have one row for each window, as shards have. SPLIT.clips.tsv has one
    line for each clip. SPLIT.windows.tsv has the clip's line, the start in samples, dB below the clip's loudest window,
    and whether that counts as silence. The truth is that of the whole clip, even in a silent window. Raises MediaError
    if the corpus has no clip of a split.
    """
    sounds = Corpus(corpus)
    held_out = {split: [clip for clip in sounds.clips if clip.split == split] for split in splits}
    for split, clips in held_out.items():
        if not clips:
            raise MediaError(f"{corpus}: has no clip of the split {split}; the recipe must hold some out")
    out.mkdir(parents=True, exist_ok=True)
    teacher, truths = yamnet.YamnetTeacher(wheel), TruthBuilder(everyday(sounds.clips))
    for split, clips in held_out.items():
        rows = [(at, start, below) for at, clip in enumerate(clips) for start, below in _windows(sounds, clip)]
        write_arrays(out, split, _arrays(sounds, clips, rows, teacher, truths))
        # The lists come after the arrays: if a reader finds the lists, it finds everything.
        _write_clips(out / f"{split}.clips.tsv", clips)
        _write_windows(out / f"{split}.windows.tsv", rows)
        log_event(logger, logging.INFO, "windows-written", split=split, clips=len(clips), windows=len(rows))


def _arrays(
    sounds: Corpus, clips: Sequence[Clip], rows: Sequence[Row], teacher: yamnet.YamnetTeacher, truths: TruthBuilder
) -> Arrays:
    outputs = TeacherOutputs(teacher)
    for first in range(0, len(rows), BATCH):
        outputs.add(np.stack([_window(sounds, clips[at], start) for at, start, _ in rows[first : first + BATCH]]))
    main = [truths.index[clip.labels[0]] if clip.labels else -1 for clip in clips]
    which = [at for at, _, _ in rows]
    truth = np.stack([_clip_truth(truths, clip) for clip in clips])
    return {"truth": truth[which], "class": np.array(main, np.int16)[which], **outputs.arrays()}


def _write_clips(path: Path, clips: Iterable[Clip]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerow(["source", "path", "recording", "labels", "samples", "licence"])
        table.writerows([c.source, c.path, c.recording, "|".join(c.labels), c.samples, c.licence] for c in clips)


def _write_windows(path: Path, rows: Iterable[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerow(["clip", "start", "below_db", "silent"])
        table.writerows([at, start, f"{below:.1f}", int(below > SILENT_DB)] for at, start, below in rows)


def _windows(sounds: Corpus, clip: Clip) -> list[tuple[int, float]]:
    """(start, dB below the clip's loudest window) of each window; a last one of less than 0.64 s is left out."""
    starts = list(range(0, max(clip.samples - VALIDATION_HOP, 1), VALIDATION_HOP))
    power = 10 ** (sounds.levels(clip) / 10.0)
    sums = [float(power[start // HOP : (start + WINDOW) // HOP].sum()) for start in starts]
    return [(start, 10 * float(np.log10(max(sums) / max(one, 1e-15)))) for start, one in zip(starts, sums, strict=True)]


def _window(sounds: Corpus, clip: Clip, start: int) -> NDArray[np.float32]:
    pcm = sounds.samples(clip)[start : start + WINDOW].astype(np.float32) / 32768
    return np.pad(pcm, (0, WINDOW - len(pcm)))


def _clip_truth(truths: TruthBuilder, clip: Clip) -> Truth:
    exclusive = clip.group == "environmental" and bool(clip.labels)
    return truths.of(clip.labels, (), exclusive)
