"""What the recorder holds of a source, and what it writes to disk, even if the disk hangs."""

from __future__ import annotations

import subprocess
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from perceiverd.core.media import NS_PER_S, Chunk, Frame, StillFormat
from perceiverd.sources.snapshots import store
from perceiverd.sources.snapshots.jpeg import JpegEncoder
from perceiverd.sources.snapshots.recorder import HELD_BYTES, NEAR_NS, QUEUED_REQUESTS, Recorder
from perceiverd.sources.snapshots.requests import SnapshotOptions, SnapshotRequest

NAME = "20260131T235959.123Z_door_Dog"


def options(directory: Path, before_s: float = 0, after_s: float = 0) -> SnapshotOptions:
    return SnapshotOptions(str(directory), 640, before_s, after_s, 60, 10**9)


def frame(start_ns: int, grey: int) -> Frame:
    pixels = np.full((48, 64, 3), grey, np.uint8)
    still = JpegEncoder(StillFormat(640, 2)).of(start_ns, av.VideoFrame.from_ndarray(pixels, "rgb24"))
    return Frame(start_ns, pixels, still)


def until(done: object, within_s: float = 60) -> None:
    deadline_s = time.monotonic() + within_s
    while not done():  # type: ignore[operator]
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def test_the_nearest_picture_is_written(tmp_path: Path) -> None:
    """Of the held pictures the one nearest in time is written; if there is none, the result says so."""
    recorder = Recorder(options(tmp_path / "kept"))
    recorder.request(SnapshotRequest("20260101T000000.000Z_a_b", 0))
    until(lambda: recorder.results)
    assert recorder.results.popleft() == "the source has sent no picture recently"
    for second in range(8):
        recorder.add(frame(second * NS_PER_S, second * 30))
    recorder.request(SnapshotRequest(NAME, 4 * NS_PER_S + 400_000_000))
    until(lambda: recorder.results)
    assert recorder.results.popleft() == ""
    with av.open(str(tmp_path / f"kept/{NAME}.jpg")) as shown:
        assert next(shown.decode(video=0)).to_ndarray(format="rgb24").mean() == pytest.approx(120, abs=3)


def test_a_picture_of_another_time_is_not_written(tmp_path: Path) -> None:
    """After the video has stopped, its last picture does not stand for a later event."""
    recorder = Recorder(options(tmp_path / "kept"))
    recorder.add(frame(0, 90))
    recorder.request(SnapshotRequest(NAME, NEAR_NS + 1))
    until(lambda: recorder.results)
    assert recorder.results.popleft() == "there is no picture of that time"
    assert not list((tmp_path / "kept").glob("*.jpg"))
    recorder.request(SnapshotRequest(NAME, NEAR_NS))
    until(lambda: recorder.results)
    assert recorder.results.popleft() == ""


def test_the_pixels_of_the_model_are_not_held(tmp_path: Path) -> None:
    """Of a frame, only its still is held."""
    recorder = Recorder(options(tmp_path / "kept"))
    passing = frame(0, 9)
    pixels = weakref.ref(passing.pixels)
    recorder.add(passing)
    del passing
    assert pixels() is None
    assert len(recorder._held) == 1


def test_the_held_media_are_bounded(tmp_path: Path) -> None:
    """After an hour, ten seconds of pictures are held, and no audio if there are no clips."""
    recorder = Recorder(options(tmp_path / "kept"))
    still = frame(0, 9).still
    for second in range(3600):
        recorder.add(Frame(second * NS_PER_S, np.zeros((2, 2, 3), np.uint8), still))
        recorder.add(Frame(second * NS_PER_S, np.zeros((2, 2, 3), np.uint8)))
        recorder.add(Chunk(second * NS_PER_S, np.zeros(160, np.float32), 16_000))
    assert [item.start_ns // NS_PER_S for item in recorder._held] == list(range(3589, 3600))
    large = b"-" * (HELD_BYTES // 4)
    for second in range(3600, 3608):
        recorder.add(Frame(second * NS_PER_S, np.zeros((2, 2, 3), np.uint8), large))
    assert recorder._bytes <= HELD_BYTES
    assert len(recorder._held) == 4


@pytest.fixture
def frozen_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk on which every write hangs until the test is over."""
    image, place = tmp_path / "image", tmp_path / "disk"
    image.write_bytes(bytes(8_000_000))
    place.mkdir()
    if subprocess.run(["mkfs.ext4", "-q", str(image)], check=False, capture_output=True).returncode or (
        subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=False, capture_output=True).returncode
    ):
        pytest.skip("needs root, to mount a disk and freeze it")
    try:
        (place / "kept").mkdir(mode=0o700)
        subprocess.run(["fsfreeze", "-f", str(place)], check=True)
        yield place
    finally:
        subprocess.run(["fsfreeze", "-u", str(place)], check=False)
        for _ in range(50):
            if not subprocess.run(["umount", str(place)], check=False, capture_output=True).returncode:
                break
            time.sleep(0.1)


@pytest.mark.quiet
def test_a_disk_that_hangs(frozen_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk hangs, media are not delayed and surplus requests fail at once; after it, the rest is written."""
    monkeypatch.setattr(store, "RESERVE_BYTES", 0)
    recorder = Recorder(options(frozen_disk / "kept"))
    began_s = time.monotonic()
    for second in range(20):
        recorder.add(frame(second * NS_PER_S // 4, second * 10))
        recorder.request(SnapshotRequest(NAME.replace("23", f"{second:02}", 1), second * NS_PER_S // 4))
        time.sleep(0.01)
    assert time.monotonic() - began_s < 20  # it hangs until it is thawed below
    assert set(recorder.results) == {"the disk is too slow"}
    refused = len(recorder.results)
    assert 20 - QUEUED_REQUESTS - 1 <= refused < 20
    subprocess.run(["fsfreeze", "-u", str(frozen_disk)], check=True)
    until(lambda: len(recorder.results) == 20)
    assert list(recorder.results)[refused:] == [""] * (20 - refused)


def test_the_sound_of_a_stream_that_only_hears_is_written(tmp_path: Path) -> None:
    """A FLAC file with the seconds around the event, and a picture of its spectrogram."""
    recorder = Recorder(options(tmp_path / "kept", 1.0, 0.5))
    now = time.monotonic_ns()
    for tenth in range(60):
        recorder.add(Chunk(now - 6 * NS_PER_S + tenth * NS_PER_S // 10, np.full(1600, np.float32(0.25)), 16_000))
    recorder.request(SnapshotRequest(NAME, now - 3 * NS_PER_S, sound=True))
    until(lambda: recorder.results)
    assert recorder.results.popleft() == ""
    with av.open(str(tmp_path / f"kept/{NAME}.flac")) as sound:
        assert sum(frame.samples for frame in sound.decode(audio=0)) == 24_000
    with av.open(str(tmp_path / f"kept/{NAME}.jpg")) as shown:
        assert next(shown.decode(video=0)).height == 256  # as wide as the largest picture
