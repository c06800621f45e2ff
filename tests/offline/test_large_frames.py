"""Real frames in 4K: what the processes hold stays within the bounds in bytes that the code names."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from perceiverd.core.media import Frame, MediaFormat
from perceiverd.offline.decoding import Decoder
from perceiverd.offline.tag import TOLERANCE
from perceiverd.pipeline.windower import Windower
from perceiverd.sources.decode.needed import HELD_BYTES
from tests.support.clips import FPS, GEOMETRY, write_clip

WIDTH, HEIGHT, SECONDS = 3840, 2160, 3
FRAME_BYTES = WIDTH * HEIGHT * 3 // 2
WANTED = MediaFormat(video=GEOMETRY.media_format.video)
CODEC_FRAMES = 6
"""Frames that FFmpeg holds: the newest, those that it refers to, and those that wait for their turn."""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of 75 frames in 4K: a grey ramp that moves."""
    path = tmp_path_factory.mktemp("large") / "4k.mp4"
    ramp = np.add.outer(np.arange(HEIGHT), np.arange(WIDTH)).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(SECONDS * FPS):
            planes = np.full((HEIGHT * 3 // 2, WIDTH), 128, np.uint8)
            planes[:HEIGHT] = ramp + np.uint8(number)
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def peak_bytes(pid: int | str) -> int:
    """The most that a process has had in memory: VmHWM of proc_pid_status(5)."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def test_frames_that_wait_are_bounded(large: Path, tmp_path: Path) -> None:
    """The worker of `tag` holds HELD_BYTES and FFmpeg's own frames, although the frames of a window are 311 MB."""
    assert GEOMETRY.window_ns * FPS // 10**9 * FRAME_BYTES > 2 * HELD_BYTES
    small = write_clip(tmp_path / "a.mp4", video_s=SECONDS)
    grid = Windower(GEOMETRY, GEOMETRY.window_ns, TOLERANCE).grid
    with Decoder(WANTED) as decoder:
        times_ns = [item.start_ns for item in decoder.read(str(small), grid=grid)]
        assert decoder._process
        before_bytes = peak_bytes(decoder._process.pid)
        items = list(decoder.read(str(large), grid=grid))
        grown_bytes = peak_bytes(decoder._process.pid) - before_bytes
        frames = CODEC_FRAMES + 2 * decoder._threads
    assert [item.start_ns for item in items] == times_ns
    assert all(isinstance(item, Frame) for item in items) and any(item.pixels.size for item in items)  # type: ignore[union-attr]
    assert grown_bytes < HELD_BYTES + frames * FRAME_BYTES


LIVE = """
import sys
from pathlib import Path
from perceiverd.sources import file
from perceiverd.sources.specs import File
from tests.offline.test_large_frames import WANTED, peak_bytes
sizes = []
for path in sys.argv[1:]:
    list(file.media(File(path), WANTED))
    sizes.append(peak_bytes("self"))
print(sizes[1] - sizes[0])
"""


def test_a_live_source_holds_few_frames(large: Path, tmp_path: Path) -> None:
    """A source that plays the clip in real time grows by FFmpeg's own frames only; one thread decodes on each core."""
    small = write_clip(tmp_path / "a.mp4", video_s=1)
    root, command = Path(__file__).parents[2], [sys.executable, "-c", LIVE, str(small), str(large)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root, timeout=100)
    assert int(done.stdout) < (CODEC_FRAMES + 2 * len(os.sched_getaffinity(0))) * FRAME_BYTES
