"""Imported models in use: by the command line, by a daemon, and by the tagger."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest

from perceiverd.model import hub
from perceiverd.pipeline.tagger import Tagger
from perceiverd.pipeline.windower import Window
from perceiverd.wire import messages
from perceiverd.wire.client import subscribe
from tests.support.clips import write_clip
from tests.support.hub import run_program
from tests.support.program import Start

pytestmark = pytest.mark.timeout(600)  # several processes, each of which loads torch


def test_the_command_line_uses_an_imported_model(checkpoint: Path, tmp_path: Path) -> None:
    """It is listed, described, verified, and tags by its name; labels are Kinetics', and all scores sum to 1."""
    done = run_program(tmp_path, "models", "import", checkpoint, "--licence", "CC-BY-4.0")
    folder = tmp_path / "perceiverd" / "models" / "perceiver"
    assert done.stdout == f"perceiver: 700 labels, CC-BY-4.0, in {folder}\n", done.stderr
    assert sorted(path.name for path in folder.parent.iterdir()) == ["perceiver"]
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in [folder, *folder.iterdir()])
    assert "perceiver            700 labels" in run_program(tmp_path, "models", "list").stdout
    assert "(softmax)" in run_program(tmp_path, "models", "info", "perceiver").stdout
    assert "700 labels" in run_program(tmp_path, "models", "verify", "perceiver").stdout
    clip = write_clip(tmp_path / "a.wav", audio_s=1)
    done = run_program(tmp_path, "tag", clip, "--model", "perceiver", "--format", "jsonl", "--scores", "--top", "700")
    first = json.loads(done.stdout.splitlines()[0])
    assert sum(label["score"] for label in first["labels"]) == pytest.approx(1, abs=1e-3)
    assert all(label["mid"].startswith("k700/") for label in first["labels"])


def test_a_daemon_runs_an_imported_model(checkpoint: Path, tmp_path: Path, start: Start) -> None:
    """`run` finds the model by the name under which it was imported; the scores of its labels sum to 1."""
    hub.install(str(checkpoint), tmp_path / "perceiverd" / "models" / "mine")
    config, log = tmp_path / "c.toml", tmp_path / "log"
    config.write_text("""
        model = { name = "mine", threads = 1 }
        publish = { endpoint = "ipc://labels", top = 700 }
        streams.one.sources = [{ kind = "synthetic" }]
    """)
    process = start("run", "--config", str(config), log=log, XDG_DATA_HOME=str(tmp_path))
    with subscribe(f"ipc://{tmp_path}/labels", (messages.scores_topic("one"),)) as subscription:
        scores = subscription.receive_message(300)  # on a busy machine it takes long to load torch
    assert isinstance(scores, messages.Scores), log.read_text()
    assert len(scores.labels) == 700 and all(label.mid.startswith("k700/") for label in scores.labels)
    assert sum(label.score for label in scores.labels) == pytest.approx(1, abs=0.05)  # each score is rounded
    assert scores.end_s - scores.start_s == pytest.approx(0.12)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0, log.read_text()


def test_windows_without_a_modality_are_scored(checkpoint: Path, tmp_path: Path) -> None:
    """Windows with both modalities and with one are scored together; each window's scores sum to 1."""
    card = hub.install(str(checkpoint), tmp_path / "model")
    geometry = card.geometry
    assert geometry.audio and geometry.video
    rng = np.random.default_rng(0)
    audio = rng.uniform(-1, 1, geometry.audio.samples).astype(np.float32)
    shape = geometry.video.frames, geometry.video.height, geometry.video.width, 3
    video = rng.integers(0, 256, shape, dtype=np.uint8)
    scores = Tagger(card, "cpu").tag([Window(0, 1, audio, video), Window(0, 1, None, video), Window(0, 1, audio, None)])
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)
    assert np.abs(scores[0] - scores[1]).max() > 0
