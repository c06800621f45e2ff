"""What the recorder of recent sound writes, and what it removes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from perceiverd.core.clock import now_ns, utc
from perceiverd.core.media import NS_PER_S, Chunk
from perceiverd.sources.snapshots import recent
from perceiverd.sources.snapshots.recent_recorder import HELD_NS, QUEUED_REQUESTS, RecentRecorder
from perceiverd.sources.snapshots.requests import RecentOptions, SoundRequest
from perceiverd.sources.snapshots.sound import flac

RATE_HZ = 8000


def options(folder: Path, max_age_s: float = 3600, max_bytes: int = 10**9) -> RecentOptions:
    return RecentOptions(str(folder), "door", max_age_s, max_bytes)


def until(done: Callable[[], object], within_s: float = 30) -> None:
    deadline_s = time.monotonic() + within_s
    while not done():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def noise(begin_ns: int, seconds: float) -> list[Chunk]:
    """Chunks of 40 ms from this time on."""
    rng = np.random.default_rng(1)
    length_ns = NS_PER_S // 25
    return [
        Chunk(begin_ns + n * length_ns, rng.uniform(-0.5, 0.5, RATE_HZ // 25).astype(np.float32), RATE_HZ)
        for n in range(round(seconds * 25))
    ]


def test_a_stretch_is_written_with_its_time(tmp_path: Path) -> None:
    """The file has the samples of the stretch, and its name has their time in UTC."""
    recorder, begin_ns = RecentRecorder(options(tmp_path / "recent")), now_ns() - 30 * NS_PER_S
    chunks = noise(begin_ns, 10)
    for chunk in chunks:
        recorder.add(chunk)
    recorder.request(SoundRequest(begin_ns + 2 * NS_PER_S, begin_ns + 5 * NS_PER_S))
    until(lambda: recorder.results)
    assert (done := recorder.results.popleft()).fault == "" and done.written_ms == 3000
    (found,) = recent.segments(tmp_path / "recent", "door")
    assert abs(found.start - utc(begin_ns + 2 * NS_PER_S)) < timedelta(milliseconds=5)
    samples, rate_hz = recent.read(found.path)
    everything = np.concatenate([chunk.samples for chunk in chunks])
    assert rate_hz == RATE_HZ
    assert samples == pytest.approx(everything[2 * RATE_HZ : 5 * RATE_HZ], abs=1e-4)


def test_a_hole_parts_the_files(tmp_path: Path) -> None:
    """Time without sound is in no file; a stretch that has none at all is no failure."""
    recorder, begin_ns = RecentRecorder(options(tmp_path / "recent")), now_ns() - 30 * NS_PER_S
    for chunk in noise(begin_ns, 4):
        if not 1 * NS_PER_S <= chunk.start_ns - begin_ns < 2 * NS_PER_S:
            recorder.add(chunk)
    recorder.request(SoundRequest(begin_ns, begin_ns + 4 * NS_PER_S))
    recorder.request(SoundRequest(begin_ns + 10 * NS_PER_S, begin_ns + 20 * NS_PER_S))
    until(lambda: len(recorder.results) == 2)
    assert [(each.fault, each.written_ms) for each in recorder.results] == [("", 3000), ("", 0)]
    assert [each.length_ms for each in recent.segments(tmp_path / "recent", "door")] == [1000, 2000]


def test_old_sound_and_too_much_sound_are_removed(tmp_path: Path) -> None:
    """Also what an earlier process wrote, its unfinished files, and old sound of streams that are gone."""
    folder, now = tmp_path / "recent", datetime.now(UTC)
    body = flac(np.zeros(80, np.float32), RATE_HZ)
    ages_s = (9000, 500, 400)
    for stream in ("door", "gone"):
        (folder / stream).mkdir(parents=True)
        for age_s in ages_s:
            name = recent.name_of(round((now.timestamp() - age_s) * 1e9), 10_000)
            (folder / stream / name).write_bytes(body)
    (folder / "door" / f"{name}.part").write_bytes(b"fLaC")
    (folder / "door" / "notes.txt").write_text("mine")
    (folder / "door").chmod(0o700)
    recorder, begin_ns = RecentRecorder(options(folder, max_bytes=2 * len(body) + 3)), now_ns() - 30 * NS_PER_S
    until(lambda: len(recent.segments(folder, "gone")) == 2 and len(recent.segments(folder, "door")) == 2)
    assert {path.suffix for path in (folder / "door").iterdir()} == {".flac", ".txt"}
    for chunk in noise(begin_ns, 2):
        recorder.add(chunk)
    recorder.request(SoundRequest(begin_ns, begin_ns + 2 * NS_PER_S))  # larger than all that may be kept
    until(lambda: recorder.results and not recent.segments(folder, "door"))


def test_a_hanging_disk_costs_requests_not_memory(tmp_path: Path) -> None:
    """While the disk hangs, requests beyond the queue fail at once, and no more sound is held than its limit."""
    (tmp_path / "recent").mkdir(mode=0o700)
    os.mkfifo(tmp_path / "recent/door")  # a folder that cannot be listed; opening it for writing would hang
    recorder = RecentRecorder(options(tmp_path / "recent"))
    for chunk in noise(0, 90):
        recorder.add(chunk)
    assert recorder._held[-1].start_ns - recorder._held[0].start_ns <= HELD_NS  # memory is the point
    for _ in range(3 * QUEUED_REQUESTS):
        recorder.request(SoundRequest(40 * NS_PER_S, 60 * NS_PER_S))
    until(lambda: len(recorder.results) == 3 * QUEUED_REQUESTS)
    faults = [each.fault for each in recorder.results]
    assert all(faults)
    assert "the disk is too slow" in faults


def test_the_recorder_loads_little() -> None:
    """Importing the recorder loads no OpenCV: only spectrograms need it."""
    script = (
        "import sys; import perceiverd.sources.snapshots.recent_recorder; "
        "sys.exit(any(name in sys.modules for name in ('cv2', 'torch', 'zmq')))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
