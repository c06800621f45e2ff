"""Recent sound by its file names: which files hold a time, and what is cut out of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perceiverd.core.errors import MediaError
from perceiverd.sources.snapshots import recent
from perceiverd.sources.snapshots.sound import flac

NOON = datetime(2026, 5, 17, 12, tzinfo=UTC)
NOON_NS = round(NOON.timestamp()) * 10**9
RATE_HZ = 1000
"""One sample a millisecond, so that times can be counted in samples."""


def write(folder: Path, begin_ms: int, end_ms: int) -> None:
    """A file for this time after noon. The sample of each millisecond is its number."""
    (folder / "door").mkdir(parents=True, exist_ok=True)
    samples = (np.arange(begin_ms, end_ms) / 32767).astype(np.float32)
    name = recent.name_of(NOON_NS + begin_ms * 1_000_000, end_ms - begin_ms)
    (folder / "door" / name).write_bytes(flac(samples, RATE_HZ))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(20, 900), st.sampled_from([0, 0, 0, 300])), min_size=1, max_size=5),
    st.integers(-500, 4000),
    st.integers(1, 3000),
)
def test_a_cut_has_every_sample_of_its_time(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[tuple[int, int]], start_ms: int, length_ms: int
) -> None:
    """The longest stretch without a gap inside the wanted time comes back, with its time, sample for sample."""
    folder = tmp_path_factory.mktemp("recent")
    at_ms, there = 0, np.zeros(8000, np.bool_)
    for piece_ms, gap_ms in pieces:
        write(folder, at_ms, at_ms + piece_ms)
        there[at_ms : at_ms + piece_ms] = True
        at_ms += piece_ms + gap_ms
    end_ms = start_ms + length_ms
    runs = [
        run
        for run in np.split(np.arange(8000), np.flatnonzero(np.diff(there.astype(int))) + 1)
        if there[run[0]] and min(run[-1] + 1, end_ms) > max(run[0], start_ms)
    ]
    wanted = max((min(run[-1] + 1, end_ms) - max(run[0], start_ms) for run in runs), default=0)
    start, end = (NOON + timedelta(milliseconds=ms) for ms in (start_ms, end_ms))
    found = recent.cut(folder, "door", start, end)
    if found is None:
        assert wanted == 0
        return
    first_ms = round((found.start - NOON).total_seconds() * 1000)
    assert len(found.samples) == wanted and start <= found.start and found.end <= end
    assert np.round(found.samples * 32768).astype(int) == pytest.approx(np.arange(first_ms, first_ms + wanted), abs=1)


def test_names_hold_the_time() -> None:
    """A name and its start and length are the same thing; other names are none of ours."""
    name = recent.name_of(NOON_NS + 7_999_999, 20_480)
    assert name == "20260517T120000.007Z_20480ms.flac"
    found = recent.segment_of(Path("/x") / name)
    assert found and found.start == NOON + timedelta(milliseconds=7) and found.length_ms == 20_480
    for other in ("20261317T120000.007Z_20480ms.flac", f"{name}.part", f"a{name}", "a.flac"):
        assert recent.segment_of(Path(other)) is None


def test_other_files_and_streams_are_ignored(tmp_path: Path) -> None:
    """A stream without a folder has no sound, and neither has a name that is a path."""
    write(tmp_path, 0, 500)
    (tmp_path / "door" / "notes.txt").write_text("")
    (tmp_path / "a.b").mkdir()
    assert recent.streams(tmp_path) == ("door",)
    assert len(recent.segments(tmp_path, "door")) == 1
    assert recent.segments(tmp_path, "yard") == recent.segments(tmp_path, "../recent/door") == ()
    assert recent.cut(tmp_path, "yard", NOON, NOON + timedelta(seconds=9)) is None


def test_a_damaged_file_is_one_error(tmp_path: Path) -> None:
    """A file that is no FLAC is reported with its path."""
    write(tmp_path, 0, 500)
    (path,) = (tmp_path / "door").iterdir()
    for data in (b"", b"fLaC", path.read_bytes()[:60]):
        path.write_bytes(data)
        with pytest.raises(MediaError, match=r"ms\.flac: "):
            recent.cut(tmp_path, "door", NOON, NOON + timedelta(seconds=9))
