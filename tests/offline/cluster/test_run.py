"""A real Ray with two workers, of which one is killed: each file once, with the scores of a single process."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from perceiverd.core.errors import PerceiverdError
from perceiverd.core.media import NS_PER_S
from perceiverd.model.card import load_card
from perceiverd.offline import tag
from perceiverd.offline.cluster import run
from perceiverd.offline.cluster.layout import ClusterOutputs, stem_of
from perceiverd.offline.cluster.run import ClusterPlan, tag_files
from perceiverd.offline.cluster.worker import ClusterJob, FileOutcome, FileTagger
from perceiverd.offline.writers.writer import TaggedWindow
from perceiverd.pipeline.tagger import Tagger
from tests.support.clips import make_model, write_clip

OPTIONS = tag.TagOptions(top=1, hop_ns=NS_PER_S // 2, batch=4)
FILES = 9


def job_in(folder: Path) -> ClusterJob:
    return ClusterJob(str(folder / "out"), str(make_model(folder / "tiny")), "cpu", "auto", 1, OPTIONS)


@pytest.mark.long
@pytest.mark.timeout(400)  # Ray starts a dozen processes: 80 s with a load of 15 on two cores, 240 s with 30
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray Data warns about its own settings
def test_a_killed_worker_costs_nothing(tmp_path: Path) -> None:
    """After a worker is killed, all files are there once, with the scores of `tag`; a second run does nothing."""
    files = [str(write_clip(tmp_path / f"{'x' * number}.wav", audio_s=2 + number / 4)) for number in range(FILES)]
    (tmp_path / "broken.wav").write_text("no media")
    files.insert(3, str(tmp_path / "broken.wav"))
    job, seen = job_in(tmp_path), list[FileOutcome]()

    def kill_once(outcome: FileOutcome) -> None:
        seen.append(outcome)
        if len(seen) == 1:
            assert outcome.worker != os.getpid()
            os.kill(outcome.worker, signal.SIGKILL)
            if not shutil.which("ss"):
                return
            listening = subprocess.run(["ss", "-Htlnp"], capture_output=True, text=True, check=True).stdout
            own = [line.split()[3] for line in listening.splitlines() if '"raylet"' in line or '"gcs_server"' in line]
            assert own
            assert all("127.0.0.1" in address for address in own)

    report = tag_files(files, job, ClusterPlan("local", 2), kill_once)
    assert (report.tagged, report.done_before, len(report.failures)) == (FILES, 0, 1)
    assert "neither audio nor video" in report.failures[0].error
    assert len({outcome.worker for outcome in seen}) >= 2
    assert sorted(outcome.file for outcome in seen) == sorted(files)
    assert not list((tmp_path / "out").rglob("*.tmp"))
    tagger = Tagger(load_card(job.model), "cpu", 1)
    for file in files:
        path = tmp_path / "out" / "scores" / f"{stem_of(file)}.parquet"
        if file.endswith("broken.wav"):
            assert not path.exists()
            continue
        pieces = tag.pieces(file, tagger, OPTIONS)
        expected = [piece.scores for piece in pieces if isinstance(piece, TaggedWindow)]
        table = pq.read_table(path)
        assert set(table.column("file").to_pylist()) == {file}
        found = np.stack([table.column(at).to_numpy() for at in range(5, table.num_columns)], axis=1)
        assert found == pytest.approx(np.stack(expected), abs=1e-6)
    again = tag_files(files, job, ClusterPlan("local", 2))
    assert (again.tagged, again.done_before, again.failures) == (0, FILES + 1, ())


def test_a_worker_tags_one_file_after_the_other(tmp_path: Path) -> None:
    """A bucket's file is tagged under its own address; one that is missing is done, without scores."""
    clip = write_clip(tmp_path / "a.mkv", audio_s=4)
    name = f"memory://{tmp_path.name}/a.mkv"
    fsspec.filesystem("memory").put_file(str(clip), f"/{tmp_path.name}/a.mkv")
    job = job_in(tmp_path)
    ClusterOutputs(job.outputs).prepare()
    worker = FileTagger(job)
    try:
        done, gone = worker.tag(name), worker.tag(f"memory://{tmp_path.name}/gone.mkv")
    finally:
        worker.close()
    assert (done.file, done.error) == (name, "") and done.windows >= 7 and done.end_s == pytest.approx(4, abs=0.1)
    table = pq.read_table(tmp_path / "out" / "scores" / f"{stem_of(name)}.parquet")
    assert set(table.column("file").to_pylist()) == {name} and table.num_rows == done.windows
    assert "cannot be copied" in gone.error and gone.windows == 0
    assert ClusterOutputs(job.outputs).done() == {stem_of(name), stem_of(gone.file)}


def test_another_version_is_refused(tmp_path: Path) -> None:
    """A worker with another release of the program would give other scores."""
    job = ClusterJob(str(tmp_path), "ear-and-eye-small", "cpu", "auto", 1, OPTIONS, version="0.0.0")
    with pytest.raises(PerceiverdError, match=r"not 0\.0\.0; install the same version"):
        FileTagger(job)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere"])
def test_a_cluster_that_does_not_answer_is_one_line(tmp_path: Path, address: str) -> None:
    """Ray itself would try for many minutes; a word that is no address is refused."""
    with pytest.raises(PerceiverdError, match=f"Ray at {address}: cannot be used"):
        tag_files(["a.wav"], job_in(tmp_path), ClusterPlan(address, 2))


def test_nothing_is_sent_about_use() -> None:
    """The program that starts Ray turns off its usage statistics before Ray is loaded."""
    assert run.LOCAL_ENVIRONMENT["RAY_USAGE_STATS_ENABLED"] == "0"
    code = "import sys, perceiverd.offline.cluster.run; print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout.strip() == "False"
