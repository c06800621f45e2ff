"""Fits a Perceiver to the pool: budgeted in minutes, resumable, told in one line every so often.

The learning rate follows the share of the budget that is spent, so that a fit ends well whenever it ends. Under
`torchrun` every process takes its own batches, and all take the same step: the mean of their gradients.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perceiverd.attention import CrossAttend
from perceiverd.geometry import Geometry
from perceiverd.perceiver import Perceiver
from perceiverd.training.batches import Batch, Batches
from perceiverd.training.crew import Crew
from perceiverd.training.optimiser import RunningMean, decays, rate, save

log = logging.getLogger(__name__)

STATE_FILE = "state.pt"
NOTHING: Mapping[str, int] = MappingProxyType({})
EMBEDDING = 1024  # channels of the sound teacher's embedding


@dataclass(frozen=True)
class Plan:
    """How to fit."""

    minutes: float
    """The whole budget, over all resumptions."""
    batch: int = 32
    rate: float = 1.5e-3
    """Peak learning rate."""
    warmup: float = 0.03
    """Share of the budget over which the rate rises."""
    decay: float = 0.05
    """Weight decay of matrices."""
    average: float = 0.999
    """Decay of the weights' running mean, which is what is kept; ramped up from the first steps."""
    embedding: float = 5.0
    """Weight of imitating the teacher's embedding."""
    clip: float = 1.0
    """Largest norm of a gradient."""
    stem_rate: float = 0.1
    """Learning rate of adopted stems over that of the rest."""
    seed: int = 1
    save_every_s: float = 120.0


class Student(nn.Module):
    """The Perceiver, and a head that imitates the teacher's embedding and is thrown away afterwards."""

    def __init__(self, geometry: Geometry, frozen: Mapping[str, int] = NOTHING) -> None:
        """`frozen`: for each adopted stem, the layers that do not learn; the others learn slowly."""
        super().__init__()
        self.adopted = tuple(frozen)
        self.perceiver = Perceiver(geometry.modalities, geometry.trunk, geometry.classes)
        # Most labels are absent from most windows; starting there saves the first hundred steps.
        nn.init.constant_(self.perceiver.head.out.bias, -6.0)
        # At first all latents read nearly the mean of the byte array, and so the same. Twice the queries spread the
        # scores over tokens to a sigma of 1.3, so that each head begins with tokens of its own.
        for cross in self.perceiver.crosses:
            assert isinstance(cross, CrossAttend)
            with torch.no_grad():
                cross.attention.query.weight *= 2
        self.imitate = nn.Linear(geometry.trunk.width, EMBEDDING)
        for name, layers in frozen.items():
            for layer in self.perceiver.bytes.stems[name].layers[:layers]:  # type: ignore[index]
                layer.requires_grad_(False)

    def forward(self, contents: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Logits (B, classes) and embedding (B, 1024)."""
        latents = self.perceiver.encode(contents)
        return self.perceiver.head(latents), self.imitate(latents.mean(dim=1))


def loss_of(student: nn.Module, batch: Batch, plan: Plan, *, half: bool) -> tuple[Tensor, float]:
    """(loss, its label part): cross-entropy summed over labels, plus the embedding's squared distance."""
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        logits, embedding = student(batch.contents)
    entropy = F.binary_cross_entropy_with_logits(logits.float(), batch.targets, batch.weights, reduction="none")
    labels = entropy.sum(dim=1).mean()
    if batch.embedding is None or not plan.embedding:
        return labels, float(labels.detach())
    return labels + plan.embedding * F.mse_loss(embedding.float(), batch.embedding), float(labels.detach())


def fit(student: Student, batches: Batches, out: Path, plan: Plan, *, threads: int = 1, half: bool = True) -> Perceiver:
    """Fit until the budget is spent, going on from `out/state.pt` where there is one; returns the mean weights."""
    torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    mean = RunningMean(student, plan.average)
    optimiser = torch.optim.AdamW(_groups(student, plan), lr=plan.rate, betas=(0.9, 0.98))
    step, spent_s = 0, 0.0
    if (out / STATE_FILE).exists():
        state = torch.load(out / STATE_FILE, weights_only=True)
        student.load_state_dict(state["student"])
        optimiser.load_state_dict(state["optimiser"])
        mean.weights, step, spent_s = state["mean"], state["step"], state["spent_s"]
        log.info("resumed step=%d spent_min=%.1f", step, spent_s / 60)

    crew = Crew.join()
    budget_s, begun_s, saved_s = plan.minutes * 60, time.monotonic() - spent_s, time.monotonic()
    recent: dict[str, list[float]] = {}
    stream: Iterator[Batch] = batches(step, crew.rank, crew.size)
    while spent_s < budget_s:
        batch = next(stream)
        loss, labels = loss_of(student, batch, plan, half=half)
        optimiser.zero_grad()
        loss.backward()
        spent_s = crew.average(student, time.monotonic() - begun_s)
        for group in optimiser.param_groups:
            group["lr"] = plan.rate * group["share"] * rate(spent_s / budget_s, plan.warmup)
        nn.utils.clip_grad_norm_(student.parameters(), plan.clip)
        optimiser.step()
        step += crew.size
        mean.update(student, step)
        recent.setdefault(batch.kind, []).append(labels)
        if crew.rank == 0 and time.monotonic() - saved_s > plan.save_every_s:
            saved_s = time.monotonic()
            _save(out, student, optimiser, mean.weights, step, spent_s)
            told = " ".join(f"{kind}={np.mean(values):.3f}" for kind, values in sorted(recent.items()))
            log.info("batches=%d spent_min=%.1f windows=%d loss: %s", step, spent_s / 60, step * plan.batch, told)
            recent.clear()
    if crew.rank == 0:
        _save(out, student, optimiser, mean.weights, step, spent_s)
    crew.leave()
    student.load_state_dict(mean.weights)
    return student.perceiver.eval()


def _groups(student: Student, plan: Plan) -> list[dict[str, object]]:
    """Adopted stems learn slowly."""
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in student.named_parameters():
        if parameter.requires_grad:
            decay = plan.decay if decays(name, parameter) else 0.0
            slow = any(name.startswith(f"perceiver.bytes.stems.{stem}.layers") for stem in student.adopted)
            groups.setdefault((decay, plan.stem_rate if slow else 1.0), []).append(parameter)
    return [{"params": found, "weight_decay": decay, "share": share} for (decay, share), found in groups.items()]


def _save(
    out: Path, student: nn.Module, optimiser: torch.optim.Optimizer, mean: dict[str, Tensor], step: int, spent_s: float
) -> None:
    state = {
        "student": student.state_dict(),
        "optimiser": optimiser.state_dict(),
        "mean": mean,
        "step": step,
        "spent_s": spent_s,
    }
    save(out / STATE_FILE, state)
