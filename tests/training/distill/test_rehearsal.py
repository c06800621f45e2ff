"""Rehearsal vectors: kept beside a model's weights, and valid for these weights only."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from perceiverd.core.errors import ModelError
from perceiverd.model.card import load_card
from perceiverd.model.checkpoint import load_network
from perceiverd.training.cli.app import app
from perceiverd.training.distill import rehearsal


def test_vectors_belong_to_their_weights(listener: Path, noises: Path) -> None:
    """`train rehearsal` writes `--count` vectors. A network with other weights refuses them."""
    given = ["rehearsal", "--model", str(listener), "--pool", str(noises), "--count", "37"]
    assert CliRunner().invoke(app, given, catch_exceptions=False).exit_code == 0
    card = load_card(listener)
    network, _ = rehearsal.headless(load_network(card))
    found = rehearsal.features(card, network)
    assert found.shape == (37, 16) and float(found.std(dim=0).min()) > 0
    with torch.no_grad():
        network.latents.add_(1)
    with pytest.raises(ModelError, match="was made with other weights"):
        rehearsal.features(card, network)


def test_a_model_without_vectors_uses_rendered_sounds(listener: Path) -> None:
    """Noises, tones and silence replace the windows that the model learnt from."""
    card = load_card(listener)
    found = rehearsal.features(card, rehearsal.headless(load_network(card))[0])
    assert len(found) > 100 and bool(found.isfinite().all())


@pytest.mark.parametrize("content", [b"", b"no vectors", b"\x08" + bytes(40)])
def test_a_damaged_file_is_refused(listener: Path, content: bytes) -> None:
    """The error names the file and what to do."""
    (listener / rehearsal.REHEARSAL_FILE).write_bytes(content)
    card = load_card(listener)
    with pytest.raises(ModelError, match=r"rehearsal\.safetensors: is not a file of rehearsal vectors"):
        rehearsal.features(card, rehearsal.headless(load_network(card))[0])
