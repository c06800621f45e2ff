"""Examines devices in a process of its own: `python -m perceiverd.sources.process.probe`, with a question on its input.

Answers are lines of JSON on standard output. A driver may hang in any of this; then the caller kills the process.
`perceiverd devices --json` prints answers as they are, so their tags and fields stay the same.
"""

from __future__ import annotations

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
from perceiverd.core.signals import die_with_parent
from perceiverd.sources.specs import Camera, Microphone

FLOOR_DBFS = -120.0
"""The lowest level that is reported: exact silence has no level."""


class ExamineCamera(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """What is this V4L2 node? The answer is a FoundCamera."""

    path: str


class ListMicrophones(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """Which microphones exist? The answer is a FoundMicrophone for each."""


class TryDevice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """What does this device deliver? The answer is an OpenedDevice, then a VideoQuality or an AudioQuality."""

    source: Camera | Microphone
    wanted: MediaFormat
    seconds: float
    """Counted from the first data."""


class FoundCamera(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """A camera, or a node that delivers no video."""

    path: str
    name: str
    stable: str | None
    """The name that stays the same after each boot."""
    captures: bool
    """Whether it delivers video."""
    busy: bool
    holders: tuple[str, ...]
    """The programs that have it open, as far as we can see them."""
    formats: dict[str, tuple[tuple[int, int, float], ...]]
    """Width, height and the highest rate in frames a second, by format."""


class FoundMicrophone(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """A microphone in PortAudio's list."""

    index: int
    name: str
    stable: str | None
    rate_hz: int
    channels: int
    default: bool


class OpenedDevice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="Opened"):
    """The device is open."""

    name: str
    how: str
    """The format that it delivers."""


class VideoQuality(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="Saw"):
    """What a camera delivered."""

    first_ms: float
    """From the question to the first frame."""
    pictures: int
    """Frames."""
    width: int
    height: int
    fps: float
    jitter_ms: float
    """Standard deviation of the time between two frames."""
    late_ms: float
    """How long after its capture a frame came."""
    stamped: bool
    """True if the kernel's stamps give the capture times, False if the arrival does."""
    brightness: float
    """0 is black, 1 white."""


class AudioQuality(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="Heard"):
    """What a microphone delivered."""

    first_ms: float
    """From the question to the first block."""
    rate_hz: float
    """Samples a second by our clock."""
    jitter_ms: float
    """Mean lateness of blocks."""
    stamped: bool
    """True if the device's stamps give the capture times, False if the arrival does."""
    interruptions: int
    """Overflows and similar faults in which audio was lost."""
    rms_dbfs: float
    peak_dbfs: float
    """0 is full scale; -120 is exact silence."""


class Failed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """Why there is no answer, or no further one: one line."""

    message: str


Question = ExamineCamera | ListMicrophones | TryDevice
Answer = FoundCamera | FoundMicrophone | OpenedDevice | VideoQuality | AudioQuality | Failed


def main() -> int:
    """Answer one question."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller decides when to stop
    die_with_parent()
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
        case ExamineCamera(path=path):
            yield _camera(path)
        case ListMicrophones():
            yield from _microphones()
        case TryDevice(source=Camera() as camera, wanted=wanted, seconds=seconds):
            yield from _try_camera(camera, wanted, round(seconds * NS_PER_S), began_ns)
        case TryDevice(source=Microphone() as microphone, wanted=wanted, seconds=seconds):
            yield from _try_microphone(microphone, wanted, round(seconds * NS_PER_S), began_ns)


def _camera(path: str) -> FoundCamera:
    from perceiverd.sources.devices import v4l2
    from perceiverd.sources.devices.usage import users_of

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
        holders=tuple(map(str, users_of(path))),
        formats={name: tuple((*size, fps) for size, fps in sizes.items()) for name, sizes in formats.items()},
    )


def _microphones() -> Iterator[FoundMicrophone]:
    from perceiverd.sources.devices import alsa, portaudio

    library, cards = portaudio.load(), alsa.cards()
    default = portaudio.default_index(library)
    for each in portaudio.input_devices(library):
        stable = alsa.stable(each.name, cards)
        yield FoundMicrophone(each.index, each.name, stable, each.rate_hz, each.channels, each.index == default)


def _try_camera(spec: Camera, wanted: MediaFormat, length_ns: int, began_ns: int) -> Iterator[Answer]:
    from perceiverd.sources.camera import Capture

    assert wanted.video
    capture = Capture(spec, wanted.video)
    yield OpenedDevice(capture.path, str(capture.mode))
    taken_ns = [capture.grab()]
    first_ns = now_ns()
    shape, brightness = (0, 0), list[float]()
    while now_ns() < first_ns + length_ns:
        pixels = capture.retrieve()
        if pixels is not None:
            shape = pixels.shape[:2]
            brightness.append(float(pixels.mean()) / 255)
        taken_ns.append(capture.grab())
    between_ns = np.diff(taken_ns)
    yield VideoQuality(
        first_ms=(first_ns - began_ns) / 1e6,
        pictures=len(taken_ns),
        width=shape[1],
        height=shape[0],
        fps=NS_PER_S / float(between_ns.mean()),
        jitter_ms=float(between_ns.std()) / 1e6,
        late_ms=capture.times.late_ns / 1e6,
        stamped=capture.times.stamped > capture.times.unstamped,
        brightness=float(np.mean(brightness)) if brightness else 0.0,
    )
    capture.close()


def _try_microphone(spec: Microphone, wanted: MediaFormat, length_ns: int, began_ns: int) -> Iterator[Answer]:
    from perceiverd.sources import microphone
    from perceiverd.sources.devices import alsa, portaudio

    assert wanted.audio_rate_hz
    library = portaudio.load()
    device = portaudio.find(spec.device, portaudio.input_devices(library), alsa.cards())
    audio = microphone.AudioInput(library, device, spec)
    yield OpenedDevice(device.name, f"{audio.rate_hz} Hz, {audio.channels} of {device.channels} channels")
    timeline = microphone.AudioTimeline(audio.rate_hz, wanted.audio_rate_hz, spec)
    pieces, ends, block = list[Chunk](), list[tuple[int, int]](), audio.block(microphone.FIRST_BLOCK_S)
    first_ns = now_ns()
    while now_ns() < first_ns + length_ns:
        pieces += (item for item in timeline.feed(block) if isinstance(item, Chunk))
        ends.append((block.first + len(block.samples), block.monotonic_ns))
        block = audio.block(microphone.SILENT_S)
    samples = np.concatenate([np.zeros(1, np.float32), *(piece.samples for piece in pieces)])
    yield AudioQuality(
        first_ms=(first_ns - began_ns) / 1e6,
        rate_hz=measured_rate_hz(ends, audio.rate_hz),
        jitter_ms=timeline.timing.jitter_ms,
        stamped=timeline.stamped,
        interruptions=timeline.timing.steps,
        rms_dbfs=dbfs(float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))),
        peak_dbfs=dbfs(float(np.abs(samples).max())),
    )


def measured_rate_hz(ends: Sequence[tuple[int, int]], rate_hz: int) -> float:
    """The rate at which samples come by our clock, from pairs of (number of samples so far, time of arrival).

    Uses the pairs that are least late. Ignores the first half second, which the device had buffered while it was
    opened. Returns the nominal rate if too few pairs remain.
    """
    late = [(came_ns - count * NS_PER_S / rate_hz, came_ns) for count, came_ns in ends if count > rate_hz / 2]
    if len(late) < 8:
        return float(rate_hz)
    third = len(late) // 3
    (first_late_ns, first_ns), (last_late_ns, last_ns) = min(late[:third]), min(late[-third:])
    return rate_hz / (1 + (last_late_ns - first_late_ns) / (last_ns - first_ns - last_late_ns + first_late_ns))


def dbfs(amplitude: float) -> float:
    """An amplitude (1 is full scale) in decibels, at least FLOOR_DBFS."""
    return max(FLOOR_DBFS, 20 * math.log10(amplitude)) if amplitude > 0 else FLOOR_DBFS


def _print(answer: Answer) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    status = main()
    # Closing a device may take for ever, and so may the exit handlers of PortAudio.
    os._exit(status)
