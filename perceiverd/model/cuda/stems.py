"""A stem for inference on a GPU: convolutions in half precision with channels last, without copies between layers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from perceiverd.model.perceiver import Convolution, Stem


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    weight: Tensor
    bias: Tensor | None
    stride: int
    groups: int
    margins: tuple[int, int]
    """Rows and columns of padding before and after."""
    is_clamped: bool

    def __call__(self, x: Tensor, ceiling: float) -> Tensor:
        before, after = self.margins
        if before != after:
            x = F.pad(x, (before, after) * 2)
        y = F.conv2d(x, self.weight, self.bias, self.stride, before if before == after else 0, groups=self.groups)
        return y.clamp_(0, ceiling) if self.is_clamped else y


class DeviceStem:
    """What `Stem` computes, from images in place of tokens."""

    def __init__(self, stem: Stem, half: torch.dtype | None) -> None:
        """`half`: the type of the convolutions; None keeps that of the weights."""
        self._images, self._border = stem.images, stem.border
        self.norm = stem.norm
        self._half = half
        self._layers: list[tuple[list[_Step], bool, float]] = []
        for layer in stem.layers:
            steps = [
                _step(step, half, is_clamped=not (layer.linear and step is layer.steps[-1]))  # type: ignore[index]
                for step in layer.steps  # type: ignore[union-attr]
            ]
            self._layers.append((steps, bool(layer.residual), float(layer.ceiling)))  # type: ignore[arg-type]

    def __call__(self, images: Tensor) -> Tensor:
        """Content (B, M, channels) before normalisation, in the type of the LN, of images (B * T, colours, Y, X).

        The images are as `encoding` scales them, channels last in memory.
        """
        x = images if self._border is None else images - self._border
        x = x.to(self._half) if self._half else x
        for steps, is_residual, ceiling in self._layers:
            y = x
            for step in steps:
                y = step(y, ceiling)
            x = y.add_(x) if is_residual else y
        x = x.permute(0, 2, 3, 1).flatten(1, 2)  # (B * T, Y' * X', channels)
        content: Tensor = x.unflatten(0, (-1, self._images)).flatten(1, 2)  # (B, M, channels)
        return content.to(self.norm.weight.dtype)


def _step(layer: Convolution, half: torch.dtype | None, *, is_clamped: bool) -> _Step:
    weight = layer.weight.detach().to(half or layer.weight.dtype, memory_format=torch.channels_last)
    bias = None if layer.bias is None else layer.bias.detach().to(weight.dtype)
    before, after = layer.margins[:2]
    return _Step(weight, bias, layer.stride[0], layer.groups, (before, after), is_clamped)
