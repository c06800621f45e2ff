"""`perceiverd train distil`: a new Perceiver learns what its teachers answer to shards of audio and video.

Under `torchrun` each process has its own batches, and all take the same step: the mean of their gradients.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perceiverd.model.attention import CrossAttend
from perceiverd.model.geometry import Geometry
from perceiverd.model.perceiver import Perceiver
from perceiverd.model.senses import SensesHead
from perceiverd.training.distill.batches import Batch, Batches
from perceiverd.training.fitting import loop
from perceiverd.training.fitting.distributed import ProcessGroup
from perceiverd.training.fitting.loop import Budget, LoopState
from perceiverd.training.fitting.optim import decays
from perceiverd.training.fitting.progress import progress_reporter
from perceiverd.training.fitting.settings import FitSettings

NO_STEMS: Mapping[str, int] = MappingProxyType({})
CPU = torch.device("cpu")
EMBEDDING = 1024  # channels of YAMNet's embedding
EMBEDDING_WEIGHT = 5.0
"""Weight of the embedding's distance in the loss, over that of the labels."""
STEM_RATE = 0.2
"""Learning rate of stems that come from a teacher, over that of the rest."""
WARMUP = 0.03
"""Share of the budget over which the rate rises."""
FIRST_BIAS = -6.0
"""Bias of the labels at the start. Most labels are absent from most windows, so this saves the first hundred steps."""
QUERY_SCALE = 2.0
"""At first, all latents read nearly the mean of the byte array, so all read the same. Queries twice as large spread the
scores over tokens to a sigma of 1.3, so that each head begins with tokens of its own."""


