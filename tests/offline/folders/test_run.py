"""Many files into a folder: resumed, skipped, reported, and in several threads."""

import json
import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from perceiverd.core.errors import PerceiverdError
from perceiverd.core.media import NS_PER_S
from perceiverd.model.card import load_card
from perceiverd.offline import tag
from perceiverd.offline.folders.outputs import HIDDEN
from perceiverd.offline.folders.report import Report
from perceiverd.offline.folders.run import FolderOptions, tag_into
from perceiverd.offline.folders.walk import Selection
from perceiverd.offline.tag import Scorer, TagOptions
from perceiverd.offline.writers.formats import chosen
from perceiverd.pipeline.tagger import Tagger
from perceiverd.pipeline.windower import Window
from perceiverd.wire.records import FileScores
from tests.support.clips import make_model, write_clip

OPTIONS = TagOptions(top=3, hop_ns=NS_PER_S, batch=4)
HOW = FolderOptions(formats=chosen("jsonl,csv"), settings="s", selection=Selection(recursive=True))


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Tagger:
    return Tagger(load_card(make_model(tmp_path_factory.mktemp("model") / "tiny")), device="cpu")


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three good files and two bad ones in a folder with another one below it."""
    root = tmp_path_factory.mktemp("media")
    (root / "below").mkdir()
    for name, seconds in (("a.wav", 2.0), ("b.ogg", 3.0), ("below/c.wav", 1.0)):
        write_clip(root / name, audio_s=seconds)
    (root / "bad.mp4").write_bytes(b"\0" * 2000)
    (root / "below" / "bad.flac").write_bytes(b"fLaC" + b"\1" * 2000)
    (root / "notes.txt").write_text("no media")
    (root / "empty.wav").touch()
    return root


class Counting:
    """A tagger that counts its windows, and fails after so many."""

    def __init__(self, scorer: Scorer, most: int = 10**9, fault: BaseException | None = None) -> None:
        self._scorer, self._most, self._fault = scorer, most, fault
        self.card = scorer.card
        self.windows = 0

    def tag(self, windows: Sequence[Window]) -> NDArray[np.float32]:
        self.windows += len(windows)
        if self.windows > self._most and self._fault:
            raise self._fault
        return self._scorer.tag(windows)


def outputs(out: Path) -> dict[str, list[dict[str, object]]]:
    """The JSON lines of each file."""
    return {
        str(path.relative_to(out)).removesuffix(".jsonl"): [json.loads(line) for line in path.read_text().splitlines()]
        for path in sorted(out.rglob("*.jsonl"))
        if HIDDEN not in path.parts
    }


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_folder_is_tagged(tmp_path: Path, tagger: Tagger, media: Path, jobs: int) -> None:
    """Each good file has its outputs, with the scores of a single run; bad ones are in the report."""
    report = tag_into(tmp_path / "out", [str(media)], tagger, OPTIONS, replace(HOW, jobs=jobs))
    found = outputs(tmp_path / "out")
    assert list(found) == ["a.wav", "b.ogg", "below/c.wav"]
    assert [record["type"] for record in found["a.wav"]] == ["file", "scores", "scores", "summary"]
    alone = list(tag.records(str(media / "b.ogg"), tagger, OPTIONS))
    assert [record["labels"] for record in found["b.ogg"] if record["type"] == "scores"] == [
        [{"mid": each.mid, "index": each.index, "name": each.name, "score": each.score} for each in record.labels]
        for record in alone
        if isinstance(record, FileScores)
    ]
    assert (report.tagged, report.failed, report.empty, report.other) == (3, 2, 1, 1)
    assert sorted(Path(each.file).name for each in report.errors) == ["bad.flac", "bad.mp4"]
    assert report.media_s == pytest.approx(6.0, abs=0.1)
    assert len(list((tmp_path / "out").rglob("*.csv"))) == 3
    assert [path.name for path in (tmp_path / "out" / HIDDEN).iterdir()] == ["journal.jsonl"]


def test_a_run_that_failed_is_resumed(tmp_path: Path, tagger: Tagger, media: Path) -> None:
    """What was done is not done again, in whatever run; all files are there at the end, each once."""
    out, named = tmp_path / "out", [str(media)]
    with pytest.raises(RuntimeError, match="out of memory"):
        tag_into(out, named, Counting(tagger, 3, RuntimeError("out of memory")), OPTIONS, HOW)
    assert list(outputs(out)) == ["a.wav"]
    second = Counting(tagger)
    report = tag_into(out, named, second, OPTIONS, HOW)
    assert second.windows == 4
    assert list(outputs(out)) == ["a.wav", "b.ogg", "below/c.wav"]
    assert (report.tagged, report.failed, report.windows) == (3, 2, 6)
    assert report.resumed == 1


def test_a_complete_run_is_done_again_unless_skipped(tmp_path: Path, tagger: Tagger, media: Path) -> None:
    """The same command tags all again; with `skip_done` only what is new, changed, failed, or lacks an output."""
    out, named = tmp_path / "out", [str(media)]
    tag_into(out, named, tagger, OPTIONS, HOW)
    again = Counting(tagger)
    tag_into(out, named, again, OPTIONS, HOW)
    assert again.windows == 6
    skipping = Counting(tagger)
    report = tag_into(out, named, skipping, OPTIONS, replace(HOW, skip_done=True))
    assert (skipping.windows, report.skipped, report.failed) == (0, 3, 2)
    (out / "a.wav.csv").unlink()
    lacking = Counting(tagger)
    assert tag_into(out, named, lacking, OPTIONS, replace(HOW, skip_done=True)).skipped == 2
    assert lacking.windows == 2
    other = Counting(tagger)
    tag_into(out, named, other, OPTIONS, replace(HOW, skip_done=True, settings="t"))
    assert other.windows == 6


def test_ctrl_c_ends_the_run_and_leaves_no_parts(tmp_path: Path, tagger: Tagger, media: Path) -> None:
    """The interruption reaches the caller, all threads have ended, and the same call continues."""
    before, sent = threading.active_count(), list[bool]()

    class Interrupting(Counting):
        def tag(self, windows: Sequence[Window]) -> NDArray[np.float32]:
            if self.windows and not sent:
                sent.append(True)
                os.kill(os.getpid(), signal.SIGINT)
            return super().tag(windows)

    with pytest.raises(KeyboardInterrupt):
        tag_into(tmp_path, [str(media)], Interrupting(tagger), OPTIONS, replace(HOW, jobs=2))
    assert threading.active_count() == before
    assert [path.name for path in (tmp_path / HIDDEN).iterdir()] == ["journal.jsonl"]
    assert tag_into(tmp_path, [str(media)], tagger, OPTIONS, HOW).tagged == 3


def test_parts_of_a_killed_run_are_removed(tmp_path: Path, tagger: Tagger, media: Path) -> None:
    """What a kill left behind is gone after the next run."""
    (tmp_path / HIDDEN).mkdir()
    (tmp_path / HIDDEN / "part-7.jsonl").write_text("half")
    tag_into(tmp_path, [str(media / "a.wav")], tagger, OPTIONS, HOW)
    assert [path.name for path in (tmp_path / HIDDEN).iterdir()] == ["journal.jsonl"]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, tagger: Tagger) -> None:
    """The error names it and says what to do."""
    (tmp_path / "file").touch()
    with pytest.raises(PerceiverdError, match="cannot write the outputs: Not a directory"):
        tag_into(tmp_path / "file" / "out", [], tagger, OPTIONS, HOW)


def test_warnings_are_kept_for_the_report(
    tmp_path: Path, tagger: Tagger, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A damaged file is tagged as far as it can be read; the report says so, and nothing is printed meanwhile."""
    whole = write_clip(tmp_path / "whole.mkv", audio_s=8, video_s=8).read_bytes()
    (tmp_path / "in").mkdir()
    for name in ("a.mkv", "b.mkv"):
        (tmp_path / "in" / name).write_bytes(whole[: len(whole) // 2])
    report = tag_into(tmp_path / "out", [str(tmp_path / "in")], tagger, OPTIONS, replace(HOW, jobs=2))
    assert (report.tagged, report.failed, report.warned) == (2, 0, 2)
    assert all(each.warnings[0].startswith("file-damaged file=") for each in report.warnings)
    assert "2 with warnings" in report.summary()
    assert "file-damaged" not in caplog.text + capsys.readouterr().err


def test_the_report_is_a_file(tmp_path: Path, tagger: Tagger, media: Path) -> None:
    """`report.json` has the counts and the reason of each failure."""
    tag_into(tmp_path, [str(media)], tagger, OPTIONS, HOW)
    report = json.loads((tmp_path / "report.json").read_text())
    assert set(report) == set(Report.__struct_fields__)
    assert (report["tagged"], report["failed"], len(report["errors"])) == (3, 2, 2)
    assert all(each["error"].startswith(str(media)) for each in report["errors"])
