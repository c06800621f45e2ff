"""Nodes of the log-mel front end, as `encoding.log_mel`. Knows no tokens."""

from __future__ import annotations

import numpy as np

from perceiverd.model.geometry import Audio
from perceiverd.model.graph.builder import GraphBuilder, Value
from perceiverd.model.tables import MEL_FFT, MEL_OFFSET, MEL_WINDOW, hann_window, mel_margin, mel_matrix

BINS = MEL_FFT // 2 + 1


def spectrogram(g: GraphBuilder, samples: Value, audio: Audio) -> Value:
    """Log-mel spectrogram (B, frames, bands) of samples (B, S): the Fourier transform is a convolution."""
    margin = mel_margin(audio.mel_hop)
    padded = g.node("Pad", samples, g.ints(0, margin, 0, margin), mode="reflect")
    parts = g.node(
        "Conv",
        g.node("Unsqueeze", padded, g.ints(1)),
        _kernels(g),
        kernel_shape=(MEL_WINDOW,),
        strides=(audio.mel_hop,),
    )  # (B, 2 * bins, frames)
    squares = g.reshape(g.node("Mul", parts, parts), 0, 2, BINS, -1)
    magnitude = g.node("Sqrt", g.reduce("Sum", squares, 1))  # (B, bins, frames)
    mel = g.node("MatMul", g.transpose(magnitude, 0, 2, 1), g.constant(mel_matrix(audio.mel_bands)))
    return g.node("Log", g.node("Add", mel, g.floats(MEL_OFFSET)))


def _kernels(g: GraphBuilder) -> Value:
    """(2 * bins, 1, 400): cosines, then sines, under the window. Computed in the graph, which stays small."""
    bins = g.floats(np.arange(BINS)[:, None])
    steps = g.node("Mul", bins, g.floats(np.arange(MEL_WINDOW)[None]))
    # Whole turns go first, while the numbers are exact integers.
    turns = g.node("Mod", steps, g.floats(MEL_FFT), fmod=1)
    angles = g.node("Mul", turns, g.floats(2 * np.pi / MEL_FFT))
    window = g.constant(hann_window().astype(np.float32))
    waves = [g.node("Mul", g.node(each, angles), window) for each in ("Cos", "Sin")]
    return g.node("Unsqueeze", g.concat(*waves, axis=0), g.ints(1))
