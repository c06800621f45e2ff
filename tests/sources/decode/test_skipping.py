"""Frames that are not decoded: the frames that come out are the same."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiverd.core.media import NS_PER_S, Frame, MediaFormat, VideoFormat
from perceiverd.sources.decode.container import read
from perceiverd.sources.decode.decimate import Decimator
from perceiverd.sources.decode.decoders import VideoDecoder
from perceiverd.sources.decode.skipping import AHEAD, SkipPlan

FRAME_NS = NS_PER_S // 25


def write_film(path: Path, codec: str, options: dict[str, str], step: int = 1) -> Path:
    """6 s of a moving pattern with noise; every `step`th frame is missing."""
    rng = np.random.default_rng(3)
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(150):
            if step > 1 and number % step == step - 1:
                continue
            pixels = (np.add.outer(np.arange(64), np.arange(96))[..., None] * 2 + number * np.array([3, 5, 7])) % 256
            noisy = (pixels + rng.integers(0, 9, pixels.shape)).clip(0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(noisy, "rgb24")
            frame.pts = number
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def frames_of(path: Path, fps: float, threads: int) -> list[Frame]:
    """Without threads, as from a live stream."""
    wanted = MediaFormat(video=VideoFormat(31, 43, fps))
    return [item for item in read(path, wanted, threads=threads, live=not threads) if isinstance(item, Frame)]


@pytest.mark.parametrize("fps", [0.78125, 3.125])
@pytest.mark.parametrize("threads", [0, 1, 3])
@pytest.mark.parametrize(
    ("name", "codec", "options", "step"),
    [
        ("pyramid.mp4", "libx264", {"bf": "3", "x264-params": "b-pyramid=normal"}, 1),
        ("open.ts", "libx264", {"bf": "7", "x264-params": "open-gop=1:keyint=20:b-pyramid=none"}, 1),
        ("uneven.mkv", "libx264", {"bf": "2"}, 3),
        ("two.mp4", "mpeg4", {"bf": "2"}, 1),
        ("two.mpg", "mpeg2video", {"bf": "2"}, 1),
        ("simple.avi", "mpeg4", {"bf": "0"}, 1),
    ],
)
def test_the_frames_are_those_of_full_decoding(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fps: float,
    threads: int,
    name: str,
    codec: str,
    options: dict[str, str],
    step: int,
) -> None:
    """Whatever the codec's frames refer to, the same frames come out, with the same pixels and times."""
    path = write_film(tmp_path / name, codec, options, step)
    fewer = frames_of(path, fps, threads)
    monkeypatch.setattr(VideoDecoder, "foresee", lambda *_: None)
    full = frames_of(path, fps, threads)
    assert [frame.start_ns for frame in fewer] == [frame.start_ns for frame in full]
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(fewer, full, strict=True))


def test_frames_are_skipped(tmp_path: Path) -> None:
    """Most of the frames that nothing refers to never come out of the decoder."""
    path = write_film(tmp_path / "film.mp4", "libx264", {"bf": "3", "x264-params": "b-adapt=0:b-pyramid=none"})
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        plan, packets, count = SkipPlan(Decimator(1.0)), [*container.demux(stream)], 0
        times = [None if packet.pts is None else int(packet.pts * packet.time_base * NS_PER_S) for packet in packets]
        for number, packet in enumerate(packets):
            needed = plan.needs(times[number], times[number + 1 : number + 1 + AHEAD])
            stream.codec_context.skip_frame = "DEFAULT" if needed else "NONREF"
            count += len(packet.decode())
    assert count < 80


@given(st.lists(st.integers(1, 200_000_000), min_size=2, max_size=80), st.floats(0.5, 30), st.integers(0, 3))
def test_the_plan_foresees_what_is_kept(steps_ns: list[int], fps: float, held: int) -> None:
    """Of frames in the order of their times, exactly those are needed that are kept when they come out."""
    times_ns = np.cumsum(steps_ns).tolist()
    decimator = Decimator(fps)
    plan, kept, coming = SkipPlan(decimator), list[bool](), list[int]()
    needed = []
    for number, at_ns in enumerate(times_ns):
        needed.append(plan.needs(at_ns, times_ns[number + 1 : number + 1 + AHEAD]))
        coming.append(at_ns)
        while len(coming) > held:  # a decoder holds frames back
            plan.came_out(coming[0])
            kept.append(decimator.keeps(coming.pop(0)))
    kept += [decimator.keeps(at_ns) for at_ns in coming]
    assert needed == kept


def test_a_frame_is_needed_while_its_place_is_unknown() -> None:
    """Without times, and while frames that are shown earlier may follow, every frame is decoded."""
    plan = SkipPlan(Decimator(1.0))
    plan.came_out(0)
    assert plan.needs(None, [FRAME_NS])
    assert plan.needs(FRAME_NS, [2 * FRAME_NS, None])
    assert plan.needs(9 * FRAME_NS, [k * FRAME_NS for k in range(2, 6)])


def test_packets_far_ahead_are_not_held() -> None:
    """A decoder that never returns a frame does not make the plan grow."""
    plan = SkipPlan(Decimator(1.0))
    for first_ns, next_ns in pairwise(range(0, 4000 * FRAME_NS, FRAME_NS)):
        plan.needs(first_ns, [next_ns])
    assert len(plan._coming_ns) <= 64
