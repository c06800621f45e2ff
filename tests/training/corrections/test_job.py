"""`perceiverd train fit --corrections` on a tiny model: real clips, a real fit, a real history."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from perceiverd.corrections import Correction, Corrections
from perceiverd.model.card import load_card
from perceiverd.sources.snapshots import recent
from perceiverd.sources.snapshots.sound import flac
from perceiverd.training.cli.app import app
from tests.support.clips import make_model
from tests.support.finetune import AUDIO, RATE_HZ, weights
from tests.support.history import Store, event

NOW = datetime.now(UTC).replace(microsecond=0)
SIREN = ("/m/03kmc9", "Siren")
BUZZ = ("user/gate-buzzer", "Gate buzzer")
MINUTES = 3


def buzz(seconds: float) -> NDArray[np.float32]:
    times = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return (0.3 * np.sign(np.sin(2 * np.pi * 100 * times))).astype(np.float32)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, some minutes of recent sound with six buzzes, and corrections: five examples, and one wrong siren."""
    folder = tmp_path_factory.mktemp("home")
    make_model(folder / "start", AUDIO)
    begin = NOW - timedelta(hours=1)
    sound = np.random.default_rng(1).normal(0, 0.01, MINUTES * 60 * RATE_HZ).astype(np.float32)
    at_s = [10 + 25 * number for number in range(6)]
    for each in at_s:
        sound[each * RATE_HZ : each * RATE_HZ + 2 * RATE_HZ] += buzz(2)
    sound[100 * RATE_HZ : 104 * RATE_HZ] += 0.2 * np.sin(np.arange(4 * RATE_HZ) * 0.7).astype(np.float32)
    (folder / "recent/door").mkdir(parents=True)
    for first in range(0, len(sound), 20 * RATE_HZ):
        start_ns = round((begin.timestamp() + first / RATE_HZ) * 1e9)
        data = flac(sound[first : first + 20 * RATE_HZ], RATE_HZ)
        (folder / "recent/door" / recent.name_of(start_ns, 20_000)).write_bytes(data)
    corrections = Corrections(folder / "marks", {"local": folder / "recent"})
    for each in at_s[:5]:
        start = begin + timedelta(seconds=each)
        corrections.add("example", "local", "door", *BUZZ, start, start + timedelta(seconds=2))
    start = begin + timedelta(seconds=100)
    corrections.add("wrong", "local", "door", *SIREN, start, start + timedelta(seconds=4), "siren-1")
    return folder


def fit(home: Path, out: Path, *more: str) -> Result:
    usual = ["fit", "--corrections", str(home / "marks"), "--from", str(home / "start"), "--out", str(out)]
    return CliRunner().invoke(app, [*usual, *more], catch_exceptions=False)


def test_a_taught_sound_becomes_a_label(home: Path, tmp_path: Path) -> None:
    """The new model has the label; only rows of corrected labels differ, and the report says what was learnt."""
    done = fit(home, tmp_path / "new", "--recent", str(home / "recent"), "--threads", "1")
    assert done.exit_code == 0, done.output
    card, before, after = load_card(tmp_path / "new"), weights(home / "start"), weights(tmp_path / "new")
    assert card.labels[-1].mid == BUZZ[0] and len(card.labels) == 528
    changed = {label.index for label in card.labels if label.mid in (SIREN[0], BUZZ[0])}
    for name, old in before.items():
        if name.startswith("head.out."):
            same = [torch.equal(row, after[name][at]) for at, row in enumerate(old)]
            assert {at for at, equal in enumerate(same) if not equal} <= changed | set(_below(home, SIREN[0]))
        else:
            assert torch.equal(old, after[name]), name
    assert "| Gate buzzer | 5 | 0 | new -> " in done.stdout and "5 of 5" in done.stdout
    assert "| Siren | 0 | 1 |" in done.stdout
    assert "What would have changed:" in done.stdout and "Nothing was replaced" in done.stdout
    assert "Gate buzzer" in (tmp_path / "new" / "README.md").read_text()


