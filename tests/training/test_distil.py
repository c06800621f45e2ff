"""Teaching a tiny Perceiver from a tiny pool: it learns, goes on after a stop, and repeats itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner

from perceiverd.card import load_card
from perceiverd.checkpoint import load_network
from perceiverd.errors import ConfigError, MediaError
from perceiverd.geometry import Audio, Geometry, Trunk, Video
from perceiverd.training.batches import Batches, Mix, Sounds, joint_targets, sight_targets, sound_targets
from perceiverd.training.cli import app
from perceiverd.training.crew import Crew
from perceiverd.training.distil import Student, distil, loss_of
from perceiverd.training.loop import Budget, State, StoppedError
from perceiverd.training.optimiser import rate
from perceiverd.training.plan import Fit

ROOT = Path(__file__).parent.parent.parent
CLASSES = 7
GEOMETRY = Geometry(
    classes=CLASSES,
    trunk=Trunk(latents=4, width=8, cross_attends=1, layers=1, heads=2),
    audio=Audio(rate_hz=16_000, samples=1_600, form="mel", patch=(5, 16), bands=1),
    video=Video(frames=2, fps=20, height=6, width=10, patch=(2, 3, 5), bands=1),
)


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """Windows whose loudness is their class."""
    rng = np.random.default_rng(0)
    classes = rng.integers(CLASSES, size=50)
    arrays: dict[str, NDArray[np.generic]] = {
        "mel": (classes[:, None, None] * 30 + rng.integers(10, size=(50, 10, 64))).astype(np.uint8),
        "teacher": np.where(np.eye(CLASSES)[classes] > 0, 3, -6).astype(np.float16),
        "truth": np.full((50, CLASSES), -1, np.int8),
        "embedding": np.zeros((50, 1024), np.float16),
        "class": classes.astype(np.int16),
    }
    for name, array in arrays.items():
        np.save(tmp_path / f"00000.{name}.npy", array)
    return tmp_path


class Pictures:
    """One picture a class: its brightness."""

    def has(self, audioset_class: int) -> bool:
        return audioset_class != 0

    def draw(self, rng: np.random.Generator, audioset_class: int | None) -> tuple[torch.Tensor, NDArray[np.float16]]:
        shown = int(rng.integers(CLASSES)) if audioset_class is None else audioset_class
        targets = np.zeros(CLASSES, np.float16)
        targets[shown] = 1
        return torch.full((4, 90), shown / CLASSES), targets


def batches(pool: Path, pictures: Pictures | None = None) -> Batches:
    return Batches(GEOMETRY, Sounds(pool), pictures, size=16, seed=3, mix=Mix())


def test_a_number_always_gives_the_same_batch(pool: Path) -> None:
    """Batches depend on seed and number alone, so a fit that is resumed sees what it would have seen."""
    one, other = batches(pool, Pictures()), batches(pool, Pictures())
    for number in range(6):
        a, b = one.make(number), other.make(number)
        assert a.kind == b.kind and torch.equal(a.targets, b.targets)
        assert all(torch.equal(a.contents[name], b.contents[name]) for name in a.contents)
    assert {one.make(number).kind for number in range(30)} == {"audio", "both", "video"}


def taught(pool: Path, state: Path, batches_: int, pictures: Pictures | None = None) -> Student:
    """A student after so many batches."""
    torch.manual_seed(1)
    student = Student(GEOMETRY)
    how = Fit(rate=1e-2, warmup=0.1, batch=16, save_every_s=1e-9)
    distil(student, batches(pool, pictures), how, Budget(batches_), State(state / "state.pt", "one"), half=False)
    return student


def same(one: Student, other: Student) -> bool:
    return all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


def test_distilling_lowers_the_loss_and_repeats_itself(pool: Path, tmp_path: Path) -> None:
    """Sixty batches are better than none; the same again gives the same weights, to the bit."""
    torch.manual_seed(1)
    batch = batches(pool).make(0)
    before = loss_of(Student(GEOMETRY), batch, half=False)[1]
    student = taught(pool, tmp_path / "one", 60)
    assert loss_of(student, batch, half=False)[1] < before / 2
    assert same(student, taught(pool, tmp_path / "other", 60))


def test_what_is_spent_is_spent(pool: Path, tmp_path: Path) -> None:
    """A fit whose budget is spent goes no further; one that was stopped ends as if it had not been."""
    whole = taught(pool, tmp_path / "whole", 30, Pictures())
    assert same(whole, taught(pool, tmp_path / "whole", 30, Pictures()))
    average = Crew.average

    def stop(crew: Crew, module: torch.nn.Module, spent_s: float) -> float:
        signal.raise_signal(signal.SIGTERM)
        return average(crew, module, spent_s)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Crew, "average", stop)
        for step in range(1, 4):
            with pytest.raises(StoppedError, match=f"after {step} steps; the same command with --resume goes on"):
                taught(pool, tmp_path / "stopped", 30, Pictures())
    assert same(whole, taught(pool, tmp_path / "stopped", 30, Pictures()))


def test_a_state_that_cannot_be_gone_on_with_is_told(pool: Path, tmp_path: Path) -> None:
    """A damaged state, and one of another fit, are refused in a line that names them."""
    taught(pool, tmp_path, 1)
    whole = (tmp_path / "state.pt").read_bytes()
    with pytest.raises(ConfigError, match="keeps a fit of other clips, labels or settings"):
        State(tmp_path / "state.pt", "other").load()
    for damaged in (b"", whole[:1000], whole[:-100], b"no state"):
        (tmp_path / "state.pt").write_bytes(damaged)
        with pytest.raises(ConfigError, match=r"state\.pt: no state of a fit, or a damaged one"):
            taught(pool, tmp_path, 2)


def test_truth_overrules_the_teacher() -> None:
    """Known labels are 0 or 1; the rest is the teacher's word; what neither knows hardly counts."""
    teacher = torch.tensor([[0.0, 0.0, float("nan"), 2.0]])
    truth = torch.tensor([[1, 0, -1, -1]], dtype=torch.int8)
    targets, weights = sound_targets(teacher, truth)
    torch.testing.assert_close(targets, torch.tensor([[1.0, 0.0, 0.0, 0.8808]]), atol=1e-4, rtol=0)
    torch.testing.assert_close(weights, torch.tensor([[1.0, 1.0, 0.1, 1.0]]))