class DistillStudent(nn.Module):
    """The Perceiver, and a head that imitates the teacher's embedding and is dropped after the fit."""

    def __init__(self, geometry: Geometry, frozen: Mapping[str, int] = NO_STEMS, embedding: int = EMBEDDING) -> None:
        """`frozen`: for each stem that comes from a teacher, how many of its layers do not learn.

        `embedding`: channels of the teachers' embeddings.
        """
        super().__init__()
        self.transferred = tuple(frozen)
        self.perceiver = Perceiver(geometry.modalities, geometry.trunk, geometry.classes)
        if isinstance(self.perceiver.head, SensesHead):
            _hold(self.perceiver.head)
        else:
            nn.init.constant_(self.perceiver.head.out.bias, FIRST_BIAS)
        for cross in self.perceiver.crosses:
            assert isinstance(cross, CrossAttend)
            with torch.no_grad():
                cross.attention.query.weight *= QUERY_SCALE
        self.begins_taught = isinstance(self.perceiver.head, SensesHead)
        self.imitate = nn.Linear(geometry.trunk.width, embedding)
        for name, layers in frozen.items():
            for layer in self.perceiver.bytes.stems[name].layers[:layers]:  # type: ignore[index]
                layer.requires_grad_(False)

    def forward(
        self, contents: dict[str, Tensor], convolved: frozenset[str] = frozenset()
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Logits (B, classes), embedding (B, E), and what the classifiers alone say (B, classes) of a single sense.

        The embedding is None for windows whose latents the head does not read.
        `convolved`: the contents that are the output of their stem.
        """
        raw = {name: content for name, content in contents.items() if name not in convolved}
        features = {**contents, **self.perceiver.bytes.convolve(raw)}
        head, alone = self.perceiver.head, None
        if isinstance(head, SensesHead) and len(features) == 1:
            alone = head.joint({name: one.mean(dim=1) for name, one in features.items()}, {})
        if isinstance(head, SensesHead) and not head.reads_latents(features):
            return self.perceiver.judge(None, features), None, alone
        latents = self.perceiver.encode(features)
        return self.perceiver.judge(latents, features), self.imitate(latents.mean(dim=1)), alone


def _hold(head: SensesHead) -> None:
    """Let the classifiers stay, and let the last layer hand on what they say: only its part for latents learns.

    `train senses` has fitted the classifiers, and how far from their teachers they may be.
    """
    head.senses.requires_grad_(False)
    learns = torch.zeros(head.out.in_features)
    learns[: head.width] = 1
    head.out.weight.register_hook(lambda gradient: gradient * learns.to(gradient))


def loss_of(student: nn.Module, batch: Batch, *, half: bool) -> tuple[Tensor, float]:
    """(loss, its label part): cross-entropy summed over labels, plus the embedding's squared distance.

    A single sense stays as its classifier says: the latents learn only what both senses together say. They would else
    learn the labelled sounds by heart. `half`: multiply in bfloat16.
    """
    with torch.autocast(batch.targets.device.type, torch.bfloat16, enabled=half):
        logits, embedding, alone = student(batch.contents, batch.convolved)
    targets, weights = (batch.targets, batch.weights) if alone is None else (alone.float().sigmoid(), None)
    entropy = F.binary_cross_entropy_with_logits(logits.float(), targets, weights, reduction="none")
    labels = entropy.sum(dim=1).mean()
    if batch.embedding is None or embedding is None:
        return labels, float(labels.detach())
    return labels + EMBEDDING_WEIGHT * F.mse_loss(embedding.float(), batch.embedding), float(labels.detach())


class Distiller:
    """The learner that `loop.run` fits: one batch a step."""

    def __init__(
        self, student: DistillStudent, batches: Batches, group: ProcessGroup, *, half: bool, device: torch.device
    ) -> None:
        """`half`: multiply in bfloat16."""
        self._student, self._batches, self._group, self._half, self._device = student, batches, group, half, device
        self._stream: Iterator[Batch] | None = None

    @property
    def module(self) -> nn.Module:
        return self._student

    def backward(self, step: int, scaler: torch.amp.GradScaler) -> dict[str, float]:
        if self._stream is None:
            self._stream = self._batches(step * self._group.size, self._group.rank, self._group.size)
        batch = next(self._stream).to(self._device)
        loss, labels = loss_of(self._student, batch, half=self._half)
        scaler.scale(loss).backward()
        return {f"loss_{batch.kind}": labels}


def distill(
    student: DistillStudent,
    batches: Batches,
    settings: FitSettings,
    budget: Budget,
    state: LoopState,
    *,
    half: bool = True,
    device: torch.device = CPU,
    logs: Path | None = None,
) -> Perceiver:
    """Fit the student until the budget is spent, and return its network with the mean weights.

    Continues from the state if there is one. The learning rate follows the spent share of the budget, so that a fit
    ends well whenever it ends. `logs`: folder for TensorBoard. Raises ConfigError if the state belongs to another fit,
    StoppedError after Ctrl-C or SIGTERM.
    """
    group = ProcessGroup.join(device)
    student.to(device)
    try:
        with progress_reporter(logs, silent=group.rank > 0) as reporter, reporter.stage("distil"):
            learner = Distiller(student, batches, group, half=half, device=device)
            groups = _groups(student, settings.decay)
            loop.run(learner, groups, settings, budget, state, group, reporter, device=device)
    except (loop.StoppedError, loop.DivergedError):
        # All processes of a group raise these together. After another error `leave` would wait for the others.
        group.leave()
        raise
    group.leave()
    return student.perceiver.cpu().eval()


def _groups(student: DistillStudent, decay: float) -> list[dict[str, object]]:
    """The parameters that learn, grouped by weight decay and learning rate. Stems from a teacher learn slowly."""
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in student.named_parameters():
        if parameter.requires_grad:
            slow = name.startswith(tuple(f"perceiver.bytes.stems.{stem}.layers" for stem in student.transferred))
            # A head that begins as its teachers' would decay towards zero, which says 0.5 of every label.
            held = student.begins_taught and name.startswith("perceiver.head")
            key = (decay if decays(name, parameter) and not held else 0.0, STEM_RATE if slow else 1.0)
            groups.setdefault(key, []).append(parameter)
    return [{"params": found, "weight_decay": decay, "share": share} for (decay, share), found in groups.items()]
