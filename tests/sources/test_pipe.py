"""Pipes with real writers: FIFOs and standard input, live and faster than real time, killed, silent, with garbage."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from numpy.typing import NDArray

from perceiverd.core.errors import MediaError
from perceiverd.core.media import NS_PER_S, Chunk, Frame, Media, MediaFormat, Timing, VideoFormat, Waiting
from perceiverd.sources import pipe
from perceiverd.sources.decode.decoders import DecodeCounts
from perceiverd.sources.process.arrivals import Key
from perceiverd.sources.process.restart import RunState
from perceiverd.sources.process.supervisor import Supervisor
from perceiverd.sources.specs import Pipe, Source
from tests.support.driving import drive, media

SOUND = MediaFormat(16000, None)
BOTH = MediaFormat(16000, VideoFormat(30, 42, 6.25))
RAW = "s16le,16000,1"
KEY: Key = ("door", 0)
WRITE = """
import sys, time
from pathlib import Path
data, rate, seconds = Path(sys.argv[1]).read_bytes(), int(sys.argv[3]), float(sys.argv[4])
with open(sys.argv[2], "wb", buffering=0) as out:
    begin, sent = time.monotonic(), 0
    while time.monotonic() - begin < seconds:
        due = int((time.monotonic() - begin) * rate)
        while sent < due:
            sent += out.write(data[sent % len(data) :][: due - sent])
        time.sleep(0.01)
    time.sleep(float(sys.argv[5]) if len(sys.argv) > 5 else 0)
