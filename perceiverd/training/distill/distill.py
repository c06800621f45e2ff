"""`perceiverd train distil`: a new Perceiver learns from a pool of taught mixtures and pictures.

Under `torchrun` every process takes its own batches, and all take the same step: the mean of their gradients.
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
from perceiverd.training.distill.batches import Batch, Batches
from perceiverd.training.fitting import loop
from perceiverd.training.fitting.distributed import ProcessGroup
from perceiverd.training.fitting.loop import Budget, LoopState
from perceiverd.training.fitting.optim import decays
from perceiverd.training.fitting.progress import progress_reporter
from perceiverd.training.fitting.settings import FitSettings

STATE_FILE = "state.pt"
NOTHING: Mapping[str, int] = MappingProxyType({})
CPU = torch.device("cpu")
EMBEDDING = 1024  # channels of the sound teacher's embedding
IMITATION = 5.0
"""Weight of imitating the teacher's embedding, over that of the labels."""
STEM_RATE = 0.2
"""Learning rate of adopted stems over that of the rest."""
WARMUP = 0.03
"""Share of the budget over which the rate rises."""


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


def loss_of(student: nn.Module, batch: Batch, *, half: bool) -> tuple[Tensor, float]:
    """(loss, its label part): cross-entropy summed over labels, plus the embedding's squared distance."""
    with torch.autocast(batch.targets.device.type, torch.bfloat16, enabled=half):
        logits, embedding = student(batch.contents)
    entropy = F.binary_cross_entropy_with_logits(logits.float(), batch.targets, batch.weights, reduction="none")
    labels = entropy.sum(dim=1).mean()
    if batch.embedding is None:
        return labels, float(labels.detach())
    return labels + IMITATION * F.mse_loss(embedding.float(), batch.embedding), float(labels.detach())


class Distiller:
    """Batch after batch: what `loop.run` fits."""

    def __init__(
        self, student: Student, batches: Batches, crew: ProcessGroup, *, half: bool, device: torch.device
    ) -> None:
        """`half`: products in bfloat16."""
        self._student, self._batches, self._crew, self._half, self._device = student, batches, crew, half, device
        self._stream: Iterator[Batch] | None = None

    @property
    def module(self) -> nn.Module:
        return self._student

    def backward(self, step: int, scaler: torch.amp.GradScaler) -> dict[str, float]:
        if self._stream is None:
            self._stream = self._batches(step * self._crew.size, self._crew.rank, self._crew.size)
        batch = next(self._stream).to(self._device)
        loss, labels = loss_of(self._student, batch, half=self._half)
        scaler.scale(loss).backward()
        return {f"loss_{batch.kind}": labels}


def distil(
    student: Student,
    batches: Batches,
    how: FitSettings,
    budget: Budget,
    state: LoopState,
    *,
    half: bool = True,
    device: torch.device = CPU,
    logs: Path | None = None,
) -> Perceiver:
    """Teach until the budget is spent, going on from the state where there is one; the network has its mean weights.

    The learning rate follows the share of the budget that is spent, so that a fit ends well whenever it ends. Raises
    ConfigError where the state is of another fit, StoppedError after Ctrl-C or SIGTERM. `logs`: for TensorBoard.
    """
    crew = ProcessGroup.join(device)
    student.to(device)
    try:
        with progress_reporter(logs, silent=crew.rank > 0) as teller, teller.stage("distil"):
            learner = Distiller(student, batches, crew, half=half, device=device)
            groups = _groups(student, how.decay)
            loop.run(learner, groups, how, budget, state, crew, teller, device=device)
    except (loop.StoppedError, loop.DivergedError):  # of a crew, all do; after another fault one would wait for them
        crew.leave()
        raise
    crew.leave()
    return student.perceiver.cpu().eval()


def _groups(student: Student, decay: float) -> list[dict[str, object]]:
    """Adopted stems learn slowly."""
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in student.named_parameters():
        if parameter.requires_grad:
            slow = any(name.startswith(f"perceiver.bytes.stems.{stem}.layers") for stem in student.adopted)
            key = (decay if decays(name, parameter) else 0.0, STEM_RATE if slow else 1.0)
            groups.setdefault(key, []).append(parameter)
    return [{"params": found, "weight_decay": decay, "share": share} for (decay, share), found in groups.items()]
