"""Live URLs: the mapping of clocks as arithmetic, and real sockets on the loopback interface."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from numpy.typing import NDArray

from perceiverd.core.errors import MediaError
from perceiverd.core.media import NS_PER_S, Chunk, Frame, Media, MediaFormat, Timing, VideoFormat
from perceiverd.sources import live, url
from perceiverd.sources.decode.decoders import DecodeCounts
from perceiverd.sources.specs import Url

WANTED = MediaFormat(16000, VideoFormat(30, 42, 6.25))


@pytest.mark.parametrize("drift_ppm", [-100, 0, 100])
def test_a_day_of_drift(drift_ppm: int) -> None:
    """Over 24 hours at 100 ppm of drift and with network jitter, media stay within 40 ms of their times."""
    sender, chance = live.SenderClock(), random.Random(1)
    for step in range(24 * 3600):
        media_ns = step * NS_PER_S
        taken_ns = 777 * NS_PER_S + round(media_ns * (1 + drift_ppm * 1e-6))
        at_ns = taken_ns + round(chance.expovariate(1 / 0.02) * NS_PER_S)
        if sender.add(media_ns, at_ns) and step > 100:
            assert abs(media_ns + sender.offset_ns - taken_ns) < 40_000_000


def test_the_burst_of_the_opening() -> None:
    """Media that were buffered while the URL was opened do not count as late: the freshest arrival counts."""
    sender = live.SenderClock()
    for step in range(40):  # 1.6 s come at once
        assert not sender.add(step * 40_000_000, 10 * NS_PER_S)
    for step in range(40, 60):
        sender.add(step * 40_000_000, 10 * NS_PER_S + (step - 39) * 40_000_000)
    assert sender.offset_ns == 10 * NS_PER_S - 39 * 40_000_000


def test_a_long_burst() -> None:
    """A slow machine that needs 1.5 s to read the burst waits for its end."""
    sender, settled = live.SenderClock(), False
    for step in range(200):
        taken_ns = 10 * NS_PER_S + step * 40_000_000
        at_ns = max(taken_ns, 12 * NS_PER_S + step * 10_000_000)
        settled = sender.add(step * 40_000_000, at_ns) or settled
        if settled:
            assert sender.offset_ns == pytest.approx(10 * NS_PER_S, abs=20_000_000)
    assert settled


def grey(_: float) -> NDArray[np.uint8]:
    return np.full((60, 84, 3), 128, np.uint8)


def hum(t: NDArray[np.float64]) -> NDArray[np.float64]:
    return 0.3 * np.sin(2 * np.pi * 100 * t)


@contextmanager
def serving(body: bytes, *, hangs: bool = False, after_s: float = 0.0) -> Iterator[str]:
    """An HTTP server for one request, which answers after a while and can become silent instead of closing."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(4096)
                time.sleep(after_s)
                peer.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: video/x-matroska\r\n\r\n" + body)
                if hangs:
                    peer.settimeout(20)
                    while peer.recv(4096):
                        pass

        thread = Thread(target=serve)
        thread.start()
        yield f"http://user:hunter2@127.0.0.1:{server.getsockname()[1]}/a.mkv?key=hunter2"
        thread.join(20)


def in_time(live: Iterator[Media | Timing | None]) -> Iterator[Media]:
    """Pass media on, and check that none comes before its own time."""
    for item in live:
        if isinstance(item, Media):
            assert (item.end_ns if isinstance(item, Chunk) else item.start_ns) <= time.monotonic_ns() + 1_000_000
            yield item


def test_the_end_of_a_live_url_is_an_error(clip: Callable[..., Path]) -> None:
    """Media come live-stamped in real time; if the server closes, it is a MediaError without the password."""
    body = clip("a.mkv", picture=grey, sound=hum, seconds=1.5).read_bytes()
    began_ns, items = time.monotonic_ns(), list[Media]()
    with (
        serving(body) as address,
        pytest.raises(MediaError, match=r"the stream ended|be read further") as caught,
    ):
        items.extend(in_time(url.media(Url(address), WANTED)))
    assert items[0].start_ns > began_ns
    assert items[-1].start_ns - items[0].start_ns > NS_PER_S
    assert "hunter2" not in str(caught.value)


