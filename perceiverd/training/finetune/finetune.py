"""Fit a model to labelled clips: rows of its last layer, the whole network, or a new network.

Rows: the network computes the vectors before its last layer once, and only the rows of the manifest's labels are
trained. All other scores stay the same to the bit. Whole network: first the rows (Kumar et al. 2022, "Fine-tuning can
distort pretrained features"), then all of it at a low rate. The old model's scores of the same windows are the targets
of labels that the manifest does not mention (Li & Hoiem 2016, "Learning without forgetting").
"""

from __future__ import annotations

import copy
import logging

import numpy as np
import torch
from torch import Tensor, nn

from perceiverd.core.errors import ConfigError
from perceiverd.core.logs import log_event
from perceiverd.model.card import Card
from perceiverd.model.checkpoint import load_network
from perceiverd.model.perceiver import Perceiver
from perceiverd.training.distill import rehearsal
from perceiverd.training.finetune.clip_sets import samplers
from perceiverd.training.finetune.learners import HeadLearner, HeadRows, NetworkLearner
from perceiverd.training.finetune.sampling import Vocabulary, batch_loader
from perceiverd.training.finetune.task import FitContext, FitTask
from perceiverd.training.finetune.vectors import vectors_of
from perceiverd.training.fitting import loop
from perceiverd.training.fitting.distributed import ProcessGroup
from perceiverd.training.fitting.loop import Budget, LoopState
from perceiverd.training.fitting.progress import progress_reporter

logger = logging.getLogger("perceiverd.training")

HEAD_SHARE = 0.1
"""Share of the minutes for the rows, before the whole network is trained."""


def fit(task: FitTask) -> Perceiver:
    """Fit; the network has its mean weights and is on the CPU. Raises PerceiverdError."""
    if not any(row.labels for row in task.clips.rows):
        raise ConfigError(f"{task.clips.path}: no clip has a label")
    if not task.resume and any(task.state_folder.glob("*.pt")):
        raise ConfigError(f"{task.state_folder}: has the state of a fit; continue with --resume, or delete the folder")
    processes = ProcessGroup.join(task.device)
    try:
        with progress_reporter(task.logs, silent=processes.rank > 0) as progress:
            network = FitRun(FitContext(task, processes, progress)).run()
    except (loop.StoppedError, loop.DivergedError):  # all processes raise these; after others `leave` would wait
        processes.leave()
        raise
    processes.leave()
    return network


class FitRun:
    """One fit: clips first, then stage after stage."""

    def __init__(self, context: FitContext) -> None:
        self._context, self._task, self._settings = context, context.task, context.settings
        task = self._task
        old = len(task.start.labels) if task.start else 0
        self._vocabulary = Vocabulary(task.labels, task.clips.mids, old=old)
        self._labelled, self._others = samplers(context, self._vocabulary)

    def run(self) -> Perceiver:
        """All stages; the network has its mean weights and is on the CPU."""
        task = self._task
        torch.manual_seed(task.seed)
        network, spent_s = self._with_fitted_head(task.start) if task.start else (self._new_network(), 0.0)
        if task.whole:
            self._fit_network(network, spent_s)
        return network.cpu().eval()

    def _new_network(self) -> Perceiver:
        geometry = self._task.geometry
        network = Perceiver(geometry.modalities, geometry.trunk, geometry.classes)
        with torch.no_grad():
            network.head.out.bias.copy_(self._prior())
        return network.to(self._task.device)

    def _prior(self) -> Tensor:
        """The logit of each label's share of the clips. As the first bias it saves the first thousand steps."""
        counts = np.zeros(len(self._task.labels))
        for row in self._labelled.rows:
            counts[self._vocabulary.present(row.labels)] += 1
        return torch.from_numpy(np.log((counts + 0.5) / (len(self._labelled) - counts + 0.5))).float()

    def _with_fitted_head(self, start: Card) -> tuple[Perceiver, float]:
        """The old network with trained rows of the manifest's labels, and the seconds spent on them."""
        network, last = rehearsal.headless(load_network(start).to(self._task.device))
        rows, spent_s = self._fit_head(network, last.to(self._task.device))
        network.head.out = rows.assembled()
        return network, spent_s

    def _fit_head(self, network: Perceiver, last: nn.Linear) -> tuple[HeadRows, float]:
        context, task, settings = self._context, self._task, self._settings
        rows = HeadRows(last, len(task.labels), self._vocabulary.taught, self._prior()).to(task.device)
        minutes = task.minutes * HEAD_SHARE if task.minutes and task.whole else task.minutes
        budget = Budget(_steps(settings.head_epochs, len(self._labelled), settings.batch), minutes)
        state = LoopState(task.state_folder / "labels.pt", task.fingerprint)
        network.eval().requires_grad_(False)
        vectors = vectors_of(context, network, rows, self._labelled, self._others)
        rows.standardise(torch.cat([vectors.vectors, vectors.rehearsed]))
        learner = HeadLearner(rows, vectors, settings, task.seed, context.processes)
        groups = loop.groups_of(rows.trained, settings, settings.head_rate / settings.rate)
        with context.progress.stage("labels"):
            spent_s = loop.run(
                learner, groups, settings, budget, state, context.processes, context.progress, device=task.device
            )
        return rows, spent_s

    def _fit_network(self, network: Perceiver, spent_s: float) -> None:
        """Train the whole network, after `spent_s` seconds of the budget."""
        context, task, settings, processes = self._context, self._task, self._settings, self._context.processes
        before = self._frozen_copy(network) if task.start else None
        network.train().requires_grad_(True)
        budget = Budget(_steps(settings.epochs, len(self._labelled), settings.batch), task.minutes)
        state = LoopState(task.state_folder / "all.pt", task.fingerprint)
        rehearsed = settings.batch if settings.rehearsal and task.start else 0
        parts = [(self._labelled, settings.batch), (self._others, rehearsed)]
        threads, groups = task.settings.clips.threads, loop.groups_of(network, settings, self._rate_share)
        with (
            context.progress.stage("all"),
            batch_loader(parts, seed=task.seed, rank=processes.rank, size=processes.size, threads=threads) as loader,
        ):
            learner = NetworkLearner(
                network,
                before,
                loader,
                settings,
                task.geometry,
                old=self._vocabulary.old,
                processes=processes.size,
                precision=context.precision,
            )
            loop.run(
                learner,
                groups,
                settings,
                budget,
                state,
                processes,
                context.progress,
                device=task.device,
                scaled=context.precision == torch.float16,
                earlier_s=spent_s,
            )
        if count := self._labelled.unreadable:
            log_event(logger, logging.WARNING, "clips-unreadable", count=count, clips=len(self._labelled))

    @property
    def _rate_share(self) -> float:
        return self._settings.old_rate if self._task.start else 1.0

    def _frozen_copy(self, network: Perceiver) -> Perceiver:
        """The network before training; its scores are the targets of labels that the manifest does not mention."""
        if not self._others:
            advice = "give --rehearse DIR with clips that have none of the new sounds"
            log_event(logger, logging.WARNING, "rehearsal-missing", advice=advice)
        return copy.deepcopy(network).requires_grad_(False).eval()


def _steps(epochs: float, clips: int, batch: int) -> int:
    return max(1, round(epochs * clips / batch))
