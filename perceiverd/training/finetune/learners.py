"""What a fit learns: the rows of some labels from vectors that were made once, or a whole network from windows.

Each makes its own gradients of a step's share; knows no files, budgets or optimisers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perceiverd.model.encoding import audio_tokens, video_tokens
from perceiverd.model.geometry import Geometry
from perceiverd.model.perceiver import Perceiver
from perceiverd.training.finetune.sampling import BatchLoader, Sample, shuffled_order
from perceiverd.training.fitting.distributed import ProcessGroup
from perceiverd.training.fitting.settings import FitSettings

REHEARSED = 4
"""Vectors of a bank that a step has for each clip."""


@dataclass(frozen=True, eq=False)
class NetworkInputs:
    """Windows as the network takes them."""

    contents: dict[str, Tensor]
    present: dict[str, Tensor]
    targets: Tensor
    """(B, classes)"""
    weights: Tensor

    @classmethod
    def of(cls, draws: Sequence[Sample], geometry: Geometry, device: torch.device) -> NetworkInputs:
        """Put windows together; a modality that none has is left out, one that some lack is masked."""
        contents, present = {}, {}
        if geometry.audio and any(draw.audio is not None for draw in draws):
            silence = np.zeros(geometry.audio.samples, np.float32)
            sound = np.stack([silence if draw.audio is None else draw.audio for draw in draws])
            contents["audio"] = audio_tokens(torch.from_numpy(sound).to(device), geometry.audio)
            present["audio"] = torch.tensor([draw.audio is not None for draw in draws], device=device)
        if geometry.video and any(draw.video is not None for draw in draws):
            video = geometry.video
            black = np.zeros((video.frames, video.height, video.width, 3), np.uint8)
            sight = np.stack([black if draw.video is None else draw.video for draw in draws])
            contents["video"] = video_tokens(torch.from_numpy(sight).to(device), video)
            present["video"] = torch.tensor([draw.video is not None for draw in draws], device=device)
        targets = torch.from_numpy(np.stack([draw.targets for draw in draws])).to(device)
        weights = torch.from_numpy(np.stack([draw.weights for draw in draws])).to(device)
        return cls(contents, present, targets, weights)


class HeadRows(nn.Module):
    """A last layer of which some rows learn; the others are those of the model that was started from."""

    def __init__(self, last: nn.Linear, classes: int, places: Sequence[int], odds: Tensor) -> None:
        """`places`: the rows that learn. New ones begin at zero, saying `odds` (classes,) of everything."""
        super().__init__()
        self.places = tuple(places)
        old = len(last.weight)
        weight = torch.zeros(classes, last.in_features)
        bias = odds.clone()
        weight[:old], bias[:old] = last.weight.detach().cpu(), last.bias.detach().cpu()
        self.weight = nn.Buffer(weight)
        self.bias = nn.Buffer(bias)
        self.old = old
        self.own = nn.Linear(last.in_features, len(self.places))
        self.centre, self.spread = nn.Buffer(torch.zeros(last.in_features)), nn.Buffer(torch.ones(last.in_features))

    def standardise(self, vectors: Tensor) -> None:
        """Begin to learn, on vectors moved and scaled to mean 0 and deviation 1 a channel: such steps are even."""
        self.centre.copy_(vectors.mean(dim=0))
        self.spread.copy_(vectors.std(dim=0).clamp(min=1e-5))
        with torch.no_grad():
            places = list(self.places)
            self.own.weight.copy_(self.weight[places] * self.spread)
            self.own.bias.copy_(self.bias[places] + self.weight[places] @ self.centre)

    def forward(self, vectors: Tensor) -> Tensor:
        """Logits (N, rows) of the labels that learn."""
        return self.own((vectors - self.centre) / self.spread)  # type: ignore[no-any-return]

    def before(self, vectors: Tensor) -> Tensor:
        """(N, rows) what the model said before of the labels that learn; 0 for those it didn't have."""
        weight, bias = self.weight[list(self.places)], self.bias[list(self.places)]
        said = F.linear(vectors, weight, bias).sigmoid()
        new = torch.tensor([place >= self.old for place in self.places], device=vectors.device)
        return torch.where(new, torch.zeros_like(said), said)

    def assembled(self) -> nn.Linear:
        """The whole layer."""
        last = nn.Linear(self.own.in_features, len(self.weight)).to(self.weight.device)
        with torch.no_grad():
            last.weight.copy_(self.weight)
            last.bias.copy_(self.bias)
            weight = self.own.weight / self.spread
            last.weight[list(self.places)] = weight
            last.bias[list(self.places)] = self.own.bias - weight @ self.centre
        return last


