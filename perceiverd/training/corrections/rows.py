"""One row of the last layer, changed as little as the corrections need.

The new logit of a label is the old one plus a linear term u·z + c. z is the vector before the last layer, moved and
scaled so that the remembered windows and the background have unit covariance. A small |u| therefore changes the scores
of ordinary windows little, whatever the direction (as in Kirkpatrick et al. 2017, "Overcoming catastrophic forgetting",
and passive-aggressive learning, Crammer et al. 2006). The problem is convex: a fit has one result. Knows no clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from perceiverd.core.errors import ConfigError

SHRINKAGE = 0.2
"""How much of the covariance is taken as that of independent channels (Ledoit & Wolf 2004 give the idea)."""
NEW_LOGIT = -6.0
"""Old logit of a label that the model lacks: a score of 0.25 %."""
LEAST_SPREAD = 1e-4
"""Of a channel, so that one that never varies is harmless."""
ANCHORS = 1000.0
"""Weight of the background and of the remembered windows, each in all; a clip has the weight of the fit. With less, a
sound that was taught with five clips had more false alarms at the same recall."""
MEMBERS = 5.0
"""Weight of a remembered window that has the label, over one that lacks it."""
PENALTY = 1.0
"""Of the change's square, over 2."""
STEPS = 200

Vectors = NDArray[np.float32]
"""(N, width)"""


@dataclass(frozen=True, eq=False)
class Whitening:
    """Moves and scales vectors so that those it was made of have mean 0 and nearly unit covariance."""

    centre: Tensor
    """(width,)"""
    matrix: Tensor
    """(width, width)"""
    known: dict[int, tuple[Vectors, Tensor]] = field(default_factory=dict)
    """Large arrays that many fits share, by identity, with their results."""

    @classmethod
    def of(cls, vectors: Vectors, parts: Sequence[int] = ()) -> Whitening:
        """Raises ConfigError if there are too few.

        `parts`: channels of each part of a vector, in order; without them it is one part. A channel that varies less
        than the mean of its part stays smaller than the others: scaled up, channels that are nearly always zero would
        let a few clips be learnt by heart, and twice as many false alarms follow.
        """
        if len(vectors) < 2:
            advice = "give --recent or --rehearse, or use a model with rehearsal vectors"
            raise ConfigError(f"there is no background; {advice}")
        data = torch.from_numpy(vectors).double()
        centre, deviations = data.mean(dim=0), data.std(dim=0).split(list(parts) or data.shape[1])
        spread = torch.cat([each.clamp(min=max(LEAST_SPREAD, float(each.mean()))) for each in deviations])
        scaled = (data - centre) / spread
        covariance = (1 - SHRINKAGE) * (scaled.T @ scaled) / (len(scaled) - 1)
        covariance += SHRINKAGE * torch.eye(len(centre), dtype=torch.float64)
        values, directions = torch.linalg.eigh(covariance)
        matrix = directions @ torch.diag(values.clamp(min=SHRINKAGE / 2) ** -0.5) @ directions.T
        return cls(centre, matrix / spread[:, None])

    def remember(self, vectors: Vectors) -> None:
        """Keep the result for these vectors, because many fits use them."""
        self.known[id(vectors)] = vectors, self(vectors)

    def __call__(self, vectors: Vectors) -> Tensor:
        """(N, width) of float64."""
        if (found := self.known.get(id(vectors))) is not None:
            return found[1]
        return (torch.from_numpy(vectors).double() - self.centre) @ self.matrix


@dataclass(frozen=True, eq=False)
class OldRow:
    """The row that the model has: weight (width,) and bias, and how its logit becomes a score."""

    weight: NDArray[np.float32]
    bias: float
    new: bool = False
    """Whether the model lacks the label. Its logit is then NEW_LOGIT everywhere."""

    @classmethod
    def absent(cls, width: int) -> OldRow:
        """Of a label that the model lacks."""
        return cls(np.zeros(width, np.float32), NEW_LOGIT, new=True)

    def logits(self, vectors: Vectors) -> Tensor:
        """Of vectors (N, width): (N,)."""
        found = vectors.astype(np.float64) @ self.weight.astype(np.float64) + self.bias
        return torch.from_numpy(found)


