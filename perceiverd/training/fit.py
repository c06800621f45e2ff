"""Fits a Perceiver to the pool: budgeted in minutes, resumable, told in one line every so often.

The learning rate follows the share of the budget that is spent, so that a fit ends well whenever it ends. Under
`torchrun` every process takes its own batches, and all take the same step: the mean of their gradients.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from perceiverd.attention import CrossAttend
from perceiverd.geometry import Geometry
from perceiverd.perceiver import Perceiver
from perceiverd.training.batches import Batch, Batches

log = logging.getLogger(__name__)

STATE_FILE = "state.pt"
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
    seed: int = 1
    save_every_s: float = 120.0


class Student(nn.Module):
    """The Perceiver, and a head that imitates the teacher's embedding and is thrown away afterwards."""

    def __init__(self, geometry: Geometry) -> None:
        super().__init__()
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


def fit(
    geometry: Geometry, batches: Batches, out: Path, plan: Plan, *, threads: int = 1, half: bool = True
) -> Perceiver:
    """Fit until the budget is spent, going on from `out/state.pt` where there is one; returns the mean weights."""
    torch.set_num_threads(threads)
    torch.manual_seed(plan.seed)
    out.mkdir(parents=True, exist_ok=True)
    student = Student(geometry)
    mean = {name: tensor.detach().clone() for name, tensor in student.state_dict().items()}
    optimiser = torch.optim.AdamW(_groups(student, plan), lr=plan.rate, betas=(0.9, 0.98))
    step, spent_s = 0, 0.0
    if (out / STATE_FILE).exists():
        state = torch.load(out / STATE_FILE, weights_only=True)
        student.load_state_dict(state["student"])
        optimiser.load_state_dict(state["optimiser"])
        mean, step, spent_s = state["mean"], state["step"], state["spent_s"]
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
            group["lr"] = plan.rate * _rate(spent_s / budget_s, plan.warmup)
        nn.utils.clip_grad_norm_(student.parameters(), plan.clip)
        optimiser.step()
        step += crew.size
        keep = min(plan.average, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, tensor in student.state_dict().items():
                mean[name].lerp_(tensor, 1 - keep)
        recent.setdefault(batch.kind, []).append(labels)
        if crew.rank == 0 and time.monotonic() - saved_s > plan.save_every_s:
            saved_s = time.monotonic()
            _save(out, student, optimiser, mean, step, spent_s)
            told = " ".join(f"{kind}={np.mean(values):.3f}" for kind, values in sorted(recent.items()))
            log.info("batches=%d spent_min=%.1f windows=%d loss: %s", step, spent_s / 60, step * plan.batch, told)
            recent.clear()
    if crew.rank == 0:
        _save(out, student, optimiser, mean, step, spent_s)
    crew.leave()
    student.load_state_dict(mean)
    return student.perceiver.eval()


def leads() -> bool:
    """Whether this process is the one of its crew that writes what all have made."""
    return os.environ.get("RANK", "0") == "0"


@dataclass(frozen=True)
class Crew:
    """The processes that fit together; alone where `torchrun` did not start them."""

    rank: int
    size: int

    @classmethod
    def join(cls) -> Crew:
        """Meet the others, where there are any; `leave` them in the end."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls(0, 1)
        distributed.init_process_group("gloo")
        return cls(distributed.get_rank(), distributed.get_world_size())

    def leave(self) -> None:
        """Part from the others, once all have come this far."""
        if self.size > 1:
            distributed.barrier()
            distributed.destroy_process_group()

    def average(self, student: nn.Module, spent_s: float) -> float:
        """Give every process the mean gradients and the mean time spent, so that all go on, or end, alike.

        A head that a batch did not use has no gradient there; it counts as zero.
        """
        if self.size == 1:
            return spent_s
        parameters = list(student.parameters())
        pieces = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([*(piece.reshape(-1) for piece in pieces), torch.tensor([spent_s])])
        distributed.all_reduce(flat)
        flat /= self.size
        *grads, spent = flat.split([*(p.numel() for p in parameters), 1])
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = grad.reshape(parameter.shape)
        return float(spent)


def _rate(share: float, warmup: float) -> float:
    """Share of the peak rate after this share of the budget: a linear rise, then half a cosine down to zero."""
    if share < warmup:
        return max(share / warmup, 0.01)
    return 0.5 * (1 + math.cos(math.pi * min((share - warmup) / (1 - warmup), 1.0)))


def _groups(student: nn.Module, plan: Plan) -> list[dict[str, object]]:
    """Matrices decay; biases, normalisations, latents and learned channels do not."""
    matrices = [p for name, p in student.named_parameters() if p.ndim > 1 and not name.endswith("latents")]
    chosen = {id(p) for p in matrices}
    others = [p for p in student.parameters() if id(p) not in chosen]
    return [{"params": matrices, "weight_decay": plan.decay}, {"params": others, "weight_decay": 0.0}]


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
    partial = out / f"{STATE_FILE}.part"
    torch.save(state, partial)
    partial.replace(out / STATE_FILE)
