"""Cameras and sound cards in a guest with the drivers vivid and snd-aloop: formats, times, faults, and `devices`.

Needs root and those drivers, so pytest does not collect it by itself: run.sh names it, and `camera.sh` runs this module
alone. Each test prints what it measured.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import wave
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from perceiverd.core.clock import now_ns
from perceiverd.core.errors import MediaError
from perceiverd.core.media import NS_PER_S, Chunk, Frame, MediaFormat, VideoFormat
from perceiverd.sources.camera import Capture
from perceiverd.sources.devices import alsa, v4l2
from perceiverd.sources.process.arrivals import Arrival, StateChange
from perceiverd.sources.process.restart import RunState, Timeouts
from perceiverd.sources.process.supervisor import Supervisor
from perceiverd.sources.specs import Camera, Microphone, Source

VIDEO = VideoFormat(160, 160, 3.125)
WANTED = MediaFormat(16_000, VIDEO)
VIVID = Path("/sys/bus/platform/drivers/vivid")

pytestmark = [
    pytest.mark.skipif(not VIVID.exists(), reason="there is no test camera (vivid) in this guest"),
    pytest.mark.skipif(not shutil.which("v4l2-ctl"), reason="needs v4l-utils"),
    pytest.mark.skipif(not shutil.which("aplay"), reason="needs alsa-utils"),
    pytest.mark.timeout(300),
]
KEY = ("room", 0)
BACK_S = 10.0
"""From a device's return to its first data, without the time that a process needs to start here."""
LIMITS = Timeouts(open_s=60.0)
"""The guest has only a share of one core and starts processes slowly."""
FREE, PLAYED = "hw:CARD=Loopback,DEV=1", "hw:Loopback,0"
"""Audio that is played into the card's first device comes out of its second."""


def node() -> str:
    """The camera's node; its number may change each time it is plugged in."""
    end_s = time.monotonic() + 10
    while time.monotonic() < end_s:
        for path in v4l2.paths():
            with contextlib.suppress(MediaError):
                if v4l2.node(path).captures:
                    return path
        time.sleep(0.2)
    raise AssertionError("no camera")


def control(setting: str) -> None:
    subprocess.run(["v4l2-ctl", "-d", node(), "-c", setting], check=True)


def plug(what: str) -> None:
    (VIVID / what).write_text("vivid.0")


def drive(running: Supervisor, until: Callable[[list[Arrival]], bool], within_s: float) -> tuple[list[Arrival], float]:
    """Poll until `until` accepts what has arrived; returns it, and how many seconds that took."""
    arrivals: list[Arrival] = []
    began_s = time.monotonic()
    while not until(arrivals):
        assert time.monotonic() < began_s + within_s, ("not in time", running.state("room"))
        arrivals += running.poll(100)
    return arrivals, time.monotonic() - began_s


def media(arrivals: list[Arrival]) -> list[Frame | Chunk]:
    return [each.what for each in arrivals if isinstance(each.what, Frame | Chunk)]


def lost(arrivals: list[Arrival]) -> bool:
    return any(isinstance(each.what, StateChange) and each.what.state is RunState.BACKING_OFF for each in arrivals)


def times(took_s: float, detail: str, back_s: float, start_s: float) -> str:
    return f"reported after {took_s:.1f} s ({detail}); back {back_s:.1f} s after; a start takes {start_s:.1f} s here"


def last_detail(arrivals: list[Arrival]) -> str:
    return [each.what.detail for each in arrivals if isinstance(each.what, StateChange)][-1]


def test_every_size_and_rate() -> None:
    """The camera delivers each configured size at the negotiated rate."""
    results: list[str] = []
    for width, height, fps in ((320, 180, 30.0), (640, 360, 25.0), (640, 480, 15.0), (640, 480, 30.0)):
        capture = Capture(Camera(device=node(), width=width, height=height, fps=fps), VIDEO)
        taken = [capture.grab() for _ in range(round(2 * fps))]
        frame = capture.retrieve()
        capture.close()
        assert frame is not None and frame.shape == (height, width, 3), capture.mode
        real = NS_PER_S / float(np.median(np.diff(taken)))  # a loaded machine drops some frames
        results.append(f"{capture.mode}: {real:.2f}/s, jitter {np.diff(taken).std() / 1e6:.2f} ms")
        assert capture.times.stamped >= len(taken) - 1, "the kernel's stamps were not used"
        assert real == pytest.approx(capture.mode.fps, rel=0.1), results[-1]  # vivid counts in ticks of 4 ms
    print("; ".join(results))


def test_every_format() -> None:
    """Each readable format of the camera gives frames with the same colours."""
    means: dict[str, list[int]] = {}
    control("test_pattern=0")
    for name in dict.fromkeys(mode.format for mode in v4l2.modes(node())):
        if name in v4l2.READABLE and name != "GREY":
            capture = Capture(Camera(device=node(), width=640, height=360, format=name), VIDEO)
            for _ in range(3):
                capture.grab()
            frame = capture.retrieve()
            capture.close()
            assert frame is not None, name
            # The bars at the top: white, yellow, cyan, green, ... between the moving text and counters.
            means[name] = [int(each) for each in frame[200:300, 100:140].reshape(-1, 3).mean(0)]
    spread = np.ptp(np.array(list(means.values())), axis=0).max()
    assert spread < 25, means
    print(f"{', '.join(means)} agree within {spread} grey levels")


