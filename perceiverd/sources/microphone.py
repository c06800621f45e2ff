"""A microphone of this machine, through PortAudio.

PortAudio calls from a thread of its own, in which a block is copied into a queue and nothing else is done. A device
that is lost raises nothing there: it only stops calling, and stopping a stream may hang for ever once it is lost. So
this gives up when the last block is too old, and leaves the rest to the end of the process.
"""

from __future__ import annotations

import os
import queue
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceiverd.core.clock import now_ns
from perceiverd.core.errors import MediaError
from perceiverd.core.media import NS_PER_S, Chunk, MediaFormat, Timing
from perceiverd.sources.decode.audio import Resampler
from perceiverd.sources.devices import alsa
from perceiverd.sources.devices.clock_fit import ClockFit
from perceiverd.sources.devices.usage import told
from perceiverd.sources.specs import Microphone

LATENCY_S = 0.1
"""What the driver may hold: a virtual card of ALSA's needs 50 ms, and a busy machine is glad of more. PortAudio calls
four times as often."""
QUEUED = 100
"""Blocks that may wait, 2.5 s of them; what comes on top is left out, and is a hole in time."""
SILENT_S = 2.0
"""Without a block for so long the device is lost; the runner would wait for 3 s."""
FIRST_S = 6.0
SETTLED_NS, TIMING_NS = NS_PER_S, 5 * NS_PER_S
"""After the first second, and then every 5, is told what is known of the device's clock."""
SIGN_OF_LIFE_NS = NS_PER_S // 2
"""While sound comes whose time is still in doubt, say this often that all is well."""
BURST_NS = NS_PER_S // 2
"""A sound server begins with what it has gathered. Sound whose time only its coming tells waits until that is over."""
STAMP_NS = 2 * NS_PER_S
"""A stamp that lies further back was made by another clock."""
RATES = (48_000, 44_100, 32_000, 16_000, 96_000, 8_000)
"""Tried in this order where a device does not take the rate that it calls its own."""
UNAVAILABLE, INVALID_RATE = -9985, -9997
"""PortAudio's paDeviceUnavailable and paInvalidSampleRate."""
MISSING = (
    "microphones need PortAudio's library, which is not installed; Debian, Ubuntu: apt-get install libportaudio2 "
    "(Fedora: dnf install portaudio)"
)


