"""The commands calibrate and report, on a small untrained model."""

from __future__ import annotations

from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from perceiverd.core.errors import ModelError
from perceiverd.core.labels import Label, ontology
from perceiverd.evaluation import metrics, reliability
from perceiverd.model.card import Calibration, load_card
from perceiverd.model.checkpoint import save_model
from perceiverd.model.geometry import Audio, Geometry, Trunk, Video
from perceiverd.model.perceiver import Perceiver
from perceiverd.training.cli.app import app
from perceiverd.training.data import ambient
from perceiverd.training.data.images import build
from tests.support.heldout_set import write


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few draws and short streams, so that tests are fast."""
    for module in (metrics, reliability):
        monkeypatch.setattr(module, "ROUNDS", 10)
    for name in ("FIT_S", "TEST_S"):
        monkeypatch.setattr(ambient, name, 5)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An untrained model of saved spectrograms and of video with four frames of 16 by 16."""
    geometry = Geometry(
        classes=527,
        trunk=Trunk(latents=4, width=16, cross_attends=1, layers=1, heads=2),
        audio=Audio(rate_hz=16_000, samples=20_480, form="mel", patch=(16, 16), bands=2),
        video=Video(frames=4, fps=3.125, height=16, width=16, patch=(1, 8, 8), bands=2),
    )
    network = Perceiver(geometry.modalities, geometry.trunk, geometry.classes)
    save_model(tmp_path / "small", network, geometry, ontology().labels, name="small", licence="CC0-1.0")
    return tmp_path / "small"


@pytest.fixture
def held_out(tmp_path: Path) -> Path:
    """Both splits."""
    (tmp_path / "held").mkdir()
    for seed, split in enumerate(("validation", "test")):
        write(tmp_path / "held", split, seed)
    return tmp_path / "held"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A cache of three pictures of dogs, one of them held out, and of one in another package."""
    rng = np.random.default_rng(0)
    dogs = "tuxpaint-stamps-default/usr/share/tuxpaint/stamps/animals/mammals/dogs"
    for path in (*(f"{dogs}/{n}.png" for n in range(3)), "gcompris-qt-data/explore_farm_animals/x/dog.webp"):
        file = tmp_path / "packages" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(file), rng.integers(0, 256, (40, 60, 3), np.uint8))
    found = build(tmp_path / "packages", tmp_path / "cache", ontology())
    targets = np.full((len(found), 527), np.nan, np.float16)
    for row, picture in zip(targets, found, strict=True):
        row[[ontology().find(name).index for name in picture.labels]] = 1
    np.save(tmp_path / "cache" / "targets.npy", targets)
    return tmp_path / "cache"


def test_a_model_is_calibrated_and_reported_on(model: Path, held_out: Path, pictures: Path) -> None:
    """`calibrate` writes a table that the card reads, `report` prints every part and draws the plot."""
    given = ["--model", str(model), "--held-out", str(held_out), "--pictures", str(pictures)]
    done = CliRunner().invoke(app, ["calibrate", *given, "--hours", "0.004"], catch_exceptions=False)
    assert done.exit_code == 0
    calibration = load_card(model).calibration
    assert len(set(calibration)) > 3 and Calibration() not in calibration

    plot = model / "reliability.svg"
    more = ["--hours", "0.004", "--plot", str(plot), "--details", "--beside", str(model)]
    done = CliRunner().invoke(app, ["report", *given, *more], catch_exceptions=False)
    assert done.exit_code == 0
    for part in (
        "Sound, held-out recordings: 12 labelled clips",
        "Sound, held-out packages: 12 labelled clips",
        f"| {model} |",
        "Correlation with the teacher over the clips",
        "| held-out packages, calibrated |",
        "Log loss of 3 classes",
        "| events at the default thresholds |",
        "| small | of another package | 1 | 2 |",
        "Pairs of a sound and a picture, both of another package:",
        "Of the same class:",
        "Generated media without events: 0.0 hours",
        "False alarms by label",
    ):
        assert part in done.stdout, part
    assert plot.read_text().startswith("<svg")


def test_a_model_that_keeps_its_scores_has_no_calibration_in_its_report(model: Path, held_out: Path) -> None:
    """After `calibrate --keep` the report measures the scores as trained, and no calibration that nobody gets."""
    given = ["--model", str(model), "--held-out", str(held_out), "--hours", "0.001"]
    done = CliRunner().invoke(app, ["calibrate", *given, "--keep"], catch_exceptions=False)
    assert done.exit_code == 0
    assert {(one.scale, one.shift) for one in load_card(model).calibration} == {(1.0, 0.0)}
    plot = model / "reliability.svg"
    done = CliRunner().invoke(app, ["report", *given, "--plot", str(plot)], catch_exceptions=False)
    assert done.exit_code == 0
    assert "| held-out recordings, as trained |" in done.stdout and "| held-out packages, as trained |" in done.stdout
    assert ", calibrated |" not in done.stdout and "cross-fitted" not in done.stdout
    assert "`calibrate --keep` kept them" in done.stdout
    assert plot.read_text().count("as trained") >= 1 and "calibrated" not in plot.read_text()


def test_a_set_with_too_few_clips_has_lines_that_say_so(model: Path, held_out: Path) -> None:
    """If no class has enough recordings, the report says so, instead of nan and NumPy's warnings."""
    for split in ("validation", "test"):
        clips = held_out / f"{split}.clips.tsv"
        clips.write_text(clips.read_text().replace("\tRain\t", "\t\t").replace("\tDog\t", "\t\t"))
    given = ["report", "--model", str(model), "--held-out", str(held_out), "--hours", "0.001"]
    done = CliRunner().invoke(app, given, catch_exceptions=False)
    assert done.exit_code == 0 and "nan" not in done.stdout
    assert "| small | too few | too few | too few |" in done.stdout
    assert "Too few clips: no class by name has 3 recordings that have it and one that lacks it." in done.stdout
    assert "Reliability is not measured: in the held-out recordings, no label has 3 recordings" in done.stdout


def test_a_model_with_other_labels_is_refused(model: Path, held_out: Path) -> None:
    """Held-out recordings have AudioSet's labels. The error for other models names the command that measures them."""
    card = load_card(model)
    labels = (*card.labels, Label(527, "perceiverd/kettle", "Kettle"))
    geometry = msgspec.structs.replace(card.geometry, classes=528)
    network = Perceiver(geometry.modalities, geometry.trunk, geometry.classes)
    save_model(model.with_name("more"), network, geometry, labels, name="more", licence="CC0-1.0")
    for command in ("report", "calibrate"):
        given = [command, "--model", str(model.with_name("more")), "--held-out", str(held_out), "--hours", "0.001"]
        with pytest.raises(ModelError, match="more: pools and held-out recordings need AudioSet's 527 labels"):
            CliRunner().invoke(app, given, catch_exceptions=False)