def test_what_is_heard_or_seen_is_there() -> None:
    """With both, a label is as likely as the surer sense says; what can't be seen keeps the sound's word."""
    heard, weights = torch.tensor([[0.2, 0.9, 0.3]]), torch.tensor([[0.1, 1.0, 1.0]])
    seen = torch.tensor([[1.0, 0.0, float("nan")]])
    targets, found = joint_targets(heard, weights, seen)
    torch.testing.assert_close(targets, torch.tensor([[1.0, 0.9, 0.3]]))
    torch.testing.assert_close(found, torch.tensor([[1.0, 1.0, 1.0]]))
    assert sight_targets(seen)[1].tolist() == [[1.0, 1.0, pytest.approx(0.1)]]


def test_the_rate_rises_and_falls_to_nothing() -> None:
    """The learning rate begins low, peaks after the warm-up and ends at zero."""
    shares = [rate(share, 0.1) for share in (0.0, 0.1, 0.55, 1.0)]
    assert shares[0] == pytest.approx(0.01) and shares[1] == pytest.approx(1)
    assert shares[2] == pytest.approx(0.5) and shares[3] == pytest.approx(0)


def test_an_empty_pool_is_told(tmp_path: Path) -> None:
    """A folder without mixtures is refused with the command that makes some."""
    with pytest.raises(MediaError, match="perceiverd train pool"):
        Sounds(tmp_path)


CREW = """
import sys, torch
from torch import nn
from perceiverd.training.crew import Crew
crew = Crew.join()
network = nn.Linear(3, 2)
unused = nn.Linear(2, 1)
nn.init.constant_(network.weight, 1.0)
network(torch.full((1, 3), crew.rank + 1.0)).sum().backward()
spent_s = crew.average(nn.ModuleList([network, unused]), spent_s=10.0 * crew.rank)
crew.leave()
torch.save((crew.size, spent_s, network.weight.grad, unused.weight.grad), f"{sys.argv[1]}/{crew.rank}.pt")
"""


def test_a_crew_takes_one_step(tmp_path: Path) -> None:
    """Processes under torchrun end up with the same mean gradients and time; a head that none used gets zeros."""
    script = tmp_path / "crew.py"
    script.write_text(CREW)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script), str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, *command], check=True, capture_output=True, timeout=100, env=environment)
    for rank in range(2):
        size, spent_s, used, unused = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert (size, spent_s) == (2, 5.0)
        assert torch.equal(used, torch.full((2, 3), 1.5)) and not unused.any()


TINY = """
classes = 527
trunk = { latents = 4, width = 8, cross_attends = 1, layers = 1, heads = 2 }
audio = { rate_hz = 16_000, samples = 1_600, form = "mel", patch = [5, 16], bands = 1 }
"""


def test_the_command_makes_a_model_and_goes_on(pool: Path, tmp_path: Path) -> None:
    """`train distil` writes a model, once; goes on with another where it has the same geometry; has one budget."""
    (tmp_path / "geometry.toml").write_text(TINY)
    for name, fill in (("teacher", np.float16(-6)), ("truth", np.int8(-1))):
        narrow = np.load(pool / f"00000.{name}.npy")
        wide = np.full((len(narrow), 527), fill)
        wide[:, :CLASSES] = narrow
        np.save(pool / f"00000.{name}.npy", wide)
    command = ["distil", "--geometry", tmp_path / "geometry.toml", "--pool", pool, "--out", tmp_path / "tiny"]
    command += ["--state", tmp_path / "state", "--batch", "4", "--no-half"]
    given = [str(part) for part in command]
    digests = set()
    for _ in range(2):
        assert CliRunner().invoke(app, [*given, "--batches", "5"], catch_exceptions=False).exit_code == 0
        digests.add(load_card(tmp_path / "tiny").sha256)
    assert len(digests) == 1
    both = CliRunner().invoke(app, [*given, "--batches", "5", "--minutes", "1"])
    assert both.exit_code == 2 and "one of --minutes and --batches" in both.output
    with pytest.raises(ConfigError, match="other clips, labels or settings"):
        CliRunner().invoke(app, [*given, "--batches", "9", "--seed", "2"], catch_exceptions=False)
    origin = load_network(load_card(tmp_path / "tiny")).state_dict()
    onward = [*given, "--state", str(tmp_path / "onward"), "--batches", "1", "--rate", "1e-9", "--from"]
    assert CliRunner().invoke(app, [*onward, str(tmp_path / "tiny")], catch_exceptions=False).exit_code == 0
    for name, tensor in load_network(load_card(tmp_path / "tiny")).state_dict().items():
        torch.testing.assert_close(tensor, origin[name], msg=name)
    with pytest.raises(ConfigError, match="is not the geometry of ear-and-eye-small"):
        CliRunner().invoke(app, [*onward, "ear-and-eye-small"], catch_exceptions=False)