def age_ns(capture: Capture) -> int:
    taken_ns = capture.grab()
    return now_ns() - taken_ns


def test_times_of_capture() -> None:
    """Stamps at the start and at the end of a frame give times within one period of each other."""
    ages: dict[int, float] = {}
    for source in (0, 1):
        control(f"timestamp_source={source}")
        capture = Capture(Camera(device=node(), width=640, height=360, fps=25), VIDEO)
        # The smallest age counts: a loaded machine reads the others late.
        ages[source] = min(age_ns(capture) for _ in range(50)) / 1e6
        capture.close()
        assert capture.times.stamped >= 49
        assert 0 <= ages[source] < 45, ages
    print(f"a frame is {ages[0]:.1f} ms old if its end is stamped, {ages[1]:.1f} ms if its start is")


def test_a_camera_that_is_unplugged_and_returns() -> None:
    """Unbinding the driver is reported at once; frames come within 10 s after it is bound again."""
    control("timestamp_source=1")
    number = int(node()[10:])
    with Supervisor({KEY: Camera(device=number)}, WANTED, limits=LIMITS) as running:
        _, start_s = drive(running, lambda seen: len(media(seen)) > 10, 90)
        plug("unbind")
        arrivals, took_s = drive(running, lost, 20)
        detail = last_detail(arrivals)
        assert "is gone" in detail or "no such device" in detail, detail
        time.sleep(3)
        plug("bind")
        _, back_s = drive(running, lambda seen: len(media(seen)) > 3, 90)
        assert running.state("room")[0].state is RunState.UP
    assert took_s < 4 and back_s < BACK_S + 2 * start_s
    print(times(took_s, detail, back_s, start_s))


def test_a_camera_that_leaves_the_bus() -> None:
    """A camera that leaves the bus while its node stays is reported as lost."""
    with Supervisor({KEY: Camera(device=node())}, WANTED, limits=LIMITS) as running:
        drive(running, lambda seen: len(media(seen)) > 10, 90)
        control("disconnect=1")
        arrivals, took_s = drive(running, lost, 20)
    plug("unbind")
    plug("bind")
    assert took_s < 6
    print(f"reported after {took_s:.1f} s ({last_detail(arrivals)})")


def test_a_sensor_that_stalls() -> None:
    """If all buffers are dropped, the loss is reported; frames return when buffers do."""
    with Supervisor({KEY: Camera(device=node())}, WANTED, limits=LIMITS) as running:
        _, start_s = drive(running, lambda seen: len(media(seen)) > 10, 90)
        control("percentage_of_dropped_buffers=100")
        arrivals, took_s = drive(running, lost, 20)
        time.sleep(3)
        control("percentage_of_dropped_buffers=0")
        _, back_s = drive(running, lambda seen: len(media(seen)) > 3, 90)
    assert took_s < 6 and back_s < BACK_S + 2 * start_s
    print(times(took_s, last_detail(arrivals), back_s, start_s))


def test_dropped_buffers_lose_nothing_else() -> None:
    """If 30 % of buffers are dropped, the source stays up."""
    control("percentage_of_dropped_buffers=30")
    try:
        with Supervisor({KEY: Camera(device=node())}, WANTED, limits=LIMITS) as running:
            drive(running, lambda seen: len(media(seen)) > 3, 90)
            arrivals, _ = drive(running, lambda seen: len(media(seen)) > 60, 90)
            assert not lost(arrivals)
    finally:
        control("percentage_of_dropped_buffers=0")
    starts = [each.start_ns for each in media(arrivals)]
    print(f"longest pause {max(np.diff(starts)) / 1e6:.0f} ms")


def test_a_busy_camera_names_its_user() -> None:
    """The error names the program that uses the camera."""
    command = ["v4l2-ctl", "-d", node(), "--stream-mmap", "--stream-count=100000"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as holder:
        try:
            end_s = time.monotonic() + 30
            while not v4l2.busy(node()):
                assert time.monotonic() < end_s, "v4l2-ctl does not capture"
                time.sleep(2)  # `busy` requests a buffer for a moment
            with Supervisor({KEY: Camera(device=node())}, WANTED, limits=LIMITS) as running:
                arrivals, _ = drive(
                    running, lambda seen: any(isinstance(a.what, StateChange) and a.what.detail for a in seen), 60
                )
            detail = last_detail(arrivals)
            assert "is busy, v4l2-ctl" in detail, detail
            listed = command_line("devices")
            assert "busy     v4l2-ctl" in listed, listed
        finally:
            holder.kill()
    print(detail)


def test_a_user_without_rights() -> None:
    """If the user is not in the group video, the error says so."""
    code = (
        "import os, sys; from perceiverd.sources.devices import v4l2\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: v4l2.check(sys.argv[1])\nexcept Exception as error: print(error)"
    )
    text = subprocess.run([sys.executable, "-c", code, node()], capture_output=True, text=True, check=True).stdout
    assert "group video" in text, text
    print(text.strip())


def test_an_unknown_format() -> None:
    """If the camera lacks the configured format, the error lists its formats."""
    text = ""
    try:
        Capture(Camera(device=node(), format="MJPG"), VIDEO)
    except MediaError as error:
        text = str(error)
    assert "has no format MJPG; it has" in text, text
    print(text)


@contextlib.contextmanager
def playing(sound: np.ndarray) -> Iterator[None]:
    path = Path("/tmp/played.wav")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(48_000)
        file.writeframes(np.repeat(np.round(np.tile(sound, 90) * 32767).astype("<i2"), 2).tobytes())
    # If the machine is too busy, aplay ends with an error and is started again.
    command = f"while :; do aplay -q -D {PLAYED} --buffer-time=500000 {path} 2>/dev/null; done"
    with subprocess.Popen(["sh", "-c", command], process_group=0) as player:
        try:
            time.sleep(0.5)
            yield
        finally:
            os.killpg(player.pid, signal.SIGKILL)


TONE = 0.25 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000)