def test_stored_events_are_judged_again(home: Path, tmp_path: Path) -> None:
    """Events of the last week count with their clips, or with the recent sound of their time; older ones do not."""
    store = Store(tmp_path)
    store.begin()
    clip = tmp_path / "clip.flac"
    clip.write_bytes(flac(buzz(4), RATE_HZ))
    for number, (start, path) in enumerate(
        [
            (NOW - timedelta(hours=30), str(clip)),
            (NOW - timedelta(hours=29), None),
            (NOW - timedelta(days=9), str(clip)),
        ]
    ):
        made = event("begin", SIREN[1], number, number + 1, key=f"siren-{number}")
        store.receive(number, msgspec.structs.replace(made, start=start, end=start + timedelta(seconds=2), clip=path))
    store.end(9)
    done = fit(home, tmp_path / "new", "--recent", str(home / "recent"), "--history", str(store.path))
    assert done.exit_code == 0, done.output
    (row,) = [line for line in done.stdout.partition("What would")[2].splitlines() if line.startswith("| Siren |")]
    stored, judged, gone = (int(cell) for cell in row.split("|")[2:5])
    assert stored == 2 and gone <= judged <= 1


def _below(home: Path, mid: str) -> list[int]:
    from perceiverd.history.filters import descendants

    return [label.index for label in load_card(home / "start").labels if label.mid in descendants(mid)]


def test_the_sixth_buzz_is_found(home: Path, tmp_path: Path) -> None:
    """The new model finds a buzz that nobody marked, and nothing in the minutes between."""
    from perceiverd.training.corrections.replay import Classifier
    from perceiverd.training.corrections.windows import HOP_S, Embedder, recent_runs

    assert fit(home, tmp_path / "new", "--recent", str(home / "recent")).exit_code == 0
    embedder = Embedder(load_card(tmp_path / "new"))
    (run,) = recent_runs(home / "recent", "door", embedder.card.geometry, NOW - timedelta(days=1))
    last, card = embedder.last, embedder.card
    model = Classifier(card.labels, last.weight.detach().numpy(), last.bias.detach().numpy(), card.calibration)
    vectors = embedder.vectors(list(run.windows(card.geometry)))
    found = [each for each in model.events(vectors, HOP_S, card.geometry.window_ns) if each.label == 527]
    assert [round((each.start_ns / 1e9 - 10) / 25) for each in found] == list(range(6))


def test_faults_are_one_line(home: Path, tmp_path: Path) -> None:
    """Each message says what is wrong and what to do; no model is written."""
    (tmp_path / "empty").mkdir()
    old = Correction(
        id="0" * 16,
        at=NOW,
        verdict="wrong",
        machine="local",
        stream="door",
        mid="user/lost",
        name="Lost label",
        start=NOW,
        end=NOW + timedelta(seconds=1),
        sound=f"{'0' * 16}.flac",
    )
    (tmp_path / "lost").mkdir()
    from perceiverd.corrections.manifest import encoded

    (tmp_path / "lost/corrections.jsonl").write_bytes(encoded([old]))
    for folder, message in (("empty", "has no corrections"), ("lost", "has no label 'Lost label'")):
        with pytest.raises(Exception, match=message):
            CliRunner().invoke(
                app,
                ["fit", "--corrections", str(tmp_path / folder), "--from", str(home / "start"), "--out", "x"],
                catch_exceptions=False,
            )
    with pytest.raises(Exception, match="is a model already"):
        fit(home, home / "start")
    done = fit(home, tmp_path / "x", "--held-out", "a.csv")
    assert done.exit_code == 2 and "does not go with --corrections" in done.output
    assert CliRunner().invoke(app, ["fit", "--out", "x"]).exit_code == 2
    assert not (tmp_path / "x").exists()
