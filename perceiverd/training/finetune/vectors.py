"""The vectors before the last layer for all clips of a fit. They are made once and saved with the fit's state."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from perceiverd.model.perceiver import Perceiver
from perceiverd.training.distill import rehearsal
from perceiverd.training.finetune.clip_sets import VIEWS
from perceiverd.training.finetune.learners import HeadRows, NetworkInputs, VectorSet
from perceiverd.training.finetune.sampling import ClipSampler, batch_loader
from perceiverd.training.finetune.task import FitContext, FitTask
from perceiverd.training.fitting.optim import load, save

BATCH = 16
"""Windows that go through the network together. Fixed, because a vector's last bits depend on the batch size."""
VECTORS = 8_000
"""About this many vectors in all, if there are many clips."""


def vectors_of(
    context: FitContext, network: Perceiver, rows: HeadRows, labelled: ClipSampler, others: ClipSampler
) -> VectorSet:
    """The vectors of all views of all clips, from the fit's folder if they are there.

    `network`: without its last layer. The vectors of `others` and the model's rehearsal vectors go together.
    """
    task = context.task
    place = task.state_folder / "vectors.pt"
    views = task.settings.clips.views or max(1, min(VIEWS, VECTORS // (len(labelled) + len(others))))
    if saved := _saved(task, place, views):
        return saved
    with context.progress.stage("vectors"):
        clips = _vectors(context, network, rows, labelled, views)
        without = _vectors(context, network, rows, others, views)
    assert task.start
    remembered = rehearsal.features(task.start, network).to(task.device)
    vectors = torch.cat([without[0], remembered])
    targets = torch.cat([without[1], rows.scores_before(remembered)])
    found = VectorSet(views, *clips, vectors, targets)
    if context.processes.rank == 0:
        place.parent.mkdir(parents=True, exist_ok=True)
        kept = {name: getattr(found, name).cpu() for name in VectorSet.NAMES}
        save(place, {**kept, "fingerprint": task.fingerprint})
    return found


def _saved(task: FitTask, place: Path, views: int) -> VectorSet | None:
    found = load(place) if place.exists() else None
    if not found or found.get("fingerprint") != task.fingerprint:
        return None
    return VectorSet(views, *(found[name].to(task.device) for name in VectorSet.NAMES))


def _vectors(
    context: FitContext, network: Perceiver, rows: HeadRows, sampler: ClipSampler, views: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Vectors (N, width), targets and weights (N, rows) of every view of every clip, clip by clip.

    Each process makes a part; all get the whole.
    """
    task, processes, precision = context.task, context.processes, context.precision
    count, device, columns = len(sampler) * views, task.device, list(rows.places)
    vectors = torch.zeros(count, task.geometry.vector_width, device=device)
    targets, weights = (torch.zeros(count, len(columns), device=device) for _ in range(2))
    starts = list(range(0, count, BATCH))[processes.rank :: processes.size]
    threads = task.settings.clips.threads
    with batch_loader([], seed=0, rank=0, size=1, threads=threads) as loader, torch.inference_mode():
        for number, first in enumerate(starts, 1):
            samples = loader.map(sampler, [divmod(at, views) for at in range(first, min(first + BATCH, count))])
            part = slice(first, first + len(samples))
            batch = NetworkInputs.of(samples, task.geometry, device)
            with torch.autocast(device.type, precision, enabled=precision != torch.float32):
                vectors[part] = network(batch.contents, batch.present).float()
            known = batch.targets[:, columns]
            targets[part] = torch.where(known.isnan(), rows.scores_before(vectors[part]), known)
            weights[part] = batch.weights[:, columns]
            context.progress.update(first + len(samples), number / len(starts))
    return processes.total(vectors), processes.total(targets), processes.total(weights)
