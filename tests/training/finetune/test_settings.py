"""The settings file of a fit: errors, and the file with the paper's values."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import torch

from perceiverd.core.errors import ConfigError
from perceiverd.model.card import load_card
from perceiverd.model.perceiver import Perceiver
from perceiverd.training.finetune import settings
from tests.support.clips import write_clip
from tests.support.finetune import DOG, run_fit

PAPER = Path(__file__).parents[3] / "configs" / "train-audioset.toml"


def test_an_unknown_setting_gets_a_suggestion(tmp_path: Path) -> None:
    """An unknown key is an error that suggests the nearest known one."""
    path = tmp_path / "settings.toml"
    path.write_text("[fit]\noptimizer = 'lamb'\n")
    with pytest.raises(ConfigError, match=r"\$\.fit\.optimizer: .*did you mean .optimiser.\?"):
        settings.load(path)


def test_options_replace_the_files_values() -> None:
    """A value that is given replaces the file's; `epochs` replaces the epochs of both stages; None changes nothing."""
    found = settings.overridden(settings.FinetuneSettings(), epochs=3, skip=0.5)
    assert (found.fit.epochs, found.fit.head_epochs, found.fit.batch, found.clips.skip) == (3, 3, 32, 0.5)
    assert settings.overridden(settings.FinetuneSettings()) == settings.FinetuneSettings()


def test_the_papers_file_has_the_papers_values() -> None:
    """It has the paper's sizes and 21.0 million parameters, names every setting, and marks what is not the default."""
    found = settings.load(PAPER)
    assert found.geometry is not None
    assert [(part.name, part.tokens) for part in found.geometry.modalities] == [("audio", 480), ("video", 12_544)]
    with torch.device("meta"):
        network = Perceiver(found.geometry.modalities, found.geometry.trunk, found.geometry.classes)
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(21.0e6, rel=0.005)
    assert network.bytes.width == 487
    text = PAPER.read_text()
    for name, section in (("fit", found.fit), ("clips", found.clips), ("augment", found.augment)):
        written = text.partition(f"[{name}]")[2].partition("\n[")[0]
        for field in msgspec.structs.fields(type(section)):
            (line,) = [line for line in written.splitlines() if line.startswith(f"{field.name} =")]
            assert ("not the default" in line) == (getattr(section, field.name) != field.default), line


def test_the_papers_mel_variant_is_a_geometry(tmp_path: Path) -> None:
    """The mel variant in the file's comments can replace the raw one."""
    text = PAPER.read_text()
    raw = text[text.index("[geometry.audio]\n") : text.index("# mel: ")]
    path = tmp_path / "mel.toml"
    path.write_text(text.replace(raw, "").replace("# mel: ", ""))
    geometry = settings.load(path).geometry
    assert geometry is not None and geometry.audio is not None
    assert (geometry.audio.form, geometry.modalities[0].tokens) == ("mel", 2_048)


@pytest.mark.parametrize("optimiser", ["lamb", "adamw"])
def test_the_papers_settings_run_end_to_end(tmp_path: Path, optimiser: str) -> None:
    """With a tiny geometry and generated clips in AudioSet's form, a few steps make a model."""
    media = tmp_path / "media"
    media.mkdir()
    rows = ["# YTID, start_seconds, end_seconds, positive_labels"]
    for number in range(3):
        write_clip(media / f"abcdefghij{number}_10000.mp4", video_s=1.5, audio_s=1.5 if number else 0)
        rows.append(f'abcdefghij{number}, 10.000, 20.000, "{DOG},/m/0jbk"')
    (tmp_path / "segments.csv").write_text("\n".join(rows) + "\n")
    text = PAPER.read_text()
    tiny = "\n".join(
        [
            "classes = 527\n[geometry.trunk]\nlatents = 3\nwidth = 8\ncross_attends = 1\nlayers = 1\nheads = 2",
            '[geometry.audio]\nrate_hz = 48000\nsamples = 15360\nform = "raw"\npatch = [128]\nbands = 2',
            "[geometry.video]\nframes = 8\nfps = 25.0\nheight = 16\nwidth = 16\npatch = [2, 8, 8]\nbands = 2\n",
        ]
    )
    start, end = text.index("classes = 527"), text.index("[fit]")
    (tmp_path / "settings.toml").write_text((text[:start] + tiny + text[end:]).replace('"lamb"', f'"{optimiser}"'))
    done = run_fit(
        manifest=tmp_path / "segments.csv",
        out=tmp_path / "new",
        media=media,
        settings=tmp_path / "settings.toml",
        epochs=4,
        batch=3,
        device="cpu",
        threads=1,
        cache=tmp_path / "cache",
        log=tmp_path / "curves",
    )
    assert done.exit_code == 0
    card = load_card(tmp_path / "new")
    assert len(card.labels) == 527 and card.licence == "NOASSERTION"
    assert list((tmp_path / "curves").glob("events.out.tfevents.*"))