def test_a_card_by_its_stable_name() -> None:
    """A tone that is played into an ALSA card arrives with its pitch and level, on the card's own stamps."""
    with playing(TONE), Supervisor({KEY: Microphone(device=FREE)}, WANTED, limits=LIMITS) as running:
        drive(running, lambda seen: len(media(seen)) > 10, 90)
        arrivals, _ = drive(running, lambda seen: len(media(seen)) > 60, 30)
        timing = running.state("room")[0].timing
    chunks = [each for each in media(arrivals) if isinstance(each, Chunk)]
    samples = np.concatenate([each.samples for each in chunks])[: 2 * 16_000]
    pitch = np.abs(np.fft.rfft(samples * np.hanning(len(samples)))).argmax() * 16_000 / len(samples)
    level = float(np.sqrt(np.mean(samples**2)))
    seams = max(abs(b.start_ns - a.end_ns) for a, b in pairwise(chunks)) / 1e6
    assert abs(pitch - 440) < 2 and abs(level - 0.1768) < 0.01, (pitch, level)
    age = (now_ns() - chunks[-1].end_ns) / 1e6
    print(f"{pitch:.1f} Hz, rms {level:.4f}, worst seam {seams:.3f} ms, {timing}, last {age:.0f} ms old")


def test_a_card_that_is_unplugged_and_returns() -> None:
    """An unplugged card is reported as lost; it delivers within 10 s of its return."""
    with Supervisor({KEY: Microphone(device=FREE)}, WANTED, limits=LIMITS) as running:
        _, start_s = drive(running, lambda seen: len(media(seen)) > 10, 90)
        driver = Path("/sys/bus/platform/drivers/snd_aloop")
        (driver / "unbind").write_text("snd_aloop.0")
        arrivals, took_s = drive(running, lost, 30)
        time.sleep(3)
        (driver / "bind").write_text("snd_aloop.0")
        _, back_s = drive(running, lambda seen: len(media(seen)) > 2, 90)
    assert took_s < 6 and back_s < BACK_S + 2 * start_s, (took_s, back_s)
    print(times(took_s, last_detail(arrivals), back_s, start_s))


def test_a_busy_card_names_its_user() -> None:
    """The error names the program that uses the card."""
    node = alsa.node((0, 1))
    hold = f"files = [open('{node}', 'rb', 0) for _ in range(8)]; print(flush=True); input()"  # all its substreams
    command = [sys.executable, "-c", hold]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        holder.stdout.readline()
        with Supervisor({KEY: Microphone(device=FREE)}, WANTED, limits=LIMITS) as running:
            arrivals, _ = drive(running, lost, 90)
        holder.kill()
    assert "is busy, python" in last_detail(arrivals), last_detail(arrivals)
    print(last_detail(arrivals))


def test_camera_and_microphone_together() -> None:
    """Camera and microphone run together for 10 s and lose nothing."""
    sources: dict[tuple[str, int], Source] = {
        ("room", 0): Camera(device=node()),
        ("room", 1): Microphone(device=FREE),
    }
    with playing(TONE), Supervisor(sources, WANTED, limits=LIMITS) as running:
        drive(running, lambda seen: {type(each) for each in media(seen)} == {Frame, Chunk}, 90)
        arrivals, _ = drive(running, lambda seen: len(media(seen)) > 250, 90)
        assert not lost(arrivals)
        dropped = sum(each.dropped for each in running.state("room"))
    assert not dropped
    print(f"{len(media(arrivals))} items, none dropped")


def command_line(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "perceiverd", *words], capture_output=True, text=True, timeout=120)
    return f"{done.stdout}{done.stderr}(status {done.returncode})"


def test_the_commands() -> None:
    """`perceiverd devices` runs with real devices; the output is printed for people to read."""
    with playing(TONE):
        for words in (("devices",), ("devices", "--try", node()), ("devices", "--try", FREE)):
            print(f"$ perceiverd {' '.join(words)}\n{command_line(*words)}\n", flush=True)
    print("as above")