@dataclass(frozen=True, eq=False)
class RowMaterial:
    """What one row learns from. Every clip counts as much as every other, whatever its length."""

    old: OldRow
    present: Sequence[Vectors]
    """For each clip that has the label, the vectors of its windows that show it."""
    absent: Sequence[Vectors]
    """For each clip that an event was wrong in, the vectors of its windows."""
    background: Vectors
    """Of ordinary hours. For a label that the model lacks they are examples of its absence."""
    remembered: Vectors
    """The model's rehearsal vectors."""
    member: float = 0.0
    """Old logit from which on a remembered window counts as having the label."""

    def without(self, clip: int) -> RowMaterial:
        """The same without one of the clips that have the label."""
        kept = [each for at, each in enumerate(self.present) if at != clip]
        return RowMaterial(self.old, kept, self.absent, self.background, self.remembered, self.member)


@dataclass(frozen=True, eq=False)
class FittedRow:
    """A new row: weight (width,) and bias."""

    weight: NDArray[np.float32]
    bias: float
    change: float = field(default=0.0)
    """Length of the change, in standard deviations of ordinary windows."""

    def logits(self, vectors: Vectors) -> NDArray[np.float64]:
        """Of vectors (N, width): (N,)."""
        return np.asarray(vectors.astype(np.float64) @ self.weight.astype(np.float64) + self.bias)


class RowFit:
    """The fit of one row; the material is prepared once, for fits with several weights."""

    def __init__(self, material: RowMaterial, whitening: Whitening) -> None:
        self._material, self._whitening = material, whitening
        old, parts = material.old, _Parts(whitening, material.old)
        for clip in material.present:
            parts.add(clip, 1.0, 1 / len(clip), strong=True)
        for clip in material.absent:
            parts.add(clip, 0.0, 1 / len(clip), strong=True)
        share = ANCHORS / max(1, len(material.background))
        parts.add(material.background, 0.0 if old.new else None, share)
        logits = old.logits(material.remembered)
        weights = torch.where(logits >= material.member, MEMBERS, 1.0) * ANCHORS / max(1, len(logits))
        parts.add(material.remembered, 0.0 if old.new else None, weights)
        self._z, self._offset, self._target, self._weight, self._strong = parts.joined()

    def fit(self, weight: float) -> FittedRow:
        """The row if each clip has this weight."""
        weights = torch.where(self._strong, weight * self._weight, self._weight)
        u = torch.zeros(self._z.shape[1], dtype=torch.float64, requires_grad=True)
        c = torch.zeros((), dtype=torch.float64, requires_grad=True)
        optimiser = torch.optim.LBFGS([u, c], max_iter=STEPS, tolerance_grad=1e-6, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimiser.zero_grad()
            logits = self._offset + self._z @ u + c
            entropy = F.binary_cross_entropy_with_logits(logits, self._target, weights, reduction="sum")
            loss = entropy + PENALTY / 2 * u.square().sum()
            loss.backward()
            return loss

        optimiser.step(closure)
        return self._row(u.detach(), float(c.detach()))

    def _row(self, u: Tensor, c: float) -> FittedRow:
        """In the scale of the vectors themselves."""
        old, delta = self._material.old, self._whitening.matrix @ u
        weight = old.weight.astype(np.float64) + delta.numpy()
        bias = old.bias + c - float(delta @ self._whitening.centre)
        return FittedRow(weight.astype(np.float32), bias, float(u.norm()))


class _Parts:
    """Collects examples."""

    def __init__(self, whitening: Whitening, old: OldRow) -> None:
        self._whitening, self._old = whitening, old
        self._found: list[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]] = []

    def add(self, vectors: Vectors, target: float | None, weight: float | Tensor, *, strong: bool = False) -> None:
        """`target`: of the label; None for the old score."""
        offset = self._old.logits(vectors)
        wanted = offset.sigmoid() if target is None else torch.full_like(offset, target)
        weights = weight if isinstance(weight, Tensor) else torch.full_like(offset, weight)
        self._found.append((self._whitening(vectors), offset, wanted, weights, torch.full_like(offset, strong)))

    def joined(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        z, offset, target, weight, strong = (torch.cat(each) for each in zip(*self._found, strict=True))
        return z, offset, target, weight, strong.bool()
