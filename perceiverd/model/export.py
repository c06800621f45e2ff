"""Writes a model as an ONNX file for other programs. The weights are not copied: the file names their places."""

from __future__ import annotations

import os
from pathlib import Path

from perceiverd.core.errors import ModelError
from perceiverd.model.blocks import is_factorised_cheaper
from perceiverd.model.card import WEIGHTS_FILE, Card
from perceiverd.model.graph import network
from perceiverd.model.graph.builder import GraphBuilder
from perceiverd.model.graph.weights import read_index

GRAPH_FILE = "model.onnx"


def export(card: Card, into: Path | None = None, factorised: bool | None = None) -> Path:
    """Write `model.onnx` into the model's folder, or into `into` with a copy of the weights; returns the file.

    The graph takes samples `audio` (batch, S) and frames `video` (batch, T, H, W, 3), those that the model has, and
    gives `logits` (batch, classes). `factorised`: the form of the cross-attends; None takes the cheaper one. Raises
    ModelError if the weights are broken or a file cannot be written.
    """
    weights = read_index(card)
    g = GraphBuilder(weights)
    form = is_factorised_cheaper(card.geometry.modalities, card.geometry.trunk) if factorised is None else factorised
    network.whole_graph(g, card.geometry, factorised=form)
    weights.check_all_used(g.used)
    folder = into or card.folder
    file = folder / GRAPH_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / WEIGHTS_FILE).exists() or not (folder / WEIGHTS_FILE).samefile(weights.path):
            _replace(folder / WEIGHTS_FILE, weights.path.read_bytes())
        _replace(file, g.model(card.name, {"sha256": card.sha256, "licence": card.licence, "scores": card.scores}))
    except OSError as error:
        raise ModelError(f"{file}: cannot be written: {error.strerror}; name another folder with --into") from error
    return file


def _replace(path: Path, data: bytes) -> None:
    """Write a file that appears complete or not at all."""
    partial = path.with_name(f"{path.name}.part")
    partial.write_bytes(data)
    os.replace(partial, path)
