"""Nodes of the stems: convolutions over a frame or a spectrogram, as `perceiver.Stem`. Knows no attention."""

from __future__ import annotations

from perceiverd.model.geometry import LayerGeometry, StemGeometry
from perceiverd.model.graph.builder import GraphBuilder, Value

WIDEN = 6
"""Hidden channels over channels of an inverted layer, except a stem's first (MobileNetV2)."""


def stem(g: GraphBuilder, images: Value, name: str, geometry: StemGeometry, colours: int, tokens: int) -> Value:
    """Content (n, tokens, channels), not normalised, of images (n, colours, Y, X)."""
    x, inputs, parsed = images, colours, geometry.parsed
    if geometry.border:  # subtracted, so that the zeros of the first convolution's padding stand for it
        x = g.node("Sub", x, g.floats([[[value]] for value in geometry.border]))
    for number, layer in enumerate(parsed):
        first = all(before.kind != "inverted" for before in parsed[:number])
        x = _layer(g, x, f"{name}.layers.{number}", layer, inputs, geometry.ceiling, 1 if first else WIDEN)
        inputs = layer.channels
    return g.reshape(g.transpose(x, 0, 2, 3, 1), -1, tokens, inputs)


def _layer(
    g: GraphBuilder, x: Value, name: str, layer: LayerGeometry, inputs: int, ceiling: float, widen: int
) -> Value:
    """One `perceiver.StemLayer`."""
    hidden, kernel, stride, outputs = inputs * widen, layer.kernel, layer.stride, layer.channels
    # (inputs, outputs, kernel, stride, depthwise) of each convolution.
    steps = {
        "conv": [(inputs, outputs, kernel, stride, False)],
        "separable": [(inputs, inputs, kernel, stride, True), (inputs, outputs, 1, 1, False)],
        "inverted": [
            *([(inputs, hidden, 1, 1, False)] if widen > 1 else []),
            (hidden, hidden, kernel, stride, True),
            (hidden, outputs, 1, 1, False),
        ],
    }[layer.kind]
    linear = layer.kind == "inverted"
    y = x
    for number, (channels, wanted, size, step, depthwise) in enumerate(steps):
        y = _convolution(g, y, f"{name}.steps.{number}", channels, wanted, size, step, depthwise=depthwise)
        if not (linear and number == len(steps) - 1):
            y = g.node("Clip", y, g.floats(0.0), g.floats(ceiling)) if ceiling else g.node("Relu", y)
    return g.node("Add", x, y) if linear and stride == 1 and inputs == outputs else y


def _convolution(
    g: GraphBuilder, x: Value, name: str, inputs: int, outputs: int, kernel: int, stride: int, *, depthwise: bool
) -> Value:
    """One `perceiver.Convolution`: an odd row or column of padding goes to the end."""
    before, odd = divmod(kernel - stride, 2)
    margins = (before, before, before + odd, before + odd) if kernel > 1 else (0,) * 4
    return g.node(
        "Conv",
        x,
        g.weight(f"{name}.weight", outputs, 1 if depthwise else inputs, kernel, kernel),
        g.weight(f"{name}.bias", outputs),
        kernel_shape=(kernel, kernel),
        strides=(stride, stride),
        pads=margins,
        group=inputs if depthwise else 1,
    )
