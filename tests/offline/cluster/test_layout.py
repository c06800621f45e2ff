"""Outputs of many workers: complete or not there, in a folder and in a bucket."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import fsspec
import pytest

from perceiverd.core.errors import PerceiverdError
from perceiverd.offline.cluster.layout import ClusterOutputs, stem_of


@pytest.fixture(params=["folder", "bucket"])
def outputs(request: pytest.FixtureRequest, tmp_path: Path) -> ClusterOutputs:
    place = str(tmp_path / "out") if request.param == "folder" else f"memory://{tmp_path.name}"
    found = ClusterOutputs(place)
    found.prepare()
    return found


def test_scores_appear_when_they_are_complete(outputs: ClusterOutputs) -> None:
    """While a file is written it is not done; if writing fails, nothing of it appears."""
    with outputs.scores("a-1") as out:
        out.write(b"x")
        assert outputs.done() == frozenset()
    assert outputs.done() == {"a-1"}
    with pytest.raises(TypeError), outputs.scores("b-2") as out:
        out.write("no bytes")  # type: ignore[call-overload]
    assert outputs.done() == {"a-1"}


def test_a_file_that_was_read_in_part_is_done_with_its_scores(outputs: ClusterOutputs) -> None:
    """An error alone makes a file done only if nothing of it could be read."""
    outputs.fail("a-1", "a", "broken", windows=0)
    outputs.fail("b-2", "b", "ends early", windows=3)
    assert outputs.done() == {"a-1"}
    with outputs.scores("b-2") as out:
        out.write(b"x")
    assert outputs.done() == {"a-1", "b-2"}
    place = outputs.url + "/failed/b-2.partial.json"
    with fsspec.open(place, "rb") as file:
        assert json.load(file) == {"file": "b", "windows": 3, "error": "ends early"}


def test_what_dead_workers_leave_is_deleted(tmp_path: Path) -> None:
    """Unfinished files of the run's own inputs go; those of another run stay."""
    outputs = pickle.loads(pickle.dumps(ClusterOutputs(str(tmp_path))))
    outputs.prepare()
    for name in ("a.wav-1.parquet.0123abcd.tmp", "b.wav-2.parquet.0123abcd.tmp"):
        (tmp_path / "scores" / name).write_bytes(b"")
    (tmp_path / "failed" / "a.wav-1.partial.json.0123abcd.tmp").write_bytes(b"")
    outputs.sweep(["a.wav-1"])
    assert [path.name for path in tmp_path.rglob("*.tmp")] == ["b.wav-2.parquet.0123abcd.tmp"]


def test_each_input_has_a_stem_of_its_own() -> None:
    """Two files of one name differ; the name is short and has only plain characters."""
    assert stem_of("x/a.wav") != stem_of("y/a.wav")
    assert stem_of("s3://bucket/a b?v=1").startswith("a_b-")
    assert len(stem_of("ä" * 500)) < 100


def test_an_output_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    """An unknown protocol, and a file in the place of the folder, are one line."""
    with pytest.raises(PerceiverdError, match="cannot be an output"):
        ClusterOutputs("nowhere://x")
    (tmp_path / "file").write_text("")
    with pytest.raises(PerceiverdError, match="cannot write the outputs"):
        ClusterOutputs(str(tmp_path / "file")).prepare()
