"""The command `train distil`: what it writes, what it overwrites, what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from perceiverd.core.errors import ConfigError, MediaError
from perceiverd.core.labels import Label
from perceiverd.model.card import load_card
from perceiverd.model.checkpoint import load_network, save_model
from perceiverd.training.cli.app import app
from perceiverd.training.fitting.loop import DivergedError
from tests.support.distilling import CLASSES

TINY = """
classes = 527
trunk = { latents = 4, width = 8, cross_attends = 1, layers = 1, heads = 2 }
"""
AUDIO = 'audio = { rate_hz = 16_000, samples = 1_600, form = "mel", patch = [5, 16], bands = 1 }'
VIDEO = "video = { frames = 2, fps = 20, height = 6, width = 10, patch = [2, 3, 5], bands = 1 }"


@pytest.fixture
def wide(pool: Path) -> Path:
    """The pool with all of AudioSet's labels."""
    for name, fill in (("teacher", np.float16(-6)), ("truth", np.int8(-1))):
        narrow = np.load(pool / f"00000.{name}.npy")
        wide = np.full((len(narrow), 527), fill)
        wide[:, :CLASSES] = narrow
        np.save(pool / f"00000.{name}.npy", wide)
    return pool


def run(wide: Path, out: str, *given: str, geometry: str = AUDIO, state: str = "state") -> Result:
    """Run `train distil` with small batches; errors are raised."""
    (wide / "geometry.toml").write_text(TINY + geometry)
    command = ["distil", "--geometry", wide / "geometry.toml", "--pool", wide, "--out", wide / out]
    command += ["--state", wide / state, "--batch", "4", "--no-half", *given]
    return CliRunner().invoke(app, [str(part) for part in command], catch_exceptions=False)


def test_the_command_writes_a_model_once(wide: Path) -> None:
    """The command writes a model and prints its digest. A second run has nothing left to do. It takes one budget."""
    digests = set()
    for _ in range(2):
        done = run(wide, "tiny", "--batches", "5")
        digests.add(load_card(wide / "tiny").sha256)
        assert done.exit_code == 0
        assert f"tiny: sha256 {load_card(wide / 'tiny').sha256}, licence NOASSERTION" in done.output
    assert len(digests) == 1
    both = run(wide, "tiny", "--batches", "5", "--minutes", "1")
    assert both.exit_code == 2 and "one of --minutes and --batches" in both.output
    with pytest.raises(ConfigError, match="other geometry, material, settings or number of processes"):
        run(wide, "tiny", "--batches", "9", "--seed", "2")


def test_a_fit_can_continue_from_a_model(wide: Path) -> None:
    """--from starts with a model's weights and keeps its licence; other geometries and labels are refused."""
    run(wide, "tiny", "--batches", "3", "--licence", "CC-BY-4.0")
    tiny = str(wide / "tiny")
    start = load_network(load_card(tiny)).state_dict()
    assert run(wide, "more", "--batches", "1", "--rate", "1e-9", "--from", tiny, state="onward").exit_code == 0
    more = load_card(wide / "more")
    assert more.licence == "CC-BY-4.0"
    for name, tensor in load_network(more).state_dict().items():
        torch.testing.assert_close(tensor, start[name], msg=name)
    for given, words in (
        (["--from", tiny], "is the model to start from"),
        (["--from", "ear-and-eye-small"], "is not that of ear-and-eye-small"),
        ([], "is a model already"),
    ):
        with pytest.raises(ConfigError, match=words):
            run(wide, "tiny", "--batches", "1", *given, state="other")
    card, own = load_card(tiny), wide / "own"
    labels = (*card.labels[:526], Label(526, "user/kettle", "Kettle"))
    save_model(own, load_network(card), card.geometry, labels, name="own", licence="CC0-1.0")
    with pytest.raises(ConfigError, match="own: has other labels than AudioSet's"):
        run(wide, "new", "--batches", "1", "--from", str(own), state="other")


def test_a_calibration_stays_with_its_weights(wide: Path) -> None:
    """The calibration stays while the weights are the same, also after a refused run. It goes when they change."""
    run(wide, "tiny", "--batches", "3")
    calibration = wide / "tiny" / "calibration.tsv"
    calibration.write_text("mid\tscale\tshift\tthreshold\n/m/0bt9lr\t2\t0\t0.5\n")
    assert run(wide, "tiny", "--batches", "3").exit_code == 0
    with pytest.raises(ConfigError, match="other geometry"):
        run(wide, "tiny", "--batches", "9", "--seed", "2")
    assert calibration.exists()
    assert run(wide, "tiny", "--batches", "4").exit_code == 0
    assert not calibration.exists()


def test_a_fit_overwrites_no_other_model(wide: Path) -> None:
    """A fit overwrites only the model that it wrote itself. A failed fit leaves no folder behind."""
    run(wide, "tiny", "--batches", "2")
    run(wide, "other", "--batches", "2", "--seed", "2", state="other-state")
    before = load_card(wide / "other").sha256
    with pytest.raises(ConfigError, match="is a model already"):
        run(wide, "other", "--batches", "3")
    assert load_card(wide / "other").sha256 == before
    (wide / "file").write_text("")
    with pytest.raises(MediaError, match="cannot be written"):
        run(wide, "new", "--batches", "1", state="file")
    assert not (wide / "new").exists()


def test_a_fit_that_diverges_ends(wide: Path) -> None:
    """A fit whose gradient is not finite ends with an error, and writes neither a model nor a state."""
    with pytest.raises(DivergedError, match="the gradient is not finite; start again with a lower rate"):
        run(wide, "tiny", "--batches", "50", "--rate", "1e30")
    assert not (wide / "tiny").exists() and not list((wide / "state").iterdir())


@pytest.mark.parametrize(
    ("geometry", "given", "words"),
    [
        ("", [], "a model needs"),
        (VIDEO, [], "needs audio of form mel"),
        (AUDIO.replace("mel", "raw").replace("[5, 16]", "[16]"), [], "needs audio of form mel"),
        (AUDIO.replace("1_600", "3_200"), [], "holds log-mel of"),
        (f"{AUDIO}\n{VIDEO}", [], "there is no material for it"),
        (AUDIO, ["--views", "."], "the geometry has no video"),
        (f"{AUDIO}\n{VIDEO}", ["--views", ".", "--pictures", "."], "give one of them"),
        (f"{AUDIO}\n{VIDEO}", ["--views", "."], "--views: needs --teacher-sight"),
        (AUDIO, ["--teacher-sound", __file__], "has no audio.stem"),
        (AUDIO, ["--teacher-sight", __file__], "has no video.stem"),
        (AUDIO, ["--mix", "nan,1,1"], "is not three shares"),
        (AUDIO, ["--device", "cuda:x"], "device 'cuda:x' is not auto, cpu, cuda or cuda:N"),
    ],
)
def test_contradictions_are_refused(wide: Path, geometry: str, given: list[str], words: str) -> None:
    """Contradictions between geometry, material and options are errors before any work."""
    with pytest.raises(ConfigError, match=words):
        run(wide, "tiny", "--batches", "1", *given, geometry=geometry)
    assert not (wide / "tiny").exists()
