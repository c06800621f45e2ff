"""The two learners of a fit: rows of the last layer from vectors that are made once, or a whole network from windows.

Each computes the gradients of its share of a step. Knows no files, budgets or optimisers.
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
"""Rehearsal vectors in a step for each clip."""
CONSTANT = 1e-5
"""A channel with a smaller deviation is constant."""
PRESENT = 0.5
"""A clip whose target is below this lacks the label."""


@dataclass(frozen=True, eq=False)
class NetworkInputs:
    """A batch of windows as the network takes them."""

    contents: dict[str, Tensor]
    present: dict[str, Tensor]
    targets: Tensor
    """(B, classes)"""
    weights: Tensor
    """(B, classes)"""

    @classmethod
    def of(cls, samples: Sequence[Sample], geometry: Geometry, device: torch.device) -> NetworkInputs:
        """Stack windows. A modality that no window has is left out; one that some windows lack is masked."""
        contents, present = {}, {}
        if geometry.audio and any(sample.audio is not None for sample in samples):
            silence = np.zeros(geometry.audio.samples, np.float32)
            audio = np.stack([silence if sample.audio is None else sample.audio for sample in samples])
            contents["audio"] = audio_tokens(torch.from_numpy(audio).to(device), geometry.audio)
            present["audio"] = torch.tensor([sample.audio is not None for sample in samples], device=device)
        if geometry.video and any(sample.video is not None for sample in samples):
            form = geometry.video
            black = np.zeros((form.frames, form.height, form.width, 3), np.uint8)
            video = np.stack([black if sample.video is None else sample.video for sample in samples])
            contents["video"] = video_tokens(torch.from_numpy(video).to(device), form)
            present["video"] = torch.tensor([sample.video is not None for sample in samples], device=device)
        targets = torch.from_numpy(np.stack([sample.targets for sample in samples])).to(device)
        weights = torch.from_numpy(np.stack([sample.weights for sample in samples])).to(device)
        return cls(contents, present, targets, weights)


class HeadRows(nn.Module):
    """A last layer of which some rows are trained. The other rows stay those of the model that the fit started from."""

    def __init__(self, last: nn.Linear, classes: int, places: Sequence[int], prior: Tensor) -> None:
        """`places`: the rows that are trained. New rows get weights of 0 and the bias `prior` (classes,), in logits."""
        super().__init__()
        self.places = tuple(places)
        old = len(last.weight)
        weight = torch.zeros(classes, last.in_features)
        bias = prior.clone()
        weight[:old], bias[:old] = last.weight.detach().cpu(), last.bias.detach().cpu()
        self.weight = nn.Buffer(weight)
        self.bias = nn.Buffer(bias)
        self.old = old
        self.trained = nn.Linear(last.in_features, len(self.places))
        self.centre, self.spread = nn.Buffer(torch.zeros(last.in_features)), nn.Buffer(torch.ones(last.in_features))

    def standardise(self, vectors: Tensor) -> None:
        """Move and scale each channel of `vectors` (N, width) to mean 0 and deviation 1 at most: steps are then even.

        A channel that varies less than the mean of all that vary keeps its small part: a channel that is nearly always
        zero would have as much weight as others, and a few clips would be learnt by heart from such channels. The
        trained rows are converted to that scale. Call it once, before training.
        """
        spread = vectors.std(dim=0)
        varies = spread[spread > CONSTANT]
        self.centre.copy_(vectors.mean(dim=0))
        self.spread.copy_(spread.clamp(min=varies.mean() if len(varies) else 1.0))
        with torch.no_grad():
            places = list(self.places)
            self.trained.weight.copy_(self.weight[places] * self.spread)
            self.trained.bias.copy_(self.bias[places] + self.weight[places] @ self.centre)

    def forward(self, vectors: Tensor) -> Tensor:
        """Logits (N, rows) of the trained labels, for vectors (N, width)."""
        return self.trained((vectors - self.centre) / self.spread)  # type: ignore[no-any-return]

    def scores_before(self, vectors: Tensor) -> Tensor:
        """Scores (N, rows) that the old model gives the trained labels; 0 for labels that it lacks."""
        weight, bias = self.weight[list(self.places)], self.bias[list(self.places)]
        scores = F.linear(vectors, weight, bias).sigmoid()
        new = torch.tensor([place >= self.old for place in self.places], device=vectors.device)
        return torch.where(new, torch.zeros_like(scores), scores)

    def assembled(self) -> nn.Linear:
        """The whole layer, with the trained rows in their places."""
        last = nn.Linear(self.trained.in_features, len(self.weight)).to(self.weight.device)
        with torch.no_grad():
            last.weight.copy_(self.weight)
            last.bias.copy_(self.bias)
            weight = self.trained.weight / self.spread
            last.weight[list(self.places)] = weight
            last.bias[list(self.places)] = self.trained.bias - weight @ self.centre
        return last


@dataclass(frozen=True, eq=False)
class VectorSet:
    """The vectors before the last layer from which rows are trained."""

    NAMES = ("vectors", "targets", "weights", "rehearsed", "rehearsed_targets")

    views: int
    vectors: Tensor
    """(clips * views, width)"""
    targets: Tensor
    """(clips * views, rows)"""
    weights: Tensor
    """(clips * views, rows)"""
    rehearsed: Tensor
    """(N, width) of windows without the new labels."""
    rehearsed_targets: Tensor
    """(N, rows)"""

    def informative(self) -> Tensor:
        """(rows, width), 0 or 1: the channels from which each row may learn.

        A channel that is the same in all windows without the label tells nothing about them. If, say, all clips of a
        label have pictures and nothing else has, the label must not learn that there are pictures.
        """
        found = torch.ones(self.targets.shape[1], self.vectors.shape[1], device=self.vectors.device)
        for row, absent in enumerate(((self.targets < PRESENT) & (self.weights > 0)).T):
            without = torch.cat([self.vectors[absent], self.rehearsed])
            if len(without) > 1:
                found[row] = (without.std(dim=0) > CONSTANT).float()
        return found


class HeadLearner:
    """Trains rows of the last layer on vectors."""

    def __init__(
        self, rows: HeadRows, vectors: VectorSet, settings: FitSettings, seed: int, processes: ProcessGroup
    ) -> None:
        self._rows, self._set, self._settings, self._seed, self._processes = rows, vectors, settings, seed, processes
        learns = vectors.informative()
        rows.trained.weight.register_hook(lambda gradient: gradient * learns)

    @property
    def module(self) -> nn.Module:
        return self._rows.trained

    def backward(self, step: int, scaler: torch.amp.GradScaler) -> dict[str, float]:
        loss = self._clip_loss(step)
        if len(self._set.rehearsed) and self._settings.rehearsal:
            loss = loss + self._rehearsal_loss(step)
        scaler.scale(loss).backward()
        return {"loss": float(loss.detach())}

    def _clip_loss(self, step: int) -> Tensor:
        found, batch, processes = self._set, self._settings.batch, self._processes
        order = shuffled_order(self._seed, len(found.vectors) // found.views, step * batch, batch)
        chosen = [index * found.views + epoch % found.views for index, epoch in order][processes.rank :: processes.size]
        logits, targets = self._rows(found.vectors[chosen]), found.targets[chosen]
        entropy = F.binary_cross_entropy_with_logits(logits, targets, found.weights[chosen], reduction="sum")
        return entropy / batch * processes.size

    def _rehearsal_loss(self, step: int) -> Tensor:
        found, count, processes = self._set, REHEARSED * self._settings.batch, self._processes
        places = np.random.default_rng([self._seed, 1, step]).integers(len(found.rehearsed), size=count)
        chosen = places[processes.rank :: processes.size].tolist()
        logits = self._rows(found.rehearsed[chosen])
        entropy = F.binary_cross_entropy_with_logits(logits, found.rehearsed_targets[chosen], reduction="sum")
        return self._settings.rehearsal * entropy / count * processes.size


class NetworkLearner:
    """Trains a whole network on windows."""

    def __init__(
        self,
        network: Perceiver,
        before: Perceiver | None,
        loader: BatchLoader,
        settings: FitSettings,
        geometry: Geometry,
        *,
        old: int,
        processes: int,
        precision: torch.dtype,
    ) -> None:
        """`before`: a copy of the old network. Its scores of the `old` labels replace unknown targets.

        `processes`: how many fit together.
        """
        self._network, self._before, self._loader = network, before, loader
        self._settings, self._geometry = settings, geometry
        self._new = list(range(old, geometry.classes))
        self._processes, self._precision = processes, precision

    @property
    def module(self) -> nn.Module:
        return self._network

    def backward(self, step: int, scaler: torch.amp.GradScaler) -> dict[str, float]:
        settings, total = self._settings, 0.0
        for samples, weight in zip(self._loader(step), (1.0, settings.rehearsal), strict=True):
            at_once = settings.slice or max(1, len(samples))
            for first in range(0, len(samples), at_once):
                share = weight * self._processes / settings.batch
                loss = self._loss(samples[first : first + at_once]) * share
                scaler.scale(loss).backward()
                total += float(loss.detach())
        return {"loss": total}

    def _loss(self, samples: Sequence[Sample]) -> Tensor:
        """Cross-entropy summed over windows and labels."""
        device = self._network.latents.device
        batch = NetworkInputs.of(samples, self._geometry, device)
        with torch.autocast(device.type, self._precision, enabled=self._precision != torch.float32):
            logits = self._network(batch.contents, batch.present).float()
            if self._before is not None:
                with torch.no_grad():
                    scores = self._before(batch.contents, batch.present).float().sigmoid()
                scores[:, self._new] = 0
                batch.targets.copy_(torch.where(batch.targets.isnan(), scores, batch.targets))
        return F.binary_cross_entropy_with_logits(logits, batch.targets, batch.weights, reduction="sum")
