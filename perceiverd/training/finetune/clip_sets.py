"""The two sets of clips of a fit: labelled ones, and ones that have none of the new sounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from perceiverd.core.errors import MediaError
from perceiverd.evaluation.manifest import ManifestRow, log_faults
from perceiverd.training.finetune import clip_cache
from perceiverd.training.finetune.clip_cache import ClipCache
from perceiverd.training.finetune.sampling import ClipSampler, Vocabulary
from perceiverd.training.finetune.task import FitContext, FitTask

VIEWS = 16
"""Windows per clip from which labels are trained, if there are few clips."""


def samplers(context: FitContext, vocabulary: Vocabulary) -> tuple[ClipSampler, ClipSampler]:
    """Decode the clips of a task; give samplers of its labelled and of its unlabelled clips.

    Raises MediaError if more clips are unreadable than the settings allow.
    """
    task = context.task
    rows, places = _decoded(context, [*task.clips.rows, *task.unlabelled])
    labelled = [at for at, row in enumerate(rows) if row.labels]
    others = [at for at, row in enumerate(rows) if not row.labels for _ in range(_repeats(task, places, at))]
    labelled_clips, other_clips = (
        ClipSampler(
            [rows[at] for at in chosen],
            places and [places[at] for at in chosen],
            task.geometry,
            vocabulary,
            task.settings.augment,
            seed=task.seed + number,
            skip=task.settings.clips.skip,
        )
        for number, chosen in enumerate((labelled, others))
    )
    return labelled_clips, other_clips


def _decoded(context: FitContext, rows: Sequence[ManifestRow]) -> tuple[list[ManifestRow], list[Path] | None]:
    """The readable clips and their files in the cache; None if the settings keep no decoded clips."""
    task, processes = context.task, context.processes
    if not task.settings.clips.keep:
        return list(rows), None
    cache = ClipCache(task.cache, task.geometry)
    # Each process goes through all clips, from a different start: what one has decoded the others find.
    first = processes.rank * len(rows) // processes.size
    places: dict[ManifestRow, Path] = {}
    faults: dict[ManifestRow, MediaError] = {}
    with context.progress.stage("decoding"):
        for number, (row, found) in enumerate(cache.fill(rows, task.settings.clips.threads, first), 1):
            if isinstance(found, Path):
                places[row] = found
            else:
                faults[row] = found
            context.progress.update(number, number / len(rows), unreadable=len(faults))
    _check(context, faults, len(rows))
    kept = [row for row in rows if row in places]
    return kept, [places[row] for row in kept]


def _check(context: FitContext, faults: Mapping[ManifestRow, MediaError], count: int) -> None:
    """Log unreadable clips. Raises MediaError if there are too many."""
    task = context.task
    found = [
        f"{task.clips.path}: line {row.number}: {error}" if row.number else str(error)
        for row, error in sorted(faults.items(), key=lambda item: (item[0].number, item[0].file))
    ]
    skip = task.settings.clips.skip
    refused = len(found) > skip * count
    if refused and len(found) == 1:
        raise MediaError(found[0])
    if context.processes.rank == 0:
        log_faults(found)
    if refused:
        raise MediaError(f"{len(found)} of {count} clips cannot be read; --skip allows a share of {skip:g}")


def _repeats(task: FitTask, places: Sequence[Path] | None, at: int) -> int:
    """How often a clip without labels is listed, so that an hour of a room gives more windows than a short clip."""
    if places is None:
        return 1
    return max(1, clip_cache.load(places[at]).end_ns // (VIEWS * task.geometry.window_ns))
