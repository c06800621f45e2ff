"""`train senses`: a model that begins as its teachers, with their classifiers fitted to what is known about windows.

A classifier reads one vector for each window, the mean of what its stem makes of it. The vectors are made once, so a
step costs a thousandth of a step of the whole network. The Perceiver above adds nothing yet: `train distil` teaches it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from perceiverd.core.errors import ConfigError
from perceiverd.core.logs import log_event
from perceiverd.model.geometry import Geometry
from perceiverd.model.perceiver import Perceiver
from perceiverd.model.senses import Sense, SensesHead
from perceiverd.training.distill.audio_shards import AudioShards
from perceiverd.training.distill.batches import audio_targets, video_targets
from perceiverd.training.distill.sense_levels import FairShare, lower
from perceiverd.training.distill.video_shards import VideoShards
from perceiverd.training.fitting.optim import rate_factor
from perceiverd.training.teachers.transfer import transfer

logger = logging.getLogger("perceiverd.training")

BATCH = 256
WARMUP = 0.05
KNOWN = 0.15
"""Above this share of windows in which a label is known, present or absent, it counts as well known."""
STAYS = {"audio": 0.05, "video": 0.3}
"""How much of the classifier as it was stays. The weights are averaged (Wortsman et al., "Robust fine-tuning of
zero-shot models", 2022). Sounds and pictures of unseen collections need the teacher more than held-out ones of the
collections that were learnt from. The more collections a fit has, the less of the teacher it needs."""
TOP, FAIR = {"audio": 10, "video": 5}, {"audio": 0.005, "video": 0.02}
LOWERED, LOWERED_IF_KNOWN, LOWERED_OF_VIDEO = 1.0, 0.35, 0.75
"""How strongly labels are lowered that come up too often, as `sense_levels.FairShare` says; for audio by whether the
label is well known. Chosen by the labels of whole collections that a fit lacked, and by everyday sounds."""
PROGRESS = 500
"""Steps between two log lines."""


@dataclass(frozen=True, eq=False)
class SenseWindows:
    """Windows as a classifier reads them."""

    pooled: Tensor
    """(N, channels): the mean of the stem's output."""
    targets: Tensor
    """(N, classes), 0..1."""
    weights: Tensor
    """(N, classes)"""
    known: Tensor
    """(classes,): the share of windows in which a label is known to be present or absent."""


@dataclass(frozen=True)
class SenseSteps:
    """How long and how fast a classifier learns."""

    epochs: float
    """How often it sees each window."""
    rate: float
    """Peak learning rate of Adam."""
    seed: int


def begun(geometry: Geometry, audio_wheel: Path, video_wheel: Path, seed: int) -> Perceiver:
    """A network of this geometry that gives its teachers' scores. Raises ConfigError if it has another head."""
    if geometry.trunk.head != "senses":
        raise ConfigError("geometry: trunk.head is not senses, so there is no classifier to fit")
    torch.manual_seed(seed)
    network = Perceiver(geometry.modalities, geometry.trunk, geometry.classes)
    transfer(network, audio_wheel=audio_wheel, video_wheel=video_wheel)
    return network


def audible(pools: Sequence[Path]) -> SenseWindows:
    """All windows of audio shards, with the truth over the teacher's scores."""
    pooled, targets, weights, known = [], [], [], []
    for shard in AudioShards(pools).all():
        pooled.append(torch.from_numpy(shard["tokens"].astype(np.float32).mean(axis=1)))
        teacher, truth = (torch.from_numpy(np.array(shard[name])) for name in ("teacher", "truth"))  # from the file
        target, weight = audio_targets(teacher.float(), truth)
        targets.append(target)
        weights.append(weight)
        known.append(truth >= 0)
    share = torch.cat(known).float().mean(dim=0)
    return SenseWindows(torch.cat(pooled), torch.cat(targets), torch.cat(weights), share)


def visible(views: Path) -> SenseWindows:
    """All windows of video shards."""
    shards = VideoShards(views)
    targets, weights = video_targets(torch.from_numpy(shards.targets.astype(np.float32)))
    known = torch.from_numpy((shards.targets == 0) | (shards.targets == 1)).float().mean(dim=0)
    return SenseWindows(torch.from_numpy(shards.pooled()), targets, weights, known)


def fair_share(name: str, known: Tensor) -> FairShare:
    """How often a label may come up in vain. `known` is as in `SenseWindows`."""
    if name == "video":
        return FairShare(TOP[name], FAIR[name], torch.full_like(known, LOWERED_OF_VIDEO))
    return FairShare(TOP[name], FAIR[name], torch.where(known > KNOWN, LOWERED_IF_KNOWN, LOWERED))


def draw_back(sense: Sense, start: Sense, share: float) -> None:
    """Average a classifier, in place, with the one that it began as; `share` is that one's part."""
    with torch.no_grad():
        for (name, own), first in zip(sense.named_parameters(), start.parameters(), strict=True):
            if name != "table":  # which does not learn
                own.lerp_(first, share)


def fit(sense: Sense, windows: SenseWindows, how: SenseSteps) -> tuple[float, float]:
    """Fit a classifier in place; returns the mean loss of the first and of the last steps."""
    steps = max(1, round(how.epochs * len(windows.pooled) / BATCH))
    learning = [parameter for name, parameter in sense.named_parameters() if name != "table"]
    optimiser = torch.optim.Adam(learning, lr=how.rate)
    losses = []
    for step, rows in enumerate(_rows(len(windows.pooled), steps, how.seed)):
        for group in optimiser.param_groups:
            group["lr"] = how.rate * rate_factor(step / steps, WARMUP)
        logits = sense(windows.pooled[rows])
        targets, weights = windows.targets[rows], windows.weights[rows]
        loss = F.binary_cross_entropy_with_logits(logits, targets, weights, reduction="sum") / BATCH
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
        if (step + 1) % PROGRESS == 0:
            log_event(
                logger, logging.INFO, "senses-progress", steps=step + 1, loss=f"{np.mean(losses[-PROGRESS:]):.3f}"
            )
    tenth = max(1, steps // 10)
    return float(np.mean(losses[:tenth])), float(np.mean(losses[-tenth:]))


def _rows(count: int, steps: int, seed: int) -> Iterator[Tensor]:
    """The windows of each step: every window once, in random order, then again."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(count, generator=generator)
    for _ in range(steps):
        while len(order) < BATCH:
            order = torch.cat([order, torch.randperm(count, generator=generator)])
        yield order[:BATCH]
        order = order[BATCH:]


def fit_all(network: Perceiver, pools: Sequence[Path], views: Path, how: SenseSteps, names: Sequence[str]) -> None:
    """Fit the classifiers of these modalities in place."""
    assert isinstance(network.head, SensesHead)
    for name in names:
        if name in network.head.senses:
            sense = network.head.senses[name]
            assert isinstance(sense, Sense)
            windows = audible(pools) if name == "audio" else visible(views)
            start = deepcopy(sense)
            first, last = fit(sense, windows, how)
            draw_back(sense, start, STAYS[name])
            lowered = lower(sense, windows.pooled, windows.targets == 1, fair_share(name, windows.known))
            log_event(
                logger,
                logging.INFO,
                "sense-fitted",
                sense=name,
                windows=len(windows.pooled),
                loss_before=f"{first:.3f}",
                loss_after=f"{last:.3f}",
                lowered=int((lowered > 0).sum()),
            )