@dataclass(frozen=True, slots=True)
class Device:
    """A microphone, as PortAudio tells of it."""

    index: int
    name: str
    channels: int
    rate_hz: int
    """Its own rate."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """What the callback took note of."""

    samples: NDArray[np.float32]
    """(S, channels)."""
    first: int
    """How many samples PortAudio had delivered before."""
    overflow: bool
    """Whether samples were lost before this block, nobody knows how many."""
    taken_ns: int
    """PortAudio's stamp: when its first sample was taken, on a clock that it doesn't tell."""
    monotonic_ns: int
    """CLOCK_MONOTONIC, when it came."""


def media(
    spec: Microphone, wanted: MediaFormat, opened: Callable[[Device, int], None] | None = None
) -> Iterator[Chunk | Timing | None]:
    """Yield sound at the model's rate, live-stamped, for ever. Raises MediaError when there is no more.

    `opened` hears which device it is, and its rate.
    """
    if wanted.audio_rate_hz is None:
        raise MediaError("microphone: the model only sees; take another model, or this source out")
    portaudio = library()
    device = find(spec.device, devices(portaudio), alsa.cards())
    ear = AudioInput(portaudio, device, spec)
    if opened:
        opened(device, ear.rate_hz)
    joiner = AudioTimeline(ear.rate_hz, wanted.audio_rate_hz, spec.channel)
    try:
        # Some wake up first, so the first block may take longer.
        yield from joiner.feed(ear.block(FIRST_S))
        said_ns = now_ns()
        timing_ns = said_ns + SETTLED_NS
        while True:
            for item in joiner.feed(ear.block(SILENT_S)):
                yield item
                said_ns = now_ns()
            if now_ns() >= timing_ns:
                timing_ns = now_ns() + TIMING_NS
                yield joiner.timing
            elif now_ns() >= said_ns + SIGN_OF_LIFE_NS:
                said_ns = now_ns()
                yield None  # sound comes, but its time is still in doubt
    except GeneratorExit:
        ear.close()  # only where whoever reads wants no more: after a loss it might never return
        raise


class AudioInput:
    """An open microphone, and the queue between PortAudio's thread and ours."""

    def __init__(self, portaudio: ModuleType, device: Device, spec: Microphone) -> None:
        """Raises MediaError, one line: what is wrong and what to do."""
        self.name = device.name
        place = alsa.place_of(device.name)
        self._node = alsa.node(place) if place else None
        self._blocks: queue.Queue[Block | None] = queue.Queue(QUEUED)
        self._delivered = 0
        self.rate_hz, self.channels = _settings(portaudio, device, spec)
        try:
            with hushed():
                self._stream = portaudio.InputStream(
                    device=device.index,
                    samplerate=self.rate_hz,
                    channels=self.channels,
                    dtype="float32",
                    blocksize=0,  # the driver's own; of any other one, PortAudio cuts the stamps wrong
                    latency=LATENCY_S,
                    callback=self._heard,
                    finished_callback=self._finished,
                )
                self._stream.start()
        except portaudio.PortAudioError as error:
            raise MediaError(f"microphone {device.name}: {_why(device, error)}") from None

    def close(self) -> None:
        self._stream.close()

    def block(self, wait_s: float) -> Block:
        """The next block. Raises MediaError when none comes."""
        try:
            block = self._blocks.get(timeout=wait_s)
        except queue.Empty:
            if self._node and not self._node.exists():
                raise MediaError(f"microphone {self.name}: is gone; plug it in again") from None
            raise MediaError(
                f"microphone {self.name}: no sound for {wait_s:g} s; look at its plug, or at the sound server"
            ) from None
        if block is None:
            raise MediaError(f"microphone {self.name}: is gone; plug it in again, or look at the sound server")
        return block

    def _heard(self, samples: NDArray[np.float32], frames: int, times: Any, status: Any) -> None:
        """Called by PortAudio, in its thread: copies, and returns."""
        block = Block(
            samples.copy(),
            self._delivered,
            bool(status.input_overflow),
            round(times.inputBufferAdcTime * NS_PER_S),
            time.monotonic_ns(),
        )
        self._delivered += frames  # also for one that finds no room: the next one's `first` tells of it
        try:
            self._blocks.put_nowait(block)
        except queue.Full:
            return

    def _finished(self) -> None:
        """Called by PortAudio when it will not call any more."""
        try:
            self._blocks.put_nowait(None)
        except queue.Full:
            return


