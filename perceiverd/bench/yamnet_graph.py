"""YAMNet's layers as a graph of their own, with random weights: what sound alone costs in the same runtime.

Its window is 0.96 s: 96 frames of a log-mel spectrogram, 14 layers, a mean, and 521 classes (Plakal and Ellis 2019).
"""

from __future__ import annotations

from pathlib import Path

from perceiverd.core.labels import Label
from perceiverd.model.card import load_card
from perceiverd.model.checkpoint import save_model
from perceiverd.model.geometry import Audio, Geometry, SenseGeometry, StemGeometry, Trunk
from perceiverd.model.graph import proto
from perceiverd.model.graph.builder import GraphBuilder
from perceiverd.model.graph.contents import audio_features
from perceiverd.model.graph.layers import linear
from perceiverd.model.graph.weights import read_index
from perceiverd.model.perceiver import Perceiver

SAMPLES, CLASSES = 15_360, 521
LAYERS = (
    "conv 3/2 32",
    "separable 3 64",
    "separable 3/2 128",
    "separable 3 128",
    "separable 3/2 256",
    "separable 3 256",
    "separable 3/2 512",
    *["separable 3 512"] * 5,
    "separable 3/2 1024",
    "separable 3 1024",
)


def write(folder: Path) -> Path:
    """Write the graph and its weights into this folder; it takes `audio` (batch, 15360). Returns the graph's file."""
    stem, sense = StemGeometry(LAYERS), SenseGeometry(CLASSES)
    audio = Audio(16_000, SAMPLES, "mel", patch=(32, 32), bands=1, stem=stem, sense=sense)
    geometry = Geometry(CLASSES, Trunk(1, 8, 1, 0, 1, head="senses"), audio)
    network = Perceiver(geometry.modalities, geometry.trunk, CLASSES)
    labels = [Label(i, f"user/{i}", str(i)) for i in range(CLASSES)]
    save_model(folder, network, geometry, labels, name="yamnet", licence="CC0-1.0")
    g = GraphBuilder(read_index(load_card(folder)))
    samples = g.input("audio", proto.FLOAT, "batch", SAMPLES)
    mean = g.reduce("Mean", audio_features(g, samples, audio), 1)
    logits = linear(g, mean, "head.senses.audio.direct", stem.channels, CLASSES)
    g.output(logits, "logits", "batch", CLASSES)
    file = folder / "yamnet.onnx"
    file.write_bytes(g.model("yamnet"))
    return file
