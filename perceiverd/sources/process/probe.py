"""Looking at devices in a process of its own: `python -m perceiverd.sources.trial`, with a question on standard input.

Answers are lines of JSON on standard output. A driver may hang in any of this; whoever asks kills it then.
"""

from __future__ import annotations

import ctypes
import math
import os
import signal
import sys
from collections.abc import Iterator, Sequence

import msgspec
import numpy as np

from perceiverd.core.clock import now_ns
from perceiverd.core.errors import MediaError
from perceiverd.core.media import NS_PER_S, Chunk, MediaFormat
from perceiverd.sources.specs import Camera, Microphone

PR_SET_PDEATHSIG = 1  # from linux/prctl.h
FLOOR_DBFS = -120.0
"""Nothing is told to be quieter than this: exact silence has no level."""


class LookAt(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """What is this node of V4L2? Answered by a FoundCamera."""

    path: str


class ListMicrophones(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """Which microphones are there? Answered by a FoundMicrophone each."""


class Try(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """What comes of this device? Answered by Opened and a Saw or a Heard."""

    source: Camera | Microphone
    wanted: MediaFormat
    seconds: float
    """From the first data on."""


class FoundCamera(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """A camera, or a node that gives no pictures."""

    path: str
    name: str
    stable: str | None
    """The name that stays the same after each boot."""
    captures: bool
    busy: bool
    holders: tuple[str, ...]
    """The programs that have it open, where that can be seen."""
    formats: dict[str, tuple[tuple[int, int, float], ...]]
    """Width, height and the highest rate, by format."""


class FoundMicrophone(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """A microphone, as PortAudio lists it."""

    index: int
    name: str
    stable: str | None
    rate_hz: int
    channels: int
    default: bool


class Opened(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """The device is open, and delivers in this way."""

    name: str
    how: str


class Saw(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """What came of a camera."""

    first_ms: float
    """From the question to the first picture."""
    pictures: int
    width: int
    height: int
    fps: float
    jitter_ms: float
    """How much the time from one to the next varies (standard deviation)."""
    late_ms: float
    """How long after it was taken a picture came."""
    stamped: bool
    """Whether the kernel's stamps tell when they were taken; otherwise it is when they came."""
    brightness: float
    """0 is black, 1 white."""


class Heard(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """What came of a microphone."""

    first_ms: float
    rate_hz: float
    """Samples a second by our clock."""
    jitter_ms: float
    """How late blocks come on average."""
    stamped: bool
    """Whether the device's stamps tell when they were taken; otherwise it is when they came."""
    interruptions: int
    """Overflows and the like, at which sound was lost."""
    rms_dbfs: float
    peak_dbfs: float
    """0 is full scale; -120 is exact silence."""


class Failed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """Why there is no answer, or no more of it: one line."""

    message: str


Question = LookAt | ListMicrophones | Try
Answer = FoundCamera | FoundMicrophone | Opened | Saw | Heard | Failed


def main() -> int:
    """Answer one question."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever asked decides
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    began_ns = now_ns()
    question = msgspec.json.decode(sys.stdin.buffer.readline(), type=Question)
    try:
        for answer in answers(question, began_ns):
            _print(answer)
    except MediaError as error:
        _print(Failed(str(error)))
        return 1
    return 0


def answers(question: Question, began_ns: int) -> Iterator[Answer]:
    """The answers, as they are found. Raises MediaError."""
    match question:
        case LookAt(path=path):
            yield _camera(path)
        case ListMicrophones():
            yield from _microphones()
        case Try(source=Camera() as camera, wanted=wanted, seconds=seconds):
            yield from _seen(camera, wanted, round(seconds * NS_PER_S), began_ns)
        case Try(source=Microphone() as microphone, wanted=wanted, seconds=seconds):
            yield from _heard(microphone, wanted, round(seconds * NS_PER_S), began_ns)


def _camera(path: str) -> FoundCamera:
    from perceiverd.sources.devices import v4l2
    from perceiverd.sources.devices.usage import holders

    node = v4l2.node(path)
    formats: dict[str, dict[tuple[int, int], float]] = {}
    for mode in v4l2.modes(path) if node.captures else ():
        sizes = formats.setdefault(mode.format, {})
        size = mode.width, mode.height
        sizes[size] = max(sizes.get(size, 0.0), mode.fps)
    return FoundCamera(
        path=path,
        name=node.name,
        stable=v4l2.stable(path),
        captures=node.captures,
        busy=node.captures and v4l2.busy(path),
        holders=tuple(map(str, holders(path))),
        formats={name: tuple((*size, fps) for size, fps in sizes.items()) for name, sizes in formats.items()},
    )


def _microphones() -> Iterator[FoundMicrophone]:
    from perceiverd.sources import microphone
    from perceiverd.sources.devices import alsa

    portaudio, cards = microphone.library(), alsa.cards()
    default = microphone.default(portaudio)
    for each in microphone.devices(portaudio):
        stable = alsa.stable(each.name, cards)
        yield FoundMicrophone(each.index, each.name, stable, each.rate_hz, each.channels, each.index == default)


def _seen(spec: Camera, wanted: MediaFormat, length_ns: int, began_ns: int) -> Iterator[Answer]:
    from perceiverd.sources.camera import Capture

    assert wanted.video
    capture = Capture(spec, wanted.video)
    yield Opened(capture.path, str(capture.mode))
    taken_ns = [capture.grab()]
    first_ns = now_ns()
    shape, brightness = (0, 0), list[float]()
    while now_ns() < first_ns + length_ns:
        picture = capture.picture()
        if picture is not None:
            shape = picture.shape[:2]
            brightness.append(float(picture.mean()) / 255)
        taken_ns.append(capture.grab())
    between_ns = np.diff(taken_ns)
    yield Saw(
        first_ms=(first_ns - began_ns) / 1e6,
        pictures=len(taken_ns),
        width=shape[1],
        height=shape[0],
        fps=NS_PER_S / float(between_ns.mean()),
        jitter_ms=float(between_ns.std()) / 1e6,
        late_ms=capture.times.late_ns / 1e6,
        stamped=capture.times.believed > capture.times.arrived,
        brightness=float(np.mean(brightness)) if brightness else 0.0,
    )
    capture.close()


def _heard(spec: Microphone, wanted: MediaFormat, length_ns: int, began_ns: int) -> Iterator[Answer]:
    from perceiverd.sources import microphone
    from perceiverd.sources.devices import alsa

    assert wanted.audio_rate_hz
    portaudio = microphone.library()
    device = microphone.find(spec.device, microphone.devices(portaudio), alsa.cards())
    ear = microphone.AudioInput(portaudio, device, spec)
    yield Opened(device.name, f"{ear.rate_hz} Hz, {ear.channels} of {device.channels} channels")
    joiner = microphone.AudioTimeline(ear.rate_hz, wanted.audio_rate_hz, spec.channel)
    pieces, ends, block = list[Chunk](), list[tuple[int, int]](), ear.block(microphone.FIRST_S)
    first_ns = now_ns()
    while now_ns() < first_ns + length_ns:
        pieces += (item for item in joiner.feed(block) if isinstance(item, Chunk))
        ends.append((block.first + len(block.samples), block.monotonic_ns))
        block = ear.block(microphone.SILENT_S)
    samples = np.concatenate([np.zeros(1, np.float32), *(piece.samples for piece in pieces)])
    yield Heard(
        first_ms=(first_ns - began_ns) / 1e6,
        rate_hz=counted_hz(ends, ear.rate_hz),
        jitter_ms=joiner.timing.jitter_ms,
        stamped=joiner.stamped,
        interruptions=joiner.timing.steps,
        rms_dbfs=dbfs(float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))),
        peak_dbfs=dbfs(float(np.abs(samples).max())),
    )


def counted_hz(ends: Sequence[tuple[int, int]], rate_hz: int) -> float:
    """The rate at which samples come by our clock: of (how many had come, when), the ones that were least late count.

    What came in the first half second was gathered while the device was opened. The nominal rate where there is less.
    """
    late = [(came_ns - count * NS_PER_S / rate_hz, came_ns) for count, came_ns in ends if count > rate_hz / 2]
    if len(late) < 8:
        return float(rate_hz)
    third = len(late) // 3
    (first_late_ns, first_ns), (last_late_ns, last_ns) = min(late[:third]), min(late[-third:])
    return rate_hz / (1 + (last_late_ns - first_late_ns) / (last_ns - first_ns - last_late_ns + first_late_ns))


def dbfs(amplitude: float) -> float:
    """An amplitude, of which 1 is full scale, in decibels."""
    return max(FLOOR_DBFS, 20 * math.log10(amplitude)) if amplitude > 0 else FLOOR_DBFS


def _print(answer: Answer) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    status = main()
    # Closing a device may take for ever, and so may the exit handlers of PortAudio.
    os._exit(status)
