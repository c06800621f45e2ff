"""The head for quiet: a last layer that no longer names things in quiet, and changes little else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from perceiverd.core.labels import ontology
from perceiverd.model.card import load_card
from perceiverd.model.checkpoint import load_network
from perceiverd.model.encoding import audio_tokens, mel_tokens
from perceiverd.training.cli.app import app
from perceiverd.training.data import ambient
from perceiverd.training.distill import quiet_head
from perceiverd.training.distill.audio_shards import AudioShards, dequantise
from perceiverd.training.distill.rehearsal import headless


def test_quiet_scores_fall_and_others_stay() -> None:
    """In quiet the wrong label no longer scores; on the training material scores hardly change."""
    torch.manual_seed(0)
    last = nn.Linear(24, 7)
    with torch.no_grad():
        last.weight *= 3
        last.weight[5, 0] = 2.0  # the label that the quiet wrongly gets
    material = torch.randn(501, 24)
    material[:, 0] = 0  # only quiet has this direction
    still = 0.1 * torch.randn(97, 24)
    still[:, 0] = 4
    wrong = torch.ones(97, 7, dtype=torch.bool)
    wrong[:, 3] = False  # a label that names the quiet
    material_before, quiet_before = last(material).sigmoid().detach(), last(still)[:, 3].sigmoid().detach()
    before, after = quiet_head.fit(last, material, quiet_head.QuietWindows(still, wrong))
    assert before > 0.7 and after < 0.05
    with torch.no_grad():
        moved, quiet_after = last(material).sigmoid() - material_before, last(still)[:, 3].sigmoid()
    assert float(moved.abs().mean()) < 0.01
    assert float((quiet_after - quiet_before).abs().mean()) < 0.05


def test_the_bundled_model_takes_streams_of_every_kind() -> None:
    """Audio, video and both give vectors. Labels that name the stream, and those above or below them, are not wrong."""
    card = load_card()
    network, last = headless(load_network(card))
    streams = list(ambient.streams(card.geometry, [], ambient.QUIET_HEAD_SEED, 11 * 5 / 3600, 5))
    found = quiet_head.quiet_features(network, card, iter(streams))
    assert found.features.shape == (len(found.wrong), last.in_features)
    names = np.array([label.name for label in card.labels])
    correct = names[~found.wrong.any(dim=0).numpy()]
    assert {"Silence", "Hum", "Hiss"} <= set(correct) and not {"Dog", "Speech", "Music"} & set(correct)


def test_stored_tokens_are_used_if_the_stem_made_them(noises: Path, listener: Path) -> None:
    """The bundled model's stem is the whole teacher, so shards may have its output; other tokens or stems differ."""
    card = load_card()
    network, shards = load_network(card), AudioShards([noises])
    assert not quiet_head.has_tokens(network, card.geometry, shards)
    assert card.geometry.audio
    raw = mel_tokens(dequantise(torch.from_numpy(np.load(noises / "00000.mel.npy"))), card.geometry.audio)
    with torch.no_grad():
        tokens = network.bytes.convolve({"audio": raw})["audio"]
    np.save(noises / "00000.tokens.npy", tokens.half().numpy())
    assert quiet_head.has_tokens(network, card.geometry, AudioShards([noises]))
    other = load_card(listener)
    assert not quiet_head.has_tokens(load_network(other), other.geometry, shards)


def test_the_command_changes_the_last_layer_alone(
    listener: Path, noises: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`train hush` writes a model whose scores in silence are lower; only its last layer differs from the given one."""
    monkeypatch.setattr(ambient, "FIT_S", 5)
    given = ["hush", "--model", str(listener), "--pool", str(noises), "--out", str(tmp_path / "still")]
    done = CliRunner().invoke(app, [*given, "--hours", "0.015", "--count", "1"], catch_exceptions=False)
    assert done.exit_code == 0
    cards = [load_card(listener), load_card(tmp_path / "still")]
    before, after = (load_network(card).state_dict() for card in cards)
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert changed == {"head.out.weight", "head.out.bias"}
    audio = cards[0].geometry.audio
    assert audio
    silence = {"audio": audio_tokens(torch.zeros(1, audio.samples), audio)}
    dog = ontology().find("Dog").index
    with torch.no_grad():
        loud, still = (float(load_network(card)(silence)[0, dog].sigmoid()) for card in cards)
    assert still < 0.2 * loud