"""
"""Writes bytes at a constant rate, then waits."""


def noise(seconds: float) -> NDArray[np.int16]:
    return np.random.default_rng(3).integers(-20_000, 20_000, round(seconds * 16_000), np.int16)


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "sound"
    os.mkfifo(path)
    return path


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    """A second of raw audio."""
    path = tmp_path / "noise.raw"
    path.write_bytes(noise(1.0).tobytes())
    return path


@contextmanager
def writer(
    source: Path, target: Path, rate: int, seconds: float, waits_s: float = 0.0
) -> Iterator[subprocess.Popen[bytes]]:
    """A program that writes `rate` bytes a second into a FIFO."""
    arguments = [str(each) for each in (source, target, rate, seconds, waits_s)]
    with subprocess.Popen([sys.executable, "-c", WRITE, *arguments], stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(spec: Pipe, wanted: MediaFormat = SOUND) -> tuple[list[Media], str]:
    """All media of a FIFO until its writer has gone, and the error that says so."""
    items = list[Media]()
    with pytest.raises(MediaError) as caught:
        items.extend(item for item in pipe.media(spec, wanted) if isinstance(item, Media))
    return items, str(caught.value)


def in_pieces(target: Path, data: bytes, sizes: Callable[[], int]) -> Thread:
    """Write the data into a FIFO as fast as it is read."""

    def write() -> None:
        with suppress(BrokenPipeError), target.open("wb", buffering=0) as out:
            at = 0
            while at < len(data):
                at += out.write(data[at : at + sizes()])

    thread = Thread(target=write)
    thread.start()
    return thread


def test_no_sample_is_torn_or_lost(fifo: Path) -> None:
    """Writes of odd sizes, and an odd byte at the end, change no sample: they come in order, each once."""
    sent, chance = noise(1.5), random.Random(1)
    thread = in_pieces(fifo, sent.tobytes() + b"\x01", lambda: chance.choice((1, 333, 777, 4097)))
    items, why = ended(Pipe(str(fifo), raw=RAW))
    thread.join(20)
    got = np.concatenate([item.samples for item in items if isinstance(item, Chunk)])
    assert len(sent) - len(got) < 1024  # what the resampler holds at the end of a live source is too late
    assert np.allclose(got, sent[: len(got)] / 32768, atol=1e-4)
    assert why == f"{fifo}: its writer has gone; waiting for the next one"


@pytest.mark.quiet
def test_a_fast_writer_is_read_in_real_time(fifo: Path) -> None:
    """A writer that is faster than real time waits: its audio is replayed from now on, without a gap or a step."""
    sent = noise(60.0).tobytes()
    written = 0

    def size() -> int:
        nonlocal written
        written += 4096
        return 4096

    thread = in_pieces(fifo, sent, size)
    began_ns, items = time.monotonic_ns(), list[Media | Timing]()
    live = pipe.media(Pipe(str(fifo), raw=RAW), SOUND)
    for item in live:
        if isinstance(item, Media | Timing):
            items.append(item)
        if isinstance(item, Chunk) and item.end_ns - began_ns > 3 * NS_PER_S:
            break
    # It was read as far as decides that it is fast, and one second ahead; the pipe holds 64 KiB more.
    most = (pipe.BACKLOG_NS + 6 * NS_PER_S) * 32_000 // NS_PER_S + 65_536
    assert written < most < len(sent)
    del live
    thread.join(20)
    chunks = [item for item in items if isinstance(item, Chunk)]
    assert len(chunks) == len(items)
    assert chunks[0].start_ns >= began_ns
    assert all(abs(b.start_ns - a.end_ns) < 1_000_000 for a, b in pairwise(chunks))


@pytest.mark.quiet
def test_a_live_writer_sets_the_pace(fifo: Path, samples: Path) -> None:
    """After the burst of what was in the pipe, each piece has the time at which it came; nothing is lost."""
    with writer(samples, fifo, 32_000, 3.0):
        late_ns, length_ns = list[int](), 0
        with suppress(MediaError):  # its writer has gone
            for item in pipe.media(Pipe(str(fifo), raw=RAW), SOUND):
                if isinstance(item, Chunk):
                    late_ns.append(time.monotonic_ns() - item.end_ns)
                    length_ns += item.end_ns - item.start_ns
    assert length_ns == pytest.approx(3 * NS_PER_S, rel=0.02)
    assert min(late_ns) > -10_000_000
    assert late_ns[-1] < 3 * NS_PER_S


def sent(lateness_s: Callable[[float], float], seconds: float) -> list[Media | Timing | None]:
    """What comes of audio in pieces of 40 ms that are late by this much, on a clock that moves with them."""
    now_ns = 70 * NS_PER_S

    def items() -> Iterator[Media]:
        nonlocal now_ns
        for number in range(round(seconds * 25)):
            taken_ns = number * 40_000_000
            now_ns = max(now_ns, 70 * NS_PER_S + taken_ns + round(lateness_s(taken_ns / NS_PER_S) * NS_PER_S))
            yield Chunk(taken_ns, np.zeros(640, np.float32), 16_000)

    return list(pipe.timed("a pipe", items(), lambda: now_ns, DecodeCounts()))


def test_a_slow_writer_has_gaps() -> None:
    """Each time that media are half a second later than before, there is a step, and no piece is lost."""
    items = sent(lambda taken_s: taken_s * 0.1, 30.0)  # it needs 1.1 s for each second
    chunks = [item for item in items if isinstance(item, Chunk)]
    steps = [item.steps for item in items if isinstance(item, Timing)]
    assert len(chunks) == 750
    assert steps[-1] == pytest.approx(30 * 0.1 / 0.5, abs=2)
    first = 70 * NS_PER_S
    late_ns = [first + n * 44_000_000 - chunk.start_ns for n, chunk in enumerate(chunks)]
    assert max(late_ns) < pipe.LATE_NS + 100_000_000


def test_a_writer_that_is_stopped_has_one_gap() -> None:
    """A writer that loses 2 s and then goes on has one step: what comes after it has the time of its arrival."""
    items = sent(lambda taken_s: 2.0 if taken_s >= 10 else 0.0, 20.0)
    chunks = [item for item in items if isinstance(item, Chunk)]
    assert [item.steps for item in items if isinstance(item, Timing)][-1] == 1
    assert len(chunks) == 500
    assert chunks[250].start_ns - chunks[249].end_ns == pytest.approx(2 * NS_PER_S, abs=50_000_000)


@pytest.mark.parametrize(
    ("data", "spec", "why"),
    [
        (b"no media, only text\n" * 500, {}, "cannot be"),
        (b"", {"raw": RAW}, "its writer has gone"),
        (b"\x01", {"raw": RAW}, "nothing in it can be decoded"),
    ],
)
def test_a_writer_without_media(fifo: Path, data: bytes, spec: dict[str, str], why: str) -> None:
    """Garbage, nothing and less than a sample are errors of one line."""
    thread = in_pieces(fifo, data, lambda: 4096) if data else Thread(target=lambda: fifo.open("wb").close())
    if not data:
        thread.start()
    items, error = ended(Pipe(str(fifo), **spec))  # type: ignore[arg-type]
    thread.join(20)
    assert not items
    assert error.startswith(f"{fifo}: ") and "\n" not in error
    assert why in error or "neither audio nor video" in error


def test_a_path_that_is_no_fifo(tmp_path: Path) -> None:
    """A missing FIFO, a file and a folder are refused with what to do."""
    file = tmp_path / "a.wav"
    file.write_bytes(b"RIFF")
    for path, why in ((tmp_path / "x", "mkfifo"), (file, 'kind = "file"'), (tmp_path, "is no FIFO")):
        with pytest.raises(MediaError, match=why):
            next(pipe.media(Pipe(str(path)), SOUND))


def test_a_fifo_outlives_its_writers(fifo: Path, samples: Path) -> None:
    """It waits without a loss while nobody writes; a writer that is killed is one loss, and the next one is read."""
    sources: dict[Key, Source] = {KEY: Pipe(str(fifo), raw=RAW)}
    with Supervisor(sources, SOUND) as running:

        def waits(_: object) -> bool:
            return running.state("door")[0].waiting_for == pipe.WRITER

        drive(running, waits)
        assert running.state("door")[0].state is RunState.STARTING
        assert running.state("door")[0].losses == {}
        for losses in (1, 2):
            with writer(samples, fifo, 32_000, 60.0) as process:
                drive(running, lambda seen: len(media(seen, "door")) > 10)
                assert running.state("door")[0].state is RunState.UP
                assert not running.state("door")[0].waiting_for
                process.kill()
                drive(running, waits)
            assert running.state("door")[0].losses == {"failed": losses}
            assert running.state("door")[0].detail == f"{fifo}: its writer has gone; waiting for the next one"


def test_a_silent_writer_is_a_loss(fifo: Path, samples: Path) -> None:
    """A writer that stays and sends nothing for read_timeout_s is reported, and the source restarts."""
    sources: dict[Key, Source] = {KEY: Pipe(str(fifo), raw=RAW, read_timeout_s=1.0)}
    with writer(samples, fifo, 32_000, 2.0, 60.0), Supervisor(sources, SOUND) as running:
        drive(running, lambda _: bool(running.state("door")[0].losses))
        assert running.state("door")[0].losses == {"failed": 1}
        assert "no data for 1 s; check the program" in running.state("door")[0].detail


def test_a_transport_stream_with_pictures(fifo: Path, clip: Callable[..., Path]) -> None:
    """A container brings audio and video; both have the times at which they came."""
    path = clip(
        "a.ts",
        picture=lambda t: np.full((60, 84, 3), 255 if t % 1 < 0.1 else 20, np.uint8),
        sound=lambda t: 0.5 * np.sin(2 * np.pi * 1000 * t) * (t % 1 < 0.1),
        rate_hz=48000,
        seconds=6.0,
    )
    began_ns = time.monotonic_ns()
    with writer(path, fifo, path.stat().st_size // 6, 6.0):
        items, _ = ended(Pipe(str(fifo)), BOTH)
    frames = [item for item in items if isinstance(item, Frame)]
    chunks = [item for item in items if isinstance(item, Chunk)]
    assert len(frames) > 20
    assert sum(len(chunk.samples) for chunk in chunks) / 16_000 > 4
    assert began_ns - NS_PER_S < frames[0].start_ns < chunks[-1].end_ns < time.monotonic_ns() + NS_PER_S


def test_standard_input_reaches_its_worker_and_ends(samples: Path) -> None:
    """A source with the path - reads what is piped into the program, and ends when that ends."""
    code = """
from perceiverd.core.media import Chunk, MediaFormat
from perceiverd.sources.process.restart import RunState
from perceiverd.sources.process.supervisor import Supervisor
from perceiverd.sources.specs import Pipe
got, state = 0, None
with Supervisor({("a", 0): Pipe("-", raw="s16le,16000,1")}, MediaFormat(16000, None)) as running:
    while state is not RunState.ENDED:
        got += sum(len(each.what.samples) for each in running.poll(100) if isinstance(each.what, Chunk))
        state = running.state("a")[0].state
    print(got, running.state("a")[0].source, dict(running.state("a")[0].losses))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], input=samples.read_bytes() * 2, capture_output=True, timeout=100, check=False
    )
    got, rest = done.stdout.decode().strip().split(" ", 1)
    assert 31_000 < int(got) <= 32_000
    assert rest == "standard input {}"


def test_waiting_comes_first(fifo: Path) -> None:
    """The first thing that a FIFO without a writer reports is what it waits for."""
    live = pipe.media(Pipe(str(fifo)), SOUND)
    assert [next(live), next(live)] == [Waiting(pipe.WRITER)] * 2
