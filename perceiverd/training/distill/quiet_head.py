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
from perceiverd.model.encoding import audio_tokens, mel_tokens, video_tokens
from perceiverd.model.geometry import Geometry
from perceiverd.model.perceiver import Perceiver
from perceiverd.pipeline.rules import related
from perceiverd.pipeline.windower import Window
from perceiverd.training.data.ambient import AmbientStream, correct_labels, windows_of
from perceiverd.training.distill.audio_shards import AudioShards, dequantise
from perceiverd.training.distill.batches import Batches
from perceiverd.training.distill.rehearsal import headless

logger = logging.getLogger("perceiverd.training")

EVERY = 4
"""Only each fourth window of a stream is used, because neighbours are nearly the same."""
BATCH = 32
STEPS = 60  # of L-BFGS; after that the gain is small beside the differences between windows
QUIET_WEIGHT = 5.0
"""Weight of a window of quiet; a window of the training material has 1."""
KEEP_WEIGHT = 2.0
"""Weight of the squared change of a logit, summed over labels, mean over the material. Cross-entropy to the old scores
would let low scores drift: they cost little, but they decide the ranks of labels."""
STAY_WEIGHT = 1e-3
"""Weight of the squared distance from the layer as it was, for directions that the material lacks."""
COMPARED, DIFFERENCE = 16, 0.02
"""Windows in which the stem's output is compared, and how far off the mean may be, relatively: shards have float16."""
BATCHES_A_LINE, STREAMS_A_LINE = 100, 45
"""After this many batches or streams a line of progress is logged."""


@dataclass(frozen=True, eq=False)
class QuietWindows:
    """A headless model's vectors for windows without events."""

    features: Tensor
    """(N, width)"""
    wrong: Tensor
    """(N, classes), bool: the labels that do not name what the window holds."""


def has_tokens(network: Perceiver, geometry: Geometry, shards: AudioShards) -> bool:
    """Whether the shards' tokens are the output of this network's stem for audio, so that it need not run again."""
    assert geometry.audio is not None
    drawn = shards.draw(np.random.default_rng(0), COMPARED)
    tokens = torch.from_numpy(drawn["tokens"]).float()
    if "audio" not in network.bytes.stems or geometry.audio.modality.tokens != tokens.shape[1]:
        return False
    with torch.inference_mode():
        raw = mel_tokens(dequantise(torch.from_numpy(drawn["mel"])), geometry.audio)
        found = network.bytes.convolve({"audio": raw})["audio"]
    return found.shape == tokens.shape and bool((found - tokens).abs().mean() < DIFFERENCE * tokens.abs().mean())


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
    """Fit the layer in place; returns the mean of each quiet window's highest wrong score, before and after.

    The fit looks for the change of the layer, in coordinates in which what the change costs is its squared length.
    So it needs few steps, however uneven the inputs are.
    """
    with torch.no_grad():
        before = last(quiet.features)
        targets = before.sigmoid() * ~quiet.wrong
        axes = _axes(material)
        inputs = _with_one(quiet.features) @ axes
    change = torch.zeros(last.out_features, inputs.shape[1], requires_grad=True)
    optimiser = torch.optim.LBFGS([change], max_iter=STEPS, history_size=20, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        quiet_loss = F.binary_cross_entropy_with_logits(before + inputs @ change.T, targets, reduction="sum")
        total: Tensor = (change**2).sum() + QUIET_WEIGHT * quiet_loss / len(inputs)
        total.backward()
        return total

    optimiser.step(loss)
    with torch.no_grad():
        found = change @ axes.T
        last.weight.add_(found[:, :-1])
        last.bias.add_(found[:, -1])
        return _highest_wrong(before, quiet), _highest_wrong(last(quiet.features), quiet)


def _axes(material: Tensor) -> Tensor:
    """(width + 1, width + 1): A, so that a change C A^T of weights and biases costs the squared length of C.

    The cost is KEEP_WEIGHT times the squared change of the material's logits, and STAY_WEIGHT times that of the layer.
    """
    inputs = _with_one(material).double()
    moments = inputs.T @ inputs / len(inputs)
    values, directions = torch.linalg.eigh(moments)
    cost = KEEP_WEIGHT * values.clamp(min=0) + STAY_WEIGHT
    axes: Tensor = (directions * cost.rsqrt() @ directions.T).float()
    return axes


def _with_one(vectors: Tensor) -> Tensor:
    """(N, width + 1): the vectors, and a one that the bias multiplies."""
    return torch.cat([vectors, torch.ones(len(vectors), 1)], dim=1)


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
