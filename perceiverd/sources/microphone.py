"""A microphone of this machine, through PortAudio.

PortAudio calls us on a thread of its own; there we only copy a block into a queue. When a device is lost, that thread
raises nothing: the calls just stop. Stopping the stream of a lost device may hang for ever. So we give up when no block
has come for a while, and leave the rest to the end of the process.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceiverd.core.clock import now_ns
from perceiverd.core.errors import MediaError
from perceiverd.core.logs import log_event
from perceiverd.core.media import NS_PER_S, Chunk, MediaFormat, Timing
from perceiverd.sources.decode.mono import MonoResampler
from perceiverd.sources.devices import alsa, portaudio
from perceiverd.sources.devices.clock_fit import ClockFit
from perceiverd.sources.devices.portaudio import InputDevice
from perceiverd.sources.specs import AudioOptions, Microphone

logger = logging.getLogger("perceiverd.sources")

LATENCY_S = 0.1
"""What the driver may buffer. A virtual card of ALSA needs 50 ms, and a busy machine more. PortAudio calls us four
times as often."""
QUEUED_BLOCKS = 100
"""Blocks that may wait, 2.5 s of audio; further ones are dropped and leave a gap in time."""
FIRST_BLOCK_S = 6.0
"""How long the first block may take: some devices must wake up."""
SILENT_S = 2.0
"""Without a block for this long the device is lost; the supervisor would wait for 3 s."""
SETTLED_NS, TIMING_NS = NS_PER_S, 5 * NS_PER_S
"""We report what we know of the device's clock after the first second, then every 5 s."""
SIGN_OF_LIFE_NS = NS_PER_S // 2
"""How often we send a sign of life while audio comes but its time is still in doubt."""
BURST_NS = NS_PER_S // 2
"""A sound server begins with the audio that it has buffered. If only arrival tells the time of audio, we hold the audio
back until this burst is over."""
STEREO = ("FL", "FR")
"""PortAudio does not name the channels. The first two are left and right."""
STAMP_NS = 2 * NS_PER_S
"""A time stamp further in the past was made by another clock."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """What PortAudio passes to the callback."""

    samples: NDArray[np.float32]
    """(S, channels)."""
    first: int
    """How many samples PortAudio had delivered before."""
    overflow: bool
    """Whether samples were lost before this block; PortAudio does not know how many."""
    taken_ns: int
    """PortAudio's time stamp of the first sample, on a clock that it does not name."""
    monotonic_ns: int
    """CLOCK_MONOTONIC at the call."""


def media(
    spec: Microphone, wanted: MediaFormat, opened: Callable[[InputDevice, int], None] | None = None
) -> Iterator[Chunk | Timing | None]:
    """Yield audio at the model's rate, live-stamped, for ever. Raises MediaError when the device is lost.

    Calls `opened` with the device and its rate in Hz.
    """
    if wanted.audio_rate_hz is None:
        raise MediaError("microphone: the model uses no audio; take another model, or remove this source")
    library = portaudio.load()
    device = portaudio.find(spec.device, portaudio.input_devices(library), alsa.cards())
    audio = AudioInput(library, device, spec)
    if opened:
        opened(device, audio.rate_hz)
    log_event(
        logger,
        logging.INFO,
        "track-chosen",
        source=device.name,
        channels=audio.channels,
        mix=_mix(spec, audio.channels),
    )
    timeline = AudioTimeline(audio.rate_hz, wanted.audio_rate_hz, spec)
    try:
        yield from timeline.feed(audio.block(FIRST_BLOCK_S))
        sent_ns = now_ns()
        timing_ns = sent_ns + SETTLED_NS
        while True:
            for item in timeline.feed(audio.block(SILENT_S)):
                yield item
                sent_ns = now_ns()
            if now_ns() >= timing_ns:
                timing_ns = now_ns() + TIMING_NS
                yield timeline.timing
            elif now_ns() >= sent_ns + SIGN_OF_LIFE_NS:
                sent_ns = now_ns()
                yield None  # audio comes, but its time is still in doubt
    except GeneratorExit:
        audio.close()  # only if the reader wants no more: after a loss this might never return
        raise


def _mix(spec: Microphone, channels: int) -> str:
    """How channels become one, for the log."""
    if spec.channel is not None:
        return f"channel {spec.channel}"
    return "mono" if channels == 1 else "first two channels"