class AudioTimeline:
    """Makes one time line of blocks: the device's samples are its clock, laid on ours. Pure."""

    def __init__(self, rate_hz: int, to_hz: int, channel: int | None) -> None:
        self._rate_hz, self._channel = rate_hz, channel
        self._line, self._resampler = ClockFit(), Resampler(to_hz)
        self._next = 0
        """The `first` that the next block should have."""
        self._lost_ns = 0
        """What overflows cost: the device's samples are short of its time by so much."""
        self._waiting: list[tuple[int, Block]] = []
        """Blocks whose time is in doubt, with the device's time of each."""
        self.stamped = False
        """Whether the device's own stamps tell when sound was taken, or its coming."""
        self.holes = 0
        """Blocks that found no room in the queue and overflows, each an interruption."""
        self.dropped_samples = 0
        """Those that found no room."""

    @property
    def timing(self) -> Timing:
        """What was found out; interruptions count as steps."""
        timing = self._line.timing
        return replace(timing, steps=timing.steps + self.holes, overflows=self.holes)

    def feed(self, block: Block) -> Iterator[Chunk | Timing]:
        """Take the next block; the chunks that can be made now, after an interruption with a Timing before them."""
        taken_ns, self.stamped = _taken(block, self._rate_hz)
        hole = block.first != self._next
        if hole:
            self.dropped_samples += block.first - self._next
        self._next = block.first + len(block.samples)
        device_ns = block.first * NS_PER_S // self._rate_hz + self._lost_ns
        if block.overflow and block.first:
            # So much of time has no samples. Taken out of the device's clock here, it is no step that takes finding.
            lost_ns = max(0, taken_ns - self._line.at(device_ns))
            self._lost_ns, device_ns, hole = self._lost_ns + lost_ns, device_ns + lost_ns, True
        if hole:
            self.holes += 1
            yield from self._told()
        stepped = self._line.note(device_ns, taken_ns)
        self._waiting.append((device_ns, block))
        if hole or stepped:
            yield from self._resampler.flush()
            yield self.timing
        bursting = not self.stamped and block.first * NS_PER_S < BURST_NS * self._rate_hz
        if not self._line.suspect and not bursting:
            yield from self._told()

    def _told(self) -> Iterator[Chunk]:
        for device_ns, block in self._waiting:
            yield from self._resampler.feed(self._mono(block.samples), self._rate_hz, self._line.at(device_ns))
        self._waiting.clear()

    def _mono(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._channel is not None:
            return np.ascontiguousarray(samples[:, self._channel - 1])
        return np.asarray(samples[:, :2].mean(axis=1), np.float32)


def _taken(block: Block, rate_hz: int) -> tuple[int, bool]:
    """When a block's first sample was taken, on CLOCK_MONOTONIC, and whether the device's stamp said so.

    From hardware PortAudio's stamps go by CLOCK_MONOTONIC and are good. Through ALSA's plugins (a sound server) they go
    by CLOCK_REALTIME, and were seen to be hundreds of milliseconds off, even in the future: there a block's coming
    tells more. No block comes before its last sample was taken, whatever its stamp says.
    """
    came_ns = block.monotonic_ns - len(block.samples) * NS_PER_S // rate_hz
    stamped = 0 <= block.monotonic_ns - block.taken_ns <= STAMP_NS
    return (min(block.taken_ns, came_ns), True) if stamped else (came_ns, False)


def library() -> ModuleType:
    """PortAudio, initialised. Raises MediaError where its library is missing."""
    os.environ.setdefault("JACK_NO_START_SERVER", "1")  # PortAudio asks JACK too, which would start a server
    try:
        with hushed():
            import sounddevice
    except OSError:
        raise MediaError(MISSING) from None
    except ModuleNotFoundError:
        raise MediaError("microphones need the package sounddevice; pip install sounddevice") from None
    module: ModuleType = sounddevice
    return module


def devices(portaudio: ModuleType) -> tuple[Device, ...]:
    """All that sound can be taken from, as it was when PortAudio was loaded; what is busy then may be missing."""
    return tuple(
        Device(index, each["name"], each["max_input_channels"], round(each["default_samplerate"]))
        for index, each in enumerate(portaudio.query_devices())
        if each["max_input_channels"] > 0
    )


def default(portaudio: ModuleType) -> int | None:
    """The index of the system's default microphone; None where there is none."""
    index = portaudio.default.device[0]
    return index if isinstance(index, int) and index >= 0 else None


def find(device: str | int | None, known: Sequence[Device], cards: dict[int, str]) -> Device:
    """The one that a configuration means. Raises MediaError: which there are, or what keeps it from being used."""
    there = "; there are " + ", ".join(f"{each.index}: {each.name}" for each in known) if known else ""
    more = "; `perceiverd devices` tells more"
    there += more
    if device is None:
        chosen = next((each for each in known if each.name == "default"), known[0] if known else None)
        if chosen is None:
            raise MediaError(f"microphone: there is none{_hint(None)}{there}")
        return chosen
    if isinstance(device, int) or device.isdecimal():
        if numbered := [each for each in known if each.index == int(device)]:
            return numbered[0]
        raise MediaError(f"microphone {device}: there is no such number{there}")
    if alsa.is_stable(device):
        place = alsa.place(device, cards)
        if place is None:
            ids = ", ".join(f"hw:CARD={name}" for name in cards.values()) or "none"
            raise MediaError(f"microphone {device}: is not plugged in; cards that are: {ids}{more}")
        if chosen := next((each for each in known if alsa.place_of(each.name) == place), None):
            return chosen
        raise MediaError(f"microphone {device}: {_hint(place) or 'gives no sound; `perceiverd devices` tells more'}")
    exact = [each for each in known if each.name == device]
    like = exact or [each for each in known if device.casefold() in each.name.casefold()]
    if len(like) == 1 or exact:
        return like[0]
    if like:
        names = ", ".join(each.name for each in like)
        raise MediaError(f"microphone {device!r}: could be any of {names}; write more of the name")
    raise MediaError(f"microphone {device!r}: there is none of this name{there}")


def _hint(place: alsa.Place | None) -> str:
    """Why hardware that the kernel knows is not PortAudio's to use; empty where nothing is known."""
    for each in [place] if place else alsa.capturing():
        node = alsa.node(each)
        if not node.exists():
            continue
        if not os.access(node, os.R_OK | os.W_OK):
            return (
                "" if place else f": {node}: "
            ) + "this user may not open it; add the user to the group audio (a service: SupplementaryGroups=audio)"
        who = told(node)
        server = next((name for name in ("pulse", "pipewire") if name in who), None)
        hint = f'hear it through that (device = "{server}"), or end that' if server else "end that first"
        return ("" if place else f": {node}: ") + f"is busy, {who} has it; {hint}"
    return ""


def _settings(portaudio: ModuleType, device: Device, spec: Microphone) -> tuple[int, int]:
    """A rate and a number of channels that the device takes. Raises MediaError."""
    if spec.channel and spec.channel > device.channels:
        many = "channel" if device.channels == 1 else "channels"
        raise MediaError(f"microphone {device.name}: has {device.channels} {many}, and no channel {spec.channel}")
    least = spec.channel or min(2, device.channels)
    counts = dict.fromkeys((least, device.channels))
    rates = (spec.rate_hz,) if spec.rate_hz else tuple(dict.fromkeys((device.rate_hz, *RATES)))
    fault: Exception | None = None
    for rate_hz in rates:
        for channels in counts:
            try:
                with hushed():
                    portaudio.check_input_settings(device.index, channels, "float32", samplerate=rate_hz)
            except portaudio.PortAudioError as error:
                fault = fault or error
                if _code(error) == UNAVAILABLE:  # asking again would only take time
                    raise MediaError(f"microphone {device.name}: {_why(device, error)}") from None
            else:
                return rate_hz, channels
    assert fault
    if spec.rate_hz:
        raise MediaError(
            f"microphone {device.name}: does not take {spec.rate_hz} samples a second; leave rate_hz out "
            f"(its own is {device.rate_hz})"
        )
    raise MediaError(f"microphone {device.name}: {_why(device, fault)}")


def _why(device: Device, error: Exception) -> str:
    """PortAudio's words for people."""
    if _code(error) == UNAVAILABLE:
        place = alsa.place_of(device.name)
        return (_hint(place) if place else "") or "cannot be opened now; is its sound server running?"
    words = re.sub(r"\s*\[PaErrorCode .*?\]", "", str(error.args[0] if error.args else error))
    return f"cannot be opened ({words}); look at its plug, or at the sound server"


def _code(error: Exception) -> int | None:
    return next((each for each in error.args if isinstance(each, int)), None)


@contextmanager
def hushed() -> Iterator[None]:
    """Keep ALSA and JACK from writing pages to standard error about what they tried; our own errors say what is wrong.

    The descriptor itself is turned away, for they know of no other: in a process that does nothing else meanwhile.
    """
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
