"""A model's last layer fitted anew, so that it names nothing where nothing is.

A model that learnt from sounds and pictures of things alone finds things in hums, hisses and empty scenes. Everything
before the last layer stays as it is; the last one, a linear map, is the minimum of a convex function: on windows of the
training material it should say what it said, in hours of made quiet nothing but what names the quiet itself.
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
from perceiverd.model.card import Card
from perceiverd.model.checkpoint import load_network
from perceiverd.model.encoding import audio_tokens, video_tokens
from perceiverd.model.geometry import Geometry
from perceiverd.model.perceiver import Perceiver
from perceiverd.pipeline.rules import related
from perceiverd.pipeline.windower import Window
from perceiverd.training.data.ambient import Stream, cut, right
from perceiverd.training.distill.batches import Batches
from perceiverd.training.distill.rehearsal import headless

log = logging.getLogger(__name__)

EVERY = 4
"""Of a stream's windows each fourth is taken: neighbours are nearly the same."""
BATCH = 32
STEPS = 60  # of L-BFGS; what is left to gain then is small beside what windows differ by
LOUDER = 5.0
"""What a window of quiet weighs, one of the training material being 1."""
STAY = 1e-3
"""Weight of the squared distance from the layer as it was."""


@dataclass(frozen=True, eq=False)
class Quiet:
    """What a headless model makes of quiet."""

    features: Tensor
    """(N, width)"""
    wrong: Tensor
    """(N, classes), bool: labels that are no names of what is heard or seen."""


@torch.no_grad()  # what comes out is learnt from, which inference_mode forbids
def remembered(network: Perceiver, batches: Batches, count: int) -> Tensor:
    """(32 * count, width): vectors of so many batches of a headless network's training material."""
    parts = []
    for number, batch in enumerate(islice(batches(0), count), start=1):
        parts.append(network(batch.contents))
        if number % 100 == 0:
            log.info("remembered=%d", number * BATCH)
    return torch.cat(parts)


@torch.no_grad()  # what comes out is learnt from, which inference_mode forbids
def heard(network: Perceiver, card: Card, streams: Iterator[Stream]) -> Quiet:
    """Vectors of a headless network, of streams of nothing."""
    parts, wrong = [], []
    for number, stream in enumerate(streams, start=1):
        features = network(_contents(list(islice(cut(card.geometry, stream), 0, None, EVERY)), card.geometry))
        parts.append(features)
        wrong.append(_wrong(card, stream).expand(len(features), -1))
        if number % 45 == 0:
            log.info("quiet_streams=%d", number)
    return Quiet(torch.cat(parts), torch.cat(wrong))


def fit(last: nn.Linear, kept: Tensor, quiet: Quiet) -> tuple[float, float]:
    """Fit the layer where it stands; a window of quiet's surest wrong label, on average: before, after."""
    before = {name: tensor.detach().clone() for name, tensor in last.named_parameters()}
    with torch.no_grad():
        was, told = last(kept).sigmoid(), last(quiet.features)
        said = told.sigmoid() * ~quiet.wrong
    optimiser = torch.optim.LBFGS(last.parameters(), max_iter=STEPS, history_size=20, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        kept_loss = F.binary_cross_entropy_with_logits(last(kept), was, reduction="sum") / len(kept)
        quiet_loss = F.binary_cross_entropy_with_logits(last(quiet.features), said, reduction="sum")
        moved = sum(((tensor - before[name]) ** 2).sum() for name, tensor in last.named_parameters())
        total: Tensor = kept_loss + LOUDER * quiet_loss / len(quiet.features) + STAY * moved
        total.backward()
        return total

    optimiser.step(loss)
    with torch.no_grad():
        return _loudest(told, quiet), _loudest(last(quiet.features), quiet)


def hush(card: Card, batches: Batches, count: int, streams: Iterator[Stream]) -> Perceiver:
    """The model's network with its last layer fitted anew."""
    network, last = headless(load_network(card))
    quiet = heard(network, card, streams)
    kept = remembered(network, batches, count)
    was, now = fit(last, kept, quiet)
    log.info("kept=%d quiet=%d loudest: %.3f before, %.3f after", len(kept), len(quiet.features), was, now)
    network.head.out = last
    return network


def _loudest(logits: Tensor, quiet: Quiet) -> float:
    return float(logits.masked_fill(~quiet.wrong, -torch.inf).amax(dim=1).sigmoid().mean())


def _wrong(card: Card, stream: Stream) -> Tensor:
    """(classes,): what is right is so with all above and below it, so that the hierarchy is not torn."""
    named = right(stream)
    fine = np.asarray(
        related(ontology().labels)[[label.index for label in card.labels if label.name in named]].any(axis=0)
    )
    return torch.from_numpy(~fine)


def _contents(windows: list[Window], geometry: Geometry) -> dict[str, Tensor]:
    """All windows of one stream have the same modalities."""
    contents = {}
    if geometry.audio and windows[0].audio is not None:
        sound = np.stack([window.audio for window in windows if window.audio is not None])
        contents["audio"] = audio_tokens(torch.from_numpy(sound), geometry.audio)
    if geometry.video and windows[0].video is not None:
        frames = np.stack([window.video for window in windows if window.video is not None])
        contents["video"] = video_tokens(torch.from_numpy(frames), geometry.video)
    return contents
