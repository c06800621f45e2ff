"""From channels to the model's audio: chooses or mixes channels, filters, amplifies and resamples.

Knows nothing of files and devices: the caller says when each piece was captured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from perceiverd.core.media import NS_PER_S, Chunk
from perceiverd.sources.decode.audio import GAP_NS, Resampler, follow
from perceiverd.sources.decode.downmix import Downmixer
from perceiverd.sources.decode.highpass import HighPass
from perceiverd.sources.specs import AudioOptions

Samples = NDArray[np.float32]


class MonoResampler:
    """Turns pieces of audio with any channels and rate into mono chunks at one rate, without seams between them."""

    def __init__(self, rate_hz: int, options: AudioOptions | None = None) -> None:
        self._resampler, self._options = Resampler(rate_hz), options or AudioOptions()
        self._gain = np.float32(10 ** (self._options.gain_db / 20))
        self._format: tuple[tuple[str, ...], int] | None = None
        self._mixer: Downmixer | None = None
        self._highpass: HighPass | None = None
        self._rate_hz = rate_hz
        """Of the input."""
        self._next_ns: float | None = None
        """The expected capture time of the next input sample; None between two runs."""
        self._end_ns = 0.0
        """The end of the input so far."""

    def feed(
        self, samples: Samples, names: Sequence[str], rate_hz: int, start_ns: int | None, stamps: int = 1
    ) -> Iterator[Chunk]:
        """Accept samples (C, S), of which the first was captured at `start_ns`; None means right after the last one.

        `start_ns` is the mean of so many stamps.

        `names` has FFmpeg's name of each channel. If time jumps or the rate changes, the run ends, as in `Resampler`.
        A piece without the channel that the options name is left out.
        """
        if self._options.channel is not None:
            samples, names = samples[self._options.channel - 1 :][:1], ("",)
            if not len(samples):
                return
        at_ns = self._end_ns if start_ns is None else start_ns
        if self._next_ns is None or rate_hz != self._rate_hz or abs(at_ns - self._next_ns) > GAP_NS:
            yield from self.flush()
            self._next_ns = at_ns
        if self._format != (tuple(names), rate_hz):
            yield from self._drain()
            self._open(tuple(names), rate_hz)
        assert self._mixer is not None
        held_ns = self._mixer.held * NS_PER_S // rate_hz
        self._end_ns = at_ns + samples.shape[1] * NS_PER_S / rate_hz
        self._next_ns += (at_ns - self._next_ns) * follow(stamps) + self._end_ns - at_ns
        yield from self._pass_on(self._mixer.feed(np.ascontiguousarray(samples)), round(at_ns - held_ns), stamps)

    def flush(self) -> Iterator[Chunk]:
        """End the run: yield what the filters still hold back."""
        yield from self._drain()
        if self._highpass is not None:
            self._highpass.reset()
        self._next_ns = None
        yield from self._resampler.flush()

    def _open(self, names: tuple[str, ...], rate_hz: int) -> None:
        if self._highpass is None or rate_hz != self._rate_hz:
            cut_hz = self._options.highpass_hz
            self._highpass = None if cut_hz is None else HighPass(cut_hz, rate_hz)
        self._format, self._rate_hz = (names, rate_hz), rate_hz
        self._mixer = Downmixer(names, rate_hz)

    def _drain(self) -> Iterator[Chunk]:
        """Pass on what the mixer holds."""
        if self._mixer is not None:
            yield from self._pass_on(self._mixer.flush(), None)

    def _pass_on(self, mono: Samples, start_ns: int | None, stamps: int = 1) -> Iterator[Chunk]:
        if not len(mono):
            return
        if self._highpass is not None:
            mono = self._highpass.feed(mono)
        if self._gain != 1:
            mono = mono * self._gain
        yield from self._resampler.feed(mono, self._rate_hz, start_ns, stamps)