def test_a_server_that_becomes_silent(clip: Callable[..., Path]) -> None:
    """If no data comes for read_timeout_s, it is a MediaError and not an endless wait."""
    body = clip("a.mkv", picture=grey, sound=hum, seconds=4).read_bytes()
    began_s = time.monotonic()
    with serving(body[: len(body) // 2], hangs=True) as address, pytest.raises(MediaError, match="no data"):
        list(url.media(Url(address, read_timeout_s=1.0), WANTED))
    assert time.monotonic() - began_s < 60  # on a busy machine; otherwise it would wait for ever


def test_video_that_ends_while_audio_continues(clip: Callable[..., Path]) -> None:
    """If audio or video alone is missing for read_timeout_s, it is a MediaError, as if both were missing."""
    path = clip("a.mkv", picture=grey, times_s=[n / 25 for n in range(25)], sound=hum, seconds=6)
    with (
        serving(path.read_bytes()) as address,
        pytest.raises(MediaError, match=r"no video for 1 s, while its audio"),
    ):
        list(url.media(Url(address, read_timeout_s=1.0), WANTED))


def both(frames: Iterable[float], chunks: Iterable[float]) -> int:
    """How many frames and chunks, which begin at these seconds, pass before one kind counts as missing."""
    frame, chunk = Frame(0, np.zeros((2, 2, 3), np.uint8)), Chunk(0, np.zeros(640, np.float32), 16_000)
    items = [
        (at_s, replace(item, start_ns=round(at_s * 1e9)))
        for item, all_s in ((frame, frames), (chunk, chunks))
        for at_s in all_s
    ]
    passed = 0
    with suppress(MediaError):
        for _ in url._while_complete(
            Url("rtsp://camera/1"), iter([item for _, item in sorted(items, key=lambda each: each[0])])
        ):
            passed += 1
    return passed


def test_rare_frames_are_not_missing() -> None:
    """A kind is missing after 5 s, or 4 of its intervals if they are longer; not if it came never or once."""
    sound, minute = [n / 25 for n in range(3000)], range(25 * 60)
    assert both(range(0, 120, 10), sound) == 3012
    assert both((), sound) == 3000
    assert both((0,), sound) == 3001
    assert both([n / 25 for n in minute], sound) == pytest.approx(1500 + 65 * 25, abs=3)
    assert both(range(0, 61, 10), sound) == pytest.approx(7 + 100 * 25, abs=3)
    assert both(sound, [n / 25 for n in minute]) == pytest.approx(1500 + 65 * 25, abs=3)


@pytest.mark.parametrize(("address", "passed"), [("https://h/live.m3u8", 60 + 38), ("rtsp://h/1", 60 + 125)])
def test_a_discontinuity_of_separate_playlists(address: str, passed: int) -> None:
    """If only audio continues behind one, a playlist is opened again after 1.5 s; other URLs wait for 5 s."""
    counts, chunk = DecodeCounts(), Chunk(0, np.zeros(640, np.float32), 16_000)

    def items() -> Iterator[Media]:
        for number in range(1000):
            counts.joins = int(number >= 30)
            if number < 30:
                yield Frame(number * 40_000_000, np.zeros((2, 2, 3), np.uint8))
            yield replace(chunk, start_ns=number * 40_000_000)

    seen = 0
    with suppress(MediaError):
        for _ in url._while_complete(Url(address), items(), counts):
            seen += 1
    assert seen == pytest.approx(passed, abs=3)


def test_a_set_clock_makes_nothing_missing() -> None:
    """If a clock is set, audio comes with the new time before video does, and video does not count as missing."""
    times = [n / 25 + 100 * (n >= 300) for n in range(600)]
    assert both([each + 0.001 for each in times], times) == 1200


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_server_that_does_not_answer(scheme: str) -> None:
    """If a URL does not open within open_timeout_s, it is a MediaError without the password."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"{scheme}://user:hunter2@127.0.0.1:{server.getsockname()[1]}/x"
        with pytest.raises(MediaError, match=r"does not answer within 0\.5 s") as caught:
            next(url.media(Url(address, open_timeout_s=0.5), WANTED))
    assert "hunter2" not in str(caught.value)


@pytest.mark.quiet
def test_opening_has_one_bound(clip: Callable[..., Path]) -> None:
    """A slow answer, then silence while FFmpeg searches for streams: both together take at most open_timeout_s."""
    body = clip("a.mkv", picture=grey, sound=hum, seconds=4).read_bytes()
    began_s = time.monotonic()
    with (
        serving(body[:700], hangs=True, after_s=5.5) as address,
        pytest.raises(MediaError, match=r"does not answer within 6 s"),
    ):
        list(url.media(Url(address, open_timeout_s=6.0), WANTED))
    assert time.monotonic() - began_s < 10.0  # PyAV would allow 6 s for each: 11.5 s


def test_a_source_that_opens_is_not_killed() -> None:
    """While media are held until their clock is known, there are signs of life."""
    now_ns = 50 * NS_PER_S

    def sent() -> Iterator[Media]:
        nonlocal now_ns
        for number in range(120):
            now_ns += 40_000_000
            # Each comes sooner than the one before, as after a long burst.
            yield Frame(number * 70_000_000, np.zeros((2, 2, 3), np.uint8))

    items = live.pushed("rtsp://camera/1", sent(), lambda: now_ns)
    assert [next(items) for _ in range(100)] == [None] * 100


def test_a_refused_connection() -> None:
    """A refused connection is a MediaError at once, without the password."""
    with closing(socket.socket()) as closed:
        closed.bind(("127.0.0.1", 0))  # nobody else gets the port, and nobody listens
        address = f"rtsp://user:hunter2@127.0.0.1:{closed.getsockname()[1]}/x"
        with pytest.raises(MediaError, match="refused") as caught:
            next(url.media(Url(address), WANTED))
    assert "hunter2" not in str(caught.value)


SEND = """
import sys, time
from pathlib import Path
import av
with av.open(sys.argv[1]) as clip, av.open(sys.argv[2], "w", format="mpegts") as out:
    streams = {stream.index: out.add_stream_from_template(stream) for stream in clip.streams}
    begin = time.monotonic()
    for packet in clip.demux():
        if packet.dts is not None:
            time.sleep(max(0, begin + float(packet.dts * packet.time_base) - time.monotonic()))
            packet.stream = streams[packet.stream_index]
            out.mux(packet)
"""


def prompt(live: Iterator[Media | Timing | None]) -> Iterator[Media]:
    """Pass media on, and check that each is stamped close to its arrival."""
    for item in live:
        if isinstance(item, Media):
            assert abs(time.monotonic_ns() - item.start_ns) < 3 * NS_PER_S
            yield item


@pytest.mark.quiet  # a busy machine loses datagrams
def test_a_stream_pushed_over_udp(clip: Callable[..., Path]) -> None:
    """A live transport stream keeps flash and beep within 40 ms, stamped close to their arrival."""
    path = clip(
        "a.ts",
        picture=lambda t: np.full((60, 84, 3), 255 if t % 1 < 0.1 else 0, np.uint8),
        sound=lambda t: 0.5 * np.sin(2 * np.pi * 1000 * t) * (t % 1 < 0.1),
        rate_hz=48000,
        seconds=4.5,
    )
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"udp://127.0.0.1:{probe.getsockname()[1]}"
    items = list[Media]()
    with subprocess.Popen([sys.executable, "-c", SEND, str(path), address + "?pkt_size=1316"]) as sender:
        with pytest.raises(MediaError, match="no data"):
            items.extend(prompt(url.media(Url(address, open_timeout_s=60.0, read_timeout_s=3.0), WANTED)))
        assert sender.wait(60) == 0
    frames = [item for item in items if isinstance(item, Frame)]
    flashes = [b.start_ns for a, b in pairwise(frames) if a.pixels.mean() <= 127 < b.pixels.mean()]
    beeps, last_ns = list[int](), 0
    for chunk in (item for item in items if isinstance(item, Chunk)):
        for loud in np.flatnonzero(np.abs(chunk.samples) > 0.2):
            at_ns = chunk.start_ns + int(loud) * NS_PER_S // chunk.rate_hz
            if at_ns - last_ns > NS_PER_S // 2:
                beeps.append(at_ns)
            last_ns = at_ns
    assert len(flashes) >= 2
    # The clip's encoder delays AAC by 21 ms, and a transport stream has no field for this.
    pairs = [min(beeps, key=lambda beep: abs(beep - flash)) - flash for flash in flashes]
    assert np.abs(pairs).max() < 40_000_000


def pushed(jump_s: float, lasts: int = 400) -> list[Media | Timing]:
    """The items of a sender with a frame and a chunk every 40 ms, whose clock is set at the 200th."""
    now_ns, stepped_ns = 50 * NS_PER_S, round(jump_s * NS_PER_S)

    def sent() -> Iterator[Media]:
        nonlocal now_ns
        chance = random.Random(2)
        for number in range(lasts):
            now_ns = 50 * NS_PER_S + number * 40_000_000 + chance.randrange(15_000_000)
            start_ns = number * 40_000_000 + 7 * NS_PER_S + (stepped_ns if number >= 200 else 0)
            yield Frame(start_ns, np.zeros((2, 2, 3), np.uint8))
            yield Chunk(start_ns - 40_000_000, np.zeros(640, np.float32), 16_000)

    return [item for item in live.pushed("rtsp://camera/1", sent(), lambda: now_ns) if item is not None]


@pytest.mark.parametrize("jump_s", [-4.0, -1.0, -0.3, 0.3, 1.0, 4.0])
def test_a_sender_sets_its_clock(jump_s: float) -> None:
    """Media before and after are separated by a step, and none is far from its capture time."""
    items = pushed(jump_s)
    steps = [item.steps for item in items if isinstance(item, Timing)]
    assert steps[-1] >= 1
    first = next(place for place, item in enumerate(items) if isinstance(item, Timing) and item.steps)
    frames = [item for item in items if isinstance(item, Frame)]
    assert len(frames) > 375  # the first half second after a step is held back or dropped
    after = [item.start_ns for item in items[first:] if isinstance(item, Frame)]
    taken = [50 * NS_PER_S + number * 40_000_000 for number in range(400)]
    assert all(min(abs(start_ns - each) for each in taken) < 40_000_000 for start_ns in after)
    assert after == sorted(after)
    assert abs(after[-1] - taken[-1]) < 40_000_000


def test_a_clock_that_is_right_makes_no_step() -> None:
    """Jitter alone is no step, and the source reports its clock regularly."""
    timings = [item for item in pushed(0.0, 500) if isinstance(item, Timing)]
    assert len(timings) >= 3
    assert {item.steps for item in timings} == {0}
    assert 1 < timings[-1].jitter_ms < 15


def test_a_backlog_is_no_step() -> None:
    """If a network stops for 2 s and then catches up slowly, no clock was set."""
    sender = live.SenderClock()
    for number in range(1000):
        taken_ns = number * 40_000_000
        at_ns = taken_ns
        if number >= 300:  # 2 s late, then a little less with each frame
            at_ns = max(taken_ns, 14 * NS_PER_S + (number - 300) * 30_000_000)
        sender.add(taken_ns, at_ns)
    assert sender.steps == 0
    assert abs(sender.offset_ns) < 40_000_000


def test_growing_delays_are_not_steps_for_ever() -> None:
    """If a network gets 1 s later every 10 s, the URL is opened again before labels are 6 s late."""
    sender, astray_ns = live.SenderClock(), 0
    for number in range(5000):
        taken_ns = number * 40_000_000
        at_ns = taken_ns + number // 250 * NS_PER_S
        astray_ns = sender.astray_ns(taken_ns, at_ns)
        if astray_ns > live.ASTRAY_NS:
            break
        sender.add(taken_ns, at_ns)
    assert astray_ns > live.ASTRAY_NS
    assert number // 250 <= 6


def test_a_playlist_that_restarts() -> None:
    """If times jump back, as after an encoder's restart, there is a step and media continue where they were."""
    now_ns = 9 * NS_PER_S

    def taken() -> Iterator[Media]:
        nonlocal now_ns
        for number in (*range(100), *range(50, 100)):
            yield Frame(number * 40_000_000, np.zeros((2, 2, 3), np.uint8))
            yield Chunk(number * 40_000_000, np.zeros(640, np.float32), 16_000)
            now_ns += 40_000_000

    items = list(live.pulled("https://camera/live.m3u8", taken(), lambda: now_ns))
    steps = [place for place, item in enumerate(items) if isinstance(item, Timing)]
    assert len(steps) == 1
    for kind in (Frame, Chunk):
        times = [item.start_ns for item in items if isinstance(item, kind)]
        assert times == sorted(times)
        assert times[-1] - times[0] == pytest.approx(149 * 40_000_000, abs=80_000_000)
