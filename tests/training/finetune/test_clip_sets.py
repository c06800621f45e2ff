"""The clips of a fit: long ones are used all along, unreadable ones are skipped up to a share."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from perceiverd.core.errors import MediaError
from perceiverd.evaluation import manifest
from perceiverd.model.card import load_card
from perceiverd.training.finetune import clip_sets
from perceiverd.training.finetune.sampling import Vocabulary
from perceiverd.training.finetune.task import FitContext, FitTask
from perceiverd.training.fitting.distributed import ProcessGroup
from perceiverd.training.fitting.progress import progress_reporter
from tests.support.finetune import NEW_MODEL, fit, write_manifest, write_sound


def test_a_long_rehearsal_clip_is_used_all_along(home: Path, tmp_path: Path) -> None:
    """Two minutes without the new sounds give as many windows as short clips of the same total length."""
    (tmp_path / "hours").mkdir()
    write_sound(tmp_path / "hours" / "night.wav", np.random.default_rng(0).normal(0, 0.1, 16_000 * 120))
    write_sound(tmp_path / "hours" / "short.wav", np.random.default_rng(1).normal(0, 0.1, 16_000 * 2))
    start = load_card(home / "start")
    clips = manifest.read(home / "clips.csv", start.labels)
    unlabelled = manifest.files_in(tmp_path / "hours")
    task = FitTask(clips, tmp_path / "new", start, unlabelled=unlabelled, cache=home / "cache")
    vocabulary = Vocabulary(task.labels, clips.mids, old=len(start.labels))
    with progress_reporter(None, silent=True) as reporter:
        _, others = clip_sets.samplers(FitContext(task, ProcessGroup(0, 1), reporter), vocabulary)
    each_s = clip_sets.VIEWS * start.geometry.window_ns / 1e9
    assert [row.file.name for row in others.rows] == ["night.wav"] * int(120 // each_s) + ["short.wav"]
    one, other = others.sample(0, 0).audio, others.sample(1, 0).audio
    assert one is not None and other is not None and not np.array_equal(one, other)


def test_unreadable_clips_are_counted_and_skipped(home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An unreadable clip is logged with its line and left out. Too many of them end the fit before it starts."""
    (home / "text.wav").write_text("not a sound")
    rows = [(f"{number}.wav", "Loud buzz") for number in range(4)]
    some = write_manifest(home / "some.csv", [*rows, ("text.wav", "Loud buzz")])
    with caplog.at_level(logging.WARNING):
        fit(home, tmp_path / "new", manifest=some, skip=0.2, epochs=2)
    assert "clip-unusable" in caplog.text and "some.csv: line 6:" in caplog.text
    with pytest.raises(MediaError, match=r"some\.csv: line 6: .*text\.wav"):
        fit(home, tmp_path / "other", manifest=some, skip=0.1)


def test_without_a_cache_unreadable_clips_are_skipped_too(home: Path, tmp_path: Path) -> None:
    """If decoded clips are not kept, the next clip replaces an unreadable one, up to the allowed share."""
    (home / "text.wav").write_text("not a sound")
    some = write_manifest(
        home / "anew.csv", [("text.wav", "Loud buzz"), ("0.wav", "Loud buzz"), ("1.wav", "Faint hiss")]
    )
    path = tmp_path / "anew.toml"
    path.write_text(NEW_MODEL + "[clips]\nkeep = false\n")
    fit(home, tmp_path / "new", manifest=some, start=None, settings=path, skip=0.5)
    with pytest.raises(MediaError, match="1 of 3 clips cannot be read"):
        fit(home, tmp_path / "other", manifest=some, start=None, settings=path, skip=0.1)
