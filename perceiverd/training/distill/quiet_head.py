"""Fits a model's last layer again, so that it names nothing while nothing happens.

A model that learnt only from sounds and pictures of things finds things in hums, hisses and empty scenes. All layers
before the last one stay as they are. The last one is linear, so its fit is a convex problem. For windows of the
training material the layer must keep its scores. For synthetic hours without events it must name only the quiet itself.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perceiverd.core.labels import ontology
from perceiverd.core.logs import log_event
from perceiverd.model.card import Card
from perceiverd.model.checkpoint import load_network
from perceiverd.model.encoding import audio_tokens, video_tokens
from perceiverd.model.geometry import Geometry
from perceiverd.model.perceiver import Perceiver
from perceiverd.pipeline.rules import related
from perceiverd.pipeline.windower import Window
from perceiverd.training.data.ambient import AmbientStream, correct_labels, windows_of
from perceiverd.training.distill.batches import Batches
from perceiverd.training.distill.rehearsal import headless

logger = logging.getLogger("perceiverd.training")

EVERY = 4
"""Only each fourth window of a stream is used, because neighbours are nearly the same."""
BATCH = 32
STEPS = 60  # of L-BFGS; after that the gain is small beside the differences between windows
QUIET_WEIGHT = 5.0
"""Weight of a window of quiet; a window of the training material has 1."""
STAY_WEIGHT = 1e-3
"""Weight of the squared distance from the layer as it was."""
BATCHES_A_LINE, STREAMS_A_LINE = 100, 45
"""After this many batches or streams a line of progress is logged."""


@dataclass(frozen=True, eq=False)
class QuietWindows:
    """A headless model's vectors for windows without events."""

    features: Tensor
    """(N, width)"""
    wrong: Tensor
    """(N, classes), bool: the labels that do not name what the window holds."""


@torch.no_grad()  # the result is learnt from, which inference_mode forbids
def material_features(network: Perceiver, batches: Batches, count: int) -> Tensor:
    """(32 * count, width): a headless network's vectors for this many batches of training material."""
    parts = []
    for number, batch in enumerate(islice(batches(0), count), start=1):
        raw = {name: content for name, content in batch.contents.items() if name not in batch.convolved}
        parts.append(network.score({**batch.contents, **network.bytes.convolve(raw)}))
        if number % BATCHES_A_LINE == 0:
            log_event(logger, logging.INFO, "features-collected", of="material", windows=number * BATCH)
    return torch.cat(parts)


@torch.no_grad()  # the result is learnt from, which inference_mode forbids
def quiet_features(network: Perceiver, card: Card, streams: Iterator[AmbientStream]) -> QuietWindows:
    """A headless network's vectors for streams without events."""
    parts, wrong = [], []
    for number, stream in enumerate(streams, start=1):
        windows = list(islice(windows_of(card.geometry, stream), 0, None, EVERY))
        features = network(_contents(windows, card.geometry))
        parts.append(features)
        wrong.append(_wrong(card, stream).expand(len(features), -1))
        if number % STREAMS_A_LINE == 0:
            log_event(logger, logging.INFO, "features-collected", of="quiet", streams=number)
    return QuietWindows(torch.cat(parts), torch.cat(wrong))


def fit(last: nn.Linear, material: Tensor, quiet: QuietWindows) -> tuple[float, float]:
    """Fit the layer in place; returns the mean of each quiet window's highest wrong score, before and after."""
    start = {name: tensor.detach().clone() for name, tensor in last.named_parameters()}
    with torch.no_grad():
        material_targets, quiet_logits = last(material).sigmoid(), last(quiet.features)
        quiet_targets = quiet_logits.sigmoid() * ~quiet.wrong
    optimiser = torch.optim.LBFGS(last.parameters(), max_iter=STEPS, history_size=20, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        kept = F.binary_cross_entropy_with_logits(last(material), material_targets, reduction="sum") / len(material)
        quiet_loss = F.binary_cross_entropy_with_logits(last(quiet.features), quiet_targets, reduction="sum")
        moved = sum(((tensor - start[name]) ** 2).sum() for name, tensor in last.named_parameters())
        total: Tensor = kept + QUIET_WEIGHT * quiet_loss / len(quiet.features) + STAY_WEIGHT * moved
        total.backward()
        return total

    optimiser.step(loss)
    with torch.no_grad():
        return _highest_wrong(quiet_logits, quiet), _highest_wrong(last(quiet.features), quiet)


def refit(card: Card, batches: Batches, count: int, streams: Iterator[AmbientStream]) -> Perceiver:
    """The model's network with its last layer fitted again, to `count` batches and these streams."""
    network, last = headless(load_network(card))
    quiet = quiet_features(network, card, streams)
    material = material_features(network, batches, count)
    before, after = fit(last, material, quiet)
    log_event(
        logger,
        logging.INFO,
        "head-fitted",
        material=len(material),
        quiet=len(quiet.features),
        highest_before=f"{before:.3f}",
        highest_after=f"{after:.3f}",
    )
    network.head.out = last
    return network


def _highest_wrong(logits: Tensor, quiet: QuietWindows) -> float:
    return float(logits.masked_fill(~quiet.wrong, -torch.inf).amax(dim=1).sigmoid().mean())


def _wrong(card: Card, stream: AmbientStream) -> Tensor:
    """(classes,): all labels except the correct ones and those above or below them in the hierarchy."""
    names = correct_labels(stream)
    correct = [label.index for label in card.labels if label.name in names]
    return torch.from_numpy(~np.asarray(related(ontology().labels)[correct].any(axis=0)))


def _contents(windows: list[Window], geometry: Geometry) -> dict[str, Tensor]:
    """The windows of one stream as the network takes them; all have the same modalities."""
    contents = {}
    if geometry.audio and windows[0].audio is not None:
        audio = np.stack([window.audio for window in windows if window.audio is not None])
        contents["audio"] = audio_tokens(torch.from_numpy(audio), geometry.audio)
    if geometry.video and windows[0].video is not None:
        frames = np.stack([window.video for window in windows if window.video is not None])
        contents["video"] = video_tokens(torch.from_numpy(frames), geometry.video)
    return contents