class AudioInput:
    """An open microphone, and the queue between PortAudio's thread and ours."""

    def __init__(self, library: ModuleType, device: InputDevice, spec: Microphone) -> None:
        """Raises MediaError: one line with what is wrong and what to do."""
        self.name = device.name
        place = alsa.place_of(device.name)
        self._node = alsa.node(place) if place else None
        self._blocks: queue.Queue[Block | None] = queue.Queue(QUEUED_BLOCKS)
        self._delivered = 0
        self.rate_hz, self.channels = portaudio.settings(library, device, spec)
        try:
            with portaudio.silenced():
                self._stream = library.InputStream(
                    device=device.index,
                    samplerate=self.rate_hz,
                    channels=self.channels,
                    dtype="float32",
                    blocksize=0,  # the driver's own size: with any other, PortAudio computes wrong time stamps
                    latency=LATENCY_S,
                    callback=self._callback,
                    finished_callback=self._finished,
                )
                self._stream.start()
        except library.PortAudioError as error:
            raise MediaError(f"microphone {device.name}: {portaudio.why(device, error)}") from None

    def close(self) -> None:
        self._stream.close()

    def block(self, wait_s: float) -> Block:
        """The next block. Raises MediaError if none comes within `wait_s`."""
        try:
            block = self._blocks.get(timeout=wait_s)
        except queue.Empty:
            if self._node and not self._node.exists():
                raise MediaError(f"microphone {self.name}: is gone; plug it in again") from None
            raise MediaError(
                f"microphone {self.name}: no audio for {wait_s:g} s; check its plug, or the sound server"
            ) from None
        if block is None:
            raise MediaError(f"microphone {self.name}: is gone; plug it in again, or check the sound server")
        return block

    def _callback(self, samples: NDArray[np.float32], frames: int, times: Any, status: Any) -> None:
        """PortAudio calls this on its own thread: copy and return."""
        block = Block(
            samples.copy(),
            self._delivered,
            bool(status.input_overflow),
            round(times.inputBufferAdcTime * NS_PER_S),
            time.monotonic_ns(),
        )
        self._delivered += frames  # also for a block that finds no room: the `first` of the next one shows the gap
        try:
            self._blocks.put_nowait(block)
        except queue.Full:
            return

    def _finished(self) -> None:
        """PortAudio calls this when it will not call `_callback` any more."""
        try:
            self._blocks.put_nowait(None)
        except queue.Full:
            return


class AudioTimeline:
    """Turns blocks into chunks on one time line: the device's samples are its clock, fitted to ours. Pure."""

    def __init__(self, rate_hz: int, to_hz: int, options: AudioOptions | None = None) -> None:
        self._rate_hz = rate_hz
        self._all_channels = options is not None and options.channel is not None
        self._clock, self._resampler = ClockFit(), MonoResampler(to_hz, options)
        self._next = 0
        """The `first` that the next block should have."""
        self._lost_ns = 0
        """What overflows have cost: the device's samples are behind its time by this much."""
        self._waiting: list[tuple[int, Block]] = []
        """Blocks whose time is in doubt, with the device's time of each."""
        self.stamped = False
        """True if the device's own stamps give the time of audio, False if its arrival does."""
        self.gaps = 0
        """Runs of blocks that found no room in the queue, and overflows; each is an interruption."""
        self.dropped_samples = 0
        """Samples that found no room in the queue."""

    @property
    def timing(self) -> Timing:
        """What we know of the device's clock; interruptions count as steps."""
        timing = self._clock.timing
        return replace(timing, steps=timing.steps + self.gaps, overflows=self.gaps)

    def feed(self, block: Block) -> Iterator[Chunk | Timing]:
        """Accept the next block; yields the chunks that can be made now, after an interruption first a Timing."""
        taken_ns, self.stamped = _taken(block, self._rate_hz)
        gap = block.first != self._next
        if gap:
            self.dropped_samples += block.first - self._next
        self._next = block.first + len(block.samples)
        device_ns = block.first * NS_PER_S // self._rate_hz + self._lost_ns
        if block.overflow and block.first:
            # This much time has no samples. We add it to the device's clock here, so that the fit sees no step.
            lost_ns = max(0, taken_ns - self._clock.at(device_ns))
            self._lost_ns, device_ns, gap = self._lost_ns + lost_ns, device_ns + lost_ns, True
        if gap:
            self.gaps += 1
            yield from self._release()
        stepped = self._clock.add(device_ns, taken_ns)
        self._waiting.append((device_ns, block))
        if gap or stepped:
            yield from self._resampler.flush()
            yield self.timing
        in_burst = not self.stamped and block.first * NS_PER_S < BURST_NS * self._rate_hz
        if not self._clock.suspect and not in_burst:
            yield from self._release()

    def _release(self) -> Iterator[Chunk]:
        """Resample the blocks that wait."""
        for device_ns, block in self._waiting:
            samples = block.samples if self._all_channels else block.samples[:, : len(STEREO)]
            names = STEREO[: samples.shape[1]]
            yield from self._resampler.feed(samples.T, names, self._rate_hz, self._clock.at(device_ns))
        self._waiting.clear()


def _taken(block: Block, rate_hz: int) -> tuple[int, bool]:
    """The capture time of a block's first sample on CLOCK_MONOTONIC, and whether the device's stamp gave it.

    For hardware, PortAudio's stamps are on CLOCK_MONOTONIC and good. Through ALSA's plugins (a sound server) they are
    on CLOCK_REALTIME and were measured hundreds of milliseconds off, even in the future: there the arrival of a block
    is better. No block arrives before its last sample was taken, whatever its stamp says.
    """
    came_ns = block.monotonic_ns - len(block.samples) * NS_PER_S // rate_hz
    stamped = 0 <= block.monotonic_ns - block.taken_ns <= STAMP_NS
    return (min(block.taken_ns, came_ns), True) if stamped else (came_ns, False)
