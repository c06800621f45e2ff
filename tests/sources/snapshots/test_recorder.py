"""What a source holds at hand, and what becomes of it: pictures, clips, and a disk that hangs."""

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
from perceiverd.sources.snapshots import recorder, store
from perceiverd.sources.snapshots.jpeg import JpegEncoder
from perceiverd.sources.snapshots.recorder import Recorder
from perceiverd.sources.snapshots.requests import SnapshotOptions, SnapshotRequest

NAME = "20260131T235959.123Z_door_Dog"


def keep(directory: Path, before_s: float = 0, after_s: float = 0) -> SnapshotOptions:
    return SnapshotOptions(str(directory), 640, before_s, after_s, 60, 10**9)


def frame(start_ns: int, grey: int) -> Frame:
    pixels = np.full((48, 64, 3), grey, np.uint8)
    still = JpegEncoder(StillFormat(640, 2)).of(start_ns, av.VideoFrame.from_ndarray(pixels, "rgb24"))
    return Frame(start_ns, pixels, still)


def until(done: object, within_s: float = 20) -> None:
    deadline_s = time.monotonic() + within_s
    while not done():  # type: ignore[operator]
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def test_the_picture_of_that_time(tmp_path: Path) -> None:
    """Of those at hand the nearest in time is kept; one that was never taken is told of."""
    kept = Recorder(keep(tmp_path / "kept"))
    kept.ask(SnapshotRequest("20260101T000000.000Z_a_b", 0))
    until(lambda: kept.said)
    assert kept.said.popleft() == "no picture has come lately"
    for second in range(8):
        kept.see(frame(second * NS_PER_S, second * 30))
    kept.ask(SnapshotRequest(NAME, 4 * NS_PER_S + 400_000_000))
    until(lambda: kept.said)
    assert kept.said.popleft() == ""
    with av.open(str(tmp_path / f"kept/{NAME}.jpg")) as shown:
        assert next(shown.decode(video=0)).to_ndarray(format="rgb24").mean() == pytest.approx(120, abs=3)


def test_a_picture_of_another_time_is_none(tmp_path: Path) -> None:
    """When pictures have ceased to come, the last of them is not kept under an event's time."""
    kept = Recorder(keep(tmp_path / "kept"))
    kept.see(frame(0, 90))
    kept.ask(SnapshotRequest(NAME, recorder.NEAR_NS + 1))
    until(lambda: kept.said)
    assert kept.said.popleft() == "there is no picture of that time"
    assert not list((tmp_path / "kept").glob("*.jpg"))
    kept.ask(SnapshotRequest(NAME, recorder.NEAR_NS))
    until(lambda: kept.said)
    assert kept.said.popleft() == ""


def test_the_pixels_of_the_model_are_not_held(tmp_path: Path) -> None:
    """Of a frame that passed only its still is at hand."""
    kept = Recorder(keep(tmp_path / "kept"))
    passing = frame(0, 9)
    pixels = weakref.ref(passing.pixels)
    kept.see(passing)
    del passing
    assert pixels() is None
    assert len(kept._held) == 1


def test_no_more_is_held_than_is_needed(tmp_path: Path) -> None:
    """An hour of pictures leaves ten seconds of them, and without clips no sound at all."""
    kept = Recorder(keep(tmp_path / "kept"))
    still = frame(0, 9).still
    for second in range(3600):
        kept.see(Frame(second * NS_PER_S, np.zeros((2, 2, 3), np.uint8), still))
        kept.see(Frame(second * NS_PER_S, np.zeros((2, 2, 3), np.uint8)))
        kept.see(Chunk(second * NS_PER_S, np.zeros(160, np.float32), 16_000))
    assert [item.start_ns // NS_PER_S for item in kept._held] == list(range(3589, 3600))
    large = b"-" * (recorder.HELD_BYTES // 4)
    for second in range(3600, 3608):
        kept.see(Frame(second * NS_PER_S, np.zeros((2, 2, 3), np.uint8), large))
    assert kept._bytes <= recorder.HELD_BYTES
    assert len(kept._held) == 4


def test_stills_are_upright_and_no_larger_than_asked() -> None:
    """Shrunk to the limit, never enlarged; pixels that are wider than high become square; two are made a second."""
    wide = av.VideoFrame.from_ndarray(np.full((90, 200, 3), 50, np.uint8), "rgb24")
    made = JpegEncoder(StillFormat(100, 2))
    told = [made.of(number * 100_000_000, wide) for number in range(20)]
    assert [place for place, each in enumerate(told) if each] == [0, 5, 10, 15]
    for longest, aspect, size in ((100, None, (100, 44)), (1000, None, (200, 90)), (1000, 2, (400, 90))):
        data = JpegEncoder(StillFormat(longest, 2)).of(0, wide, aspect)  # type: ignore[arg-type]
        assert data
        packet = av.Packet(data)
        shown = av.VideoCodecContext.create("mjpeg", "r").decode(packet)[0]
        assert (shown.width, shown.height) == size


def test_pixels_are_looked_at_only_where_a_still_is_due() -> None:
    """What FFmpeg would not take passes unseen between two stills, and so costs no copy."""
    stills, pixels = JpegEncoder(StillFormat(100, 2)), np.zeros((48, 64, 3), np.uint8)
    made = [stills.of_pixels(number * 100_000_000, pixels[..., : 0 if number % 5 else 3]) for number in range(20)]
    assert [place for place, each in enumerate(made) if each] == [0, 5, 10, 15]


@pytest.fixture
def frozen_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk on which nothing can be written until the test is over."""
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


def test_a_disk_that_hangs(frozen_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Media go on at their pace, pictures that find no room in the queue are refused at once, and all is well after."""
    monkeypatch.setattr(store, "RESERVE_BYTES", 0)
    kept = Recorder(keep(frozen_disk / "kept"))
    began_s = time.monotonic()
    for second in range(20):
        kept.see(frame(second * NS_PER_S // 4, second * 10))
        kept.ask(SnapshotRequest(NAME.replace("23", f"{second:02}", 1), second * NS_PER_S // 4))
        time.sleep(0.01)
    assert time.monotonic() - began_s < 2
    assert set(kept.said) == {"the disk is too slow"}
    refused = len(kept.said)
    assert 20 - recorder.ASKED - 1 <= refused < 20
    subprocess.run(["fsfreeze", "-u", str(frozen_disk)], check=True)
    until(lambda: len(kept.said) == 20)
    assert list(kept.said)[refused:] == [""] * (20 - refused)