@dataclass(frozen=True, eq=False)
class VectorSet:
    """All that labels are learnt from."""

    NAMES = ("vectors", "targets", "weights", "rehearsed", "rehearsed_targets")

    views: int
    vectors: Tensor
    """(clips * views, width)"""
    targets: Tensor
    """(clips * views, rows)"""
    weights: Tensor
    rehearsed: Tensor
    """(N, width) of what holds none of the new labels."""
    rehearsed_targets: Tensor


class HeadLearner:
    """Rows from vectors."""

    def __init__(self, rows: HeadRows, seen: VectorSet, how: FitSettings, seed: int, crew: ProcessGroup) -> None:
        self._rows, self._seen, self._how, self._seed, self._crew = rows, seen, how, seed, crew

    @property
    def module(self) -> nn.Module:
        return self._rows.own

    def backward(self, step: int, scaler: torch.amp.GradScaler) -> dict[str, float]:
        seen, batch, crew = self._seen, self._how.batch, self._crew
        places = shuffled_order(self._seed, len(seen.vectors) // seen.views, step * batch, batch)
        chosen = [index * seen.views + epoch % seen.views for index, epoch in places][crew.rank :: crew.size]
        logits = self._rows(seen.vectors[chosen])
        entropy = F.binary_cross_entropy_with_logits(
            logits, seen.targets[chosen], seen.weights[chosen], reduction="sum"
        )
        loss = entropy / batch * crew.size
        if len(seen.rehearsed) and self._how.rehearsal:
            rows = np.random.default_rng([self._seed, 1, step]).integers(len(seen.rehearsed), size=REHEARSED * batch)
            chosen = rows[crew.rank :: crew.size].tolist()
            logits = self._rows(seen.rehearsed[chosen])
            entropy = F.binary_cross_entropy_with_logits(logits, seen.rehearsed_targets[chosen], reduction="sum")
            loss = loss + self._how.rehearsal * entropy / (REHEARSED * batch) * crew.size
        scaler.scale(loss).backward()
        return {"loss": float(loss.detach())}


class NetworkLearner:
    """A whole network from windows."""

    def __init__(
        self,
        network: Perceiver,
        before: Perceiver | None,
        feed: BatchLoader,
        how: FitSettings,
        geometry: Geometry,
        *,
        old: int,
        size: int,
        precision: torch.dtype,
    ) -> None:
        """`before`: the network that was started from, which says what is unknown of its `old` labels."""
        self._network, self._before, self._feed, self._how, self._geometry = network, before, feed, how, geometry
        self._new = list(range(old, geometry.classes))
        self._size, self._precision = size, precision

    @property
    def module(self) -> nn.Module:
        return self._network

    def backward(self, step: int, scaler: torch.amp.GradScaler) -> dict[str, float]:
        how, total = self._how, 0.0
        for draws, weight in zip(self._feed(step), (1.0, how.rehearsal), strict=True):
            at_once = how.slice or max(1, len(draws))
            for first in range(0, len(draws), at_once):
                loss = self._loss(draws[first : first + at_once]) * (weight * self._size / how.batch)
                scaler.scale(loss).backward()
                total += float(loss.detach())
        return {"loss": total}

    def _loss(self, draws: Sequence[Sample]) -> Tensor:
        """Cross-entropy summed over windows and labels."""
        device = self._network.latents.device
        batch = NetworkInputs.of(draws, self._geometry, device)
        with torch.autocast(device.type, self._precision, enabled=self._precision != torch.float32):
            logits = self._network(batch.contents, batch.present).float()
            if self._before is not None:
                with torch.no_grad():
                    said = self._before(batch.contents, batch.present).float().sigmoid()
                said[:, self._new] = 0
                batch.targets.copy_(torch.where(batch.targets.isnan(), said, batch.targets))
        return F.binary_cross_entropy_with_logits(logits, batch.targets, batch.weights, reduction="sum")
