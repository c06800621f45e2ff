"""Fits: new labels are learnt and old ones kept. The result is the same twice, after a stop, and in two processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from perceiverd.core.errors import ConfigError, ModelError
from perceiverd.core.labels import Label, ontology
from perceiverd.evaluation import manifest
from perceiverd.model.card import load_card
from perceiverd.model.checkpoint import load_network
from perceiverd.training.distill import rehearsal
from perceiverd.training.finetune import evaluate
from tests.support.clips import make_model
from tests.support.finetune import AUDIO, fit, run_fit, same_weights, weights, write_manifest

ROOT = Path(__file__).parents[3]


# ---------------------------------------------------------------------------------------------- labels alone
def test_new_labels_are_learnt_and_old_ones_kept(home: Path, tmp_path: Path) -> None:
    """Two new sounds are distinguished; every old row, and the old calibration, stays the same to the bit."""
    printed = fit(home, tmp_path / "new", held_out=home / "held.csv")
    card, start = load_card(tmp_path / "new"), load_card(home / "start")
    assert card.labels == (
        *start.labels,
        Label(527, "user/loud-buzz", "Loud buzz"),
        Label(528, "user/faint-hiss", "Faint hiss"),
    )
    assert card.calibration[: len(start.labels)] == start.calibration and card.licence == start.licence
    assert [one.threshold for one in card.calibration[len(start.labels) :]] == [0.4, 0.4]
    before, after = weights(home / "start"), weights(tmp_path / "new")
    for name, tensor in before.items():
        assert torch.equal(after[name][: len(tensor)] if name.startswith("head.out") else after[name], tensor), name
    # The network before the last layer is untrained. So it knows its own clips, and others better than chance.
    taught = manifest.read(home / "clips.csv", card.labels)
    scores = evaluate.score_clips(taught, [card, start], home / "cache", device="cpu", threads=1)
    table = evaluate.report(scores, card, [527, 528], start)
    assert "| Loud buzz | 6 | 1.000 |" in table and "| Faint hiss | 6 | 1.000 |" in table
    found = re.findall(r"\| (?:Loud buzz|Faint hiss) \| 6 \| ([\d.]+) \|", printed)
    assert len(found) == 2 and min(map(float, found)) > 0.6
    assert "| Loud buzz | `user/loud-buzz` | yes | 6 |" in (tmp_path / "new" / "README.md").read_text()


def test_a_fitted_model_can_be_fitted_again(home: Path, tmp_path: Path) -> None:
    """Classes of an earlier fit are labels like others; only new names add classes."""
    fit(home, tmp_path / "new", epochs=3)
    more = write_manifest(home / "more.csv", [("0.wav", "loud buzz"), ("1.wav", "Kettle song"), ("3.wav", "Dog")])
    fit(home, tmp_path / "newer", manifest=more, start=f"{tmp_path}/new", epochs=3)
    assert [label.name for label in load_card(tmp_path / "newer").labels[527:]] == [
        "Loud buzz",
        "Faint hiss",
        "Kettle song",
    ]
    first, second = weights(tmp_path / "new")["head.out.weight"], weights(tmp_path / "newer")["head.out.weight"]
    changed = {int(row) for row in (first != second[:529]).any(dim=1).nonzero()}
    assert changed == {527, next(label.index for label in ontology().labels if label.name == "Dog")}


def test_rehearsal_vectors_keep_new_labels_low(home: Path, tmp_path: Path) -> None:
    """New labels score lower on the vectors saved beside a model than they would without these vectors."""
    card = load_card(make_model(tmp_path / "start", AUDIO))
    network, _ = rehearsal.headless(load_network(card))
    with torch.inference_mode():
        remembered = rehearsal.rendered(network, AUDIO.audio)
    torch.manual_seed(0)
    far = remembered[:1] + 30 * torch.randn(64, 8)
    rehearsal.write(tmp_path / "start" / rehearsal.REHEARSAL_FILE, far, network)
    for name, weight in (("with", 1.0), ("without", 0.0)):
        settings = tmp_path / f"{name}.toml"
        settings.write_text(f"[fit]\nrehearsal = {weight}\n")
        fit(home, tmp_path / name, start=f"{tmp_path}/start", settings=settings)
    scores = {}
    for name in ("with", "without"):
        found = weights(tmp_path / name)
        scores[name] = float((far @ found["head.out.weight"][527:].T + found["head.out.bias"][527:]).sigmoid().mean())
    assert scores["with"] < scores["without"]
    fit(home, tmp_path / "again", start=f"{tmp_path}/with", epochs=2)  # the copied vectors are valid for it too
    rehearsal.write(tmp_path / "with" / rehearsal.REHEARSAL_FILE, far, torch.nn.Linear(2, 2))
    with pytest.raises(ModelError, match="made with other weights"):
        fit(home, tmp_path / "other", start=f"{tmp_path}/with", epochs=2)


# ---------------------------------------------------------------------------------------------- the whole network
def test_the_whole_network_changes_little(home: Path, tmp_path: Path) -> None:
    """With `--train all` most tensors change, each by less than 0.05."""
    fit(home, tmp_path / "new", train="all", rehearse=home / "start", skip=1.0, epochs=5)
    before, after = weights(home / "start"), weights(tmp_path / "new")
    moved = [name for name, tensor in before.items() if not torch.equal(after[name][: len(tensor)], tensor)]
    assert len(moved) > len(before) / 2
    assert max(float((after[name][: len(tensor)] - tensor).abs().max()) for name, tensor in before.items()) < 0.05


def test_a_new_model_is_the_same_twice(home: Path, tmp_path: Path, new_model: Path) -> None:
    """Two runs with the same settings and seed give the same weights, bit for bit; another seed gives others."""
    for name, seed in (("one", 1), ("other", 1), ("third", 2)):
        fit(home, tmp_path / name, start=None, settings=new_model, seed=seed)
    assert same_weights(tmp_path / "one", tmp_path / "other")
    assert not same_weights(tmp_path / "one", tmp_path / "third")


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, int], None]]:
    """Sends SIGINT at a call of a learner's `backward`."""
    from perceiverd.training.finetune import learners

    def press(kind: str, at: int) -> None:
        learner = getattr(learners, kind)
        backward = learner.backward

        def pressed(self: object, step: int, scaler: object) -> dict[str, float]:
            if step == at:
                signal.raise_signal(signal.SIGINT)
            figures: dict[str, float] = backward(self, step, scaler)
            return figures

        monkeypatch.setattr(learner, "backward", pressed)

    yield press
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(("train", "kind"), [("head", "HeadLearner"), ("all", "NetworkLearner")])
def test_a_stopped_fit_can_be_resumed(
    home: Path, tmp_path: Path, interrupted: Callable[[str, int], None], train: str, kind: str
) -> None:
    """Ctrl-C ends the step and saves the state. The resumed fit gives the weights of one that was never stopped."""
    fit(home, tmp_path / "through", train=train, epochs=4)
    with pytest.MonkeyPatch.context():
        interrupted(kind, 0)
        done = run_fit(
            manifest=home / "clips.csv",
            out=tmp_path / "stopped",
            start=home / "start",
            cache=home / "cache",
            threads=1,
            device="cpu",
            train=train,
            epochs=4,
        )
    assert done.exit_code == 130
    assert "stopped after 1 steps; to resume, run the same command with --resume" in done.stderr
    assert not (tmp_path / "stopped").exists()
    with pytest.raises(ConfigError, match="continue with --resume"):
        fit(home, tmp_path / "stopped", train=train, epochs=4)
    with pytest.raises(ConfigError, match="other clips, labels or settings"):
        fit(home, tmp_path / "stopped", train=train, epochs=4, seed=2, resume=True)
    fit(home, tmp_path / "stopped", train=train, epochs=4, resume=True)
    assert same_weights(tmp_path / "through", tmp_path / "stopped")


@pytest.mark.timeout(400)  # starting Python and torch three times is slow on a busy machine
@pytest.mark.parametrize("new", [False, True], ids=["head", "new"])
def test_two_processes_equal_one(home: Path, tmp_path: Path, new_model: Path, new: bool) -> None:
    """Under torchrun, two processes give the weights of one with the same global batch, up to rounding."""
    origin = {"start": None, "settings": new_model} if new else {"epochs": 10.0}
    held = None if new else home / "held.csv"
    printed = fit(home, tmp_path / "one", held_out=held, **origin)
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "perceiverd", "train", "fit"]
    more = ["--settings", new_model] if new else ["--from", f"{home}/start", "--epochs", 10, "--held-out", held]
    kept = ["--manifest", home / "clips.csv", "--out", tmp_path / "two", "--cache", home / "cache"]
    command = [sys.executable, "-m", *launcher, *map(str, [*kept, *more, "--threads", 1, "--device", "cpu"])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=380, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == printed.split()
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, tensor in one.items():
        # Softmax ignores a bias of the keys, so its gradient is rounding alone, and Adam makes whole steps of that.
        if not name.endswith("key.bias"):
            torch.testing.assert_close(two[name], tensor, atol=2e-5, rtol=1e-4)
