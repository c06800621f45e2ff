"""Reads the tracks of a file in the order of their media, however its container interleaves them.

The track that is behind is decoded next; the compressed packets of the others wait. Knows no sockets and no live media.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from itertools import islice

from perceiverd.core.errors import MediaError
from perceiverd.core.media import NS_PER_S, Chunk, Frame, Media
from perceiverd.sources.decode.decoders import Packet, StreamDecoder, VideoDecoder
from perceiverd.sources.decode.skipping import AHEAD

HELD_BYTES, HELD_PACKETS = 32 << 20, 16_384
"""At most this much waits for a track that is behind: about a minute of a film in high definition."""
NEVER_NS = -(1 << 62)
FAR_NS = NS_PER_S // 2
"""A frame that is further than this from the next one is shown again at each tick between."""
STANDS_NS = 10 * NS_PER_S
"""A frame of a film stands for at most this long after its time, unless its container gives it a longer duration.
Beyond that, frames are missing."""
STILL_NS = NS_PER_S
"""A repeated frame has its picture for people this often."""
SLOW_NS = NS_PER_S
"""If frames are further apart than this it is a slide show or a time lapse, not a film."""


class PacketQueues:
    """The packets of each track, in order; reads on until the wanted track has one, or too much is held."""

    def __init__(self, packets: Iterator[Packet], indices: list[int]) -> None:
        self._packets = packets
        self._queues: dict[int, deque[Packet]] = {index: deque() for index in indices}
        self._bytes = self._count = 0
        self.ended = False
        """Whether nothing more can be read."""
        self.fault: MediaError | None = None
        """Why, if it is not the end of the file."""

    def take(self, index: int) -> Packet | None:
        """The next packet of this track; None if too much of the others is held, or if there is none."""
        queue = self._queues[index]
        while not queue and not self.ended and self._bytes < HELD_BYTES and self._count < HELD_PACKETS:
            self._read()
        if not queue:
            return None
        packet = queue.popleft()
        self._bytes, self._count = self._bytes - packet.size, self._count - 1
        return packet

    def ahead(self, index: int, count: int) -> list[Packet]:
        """The next packets of this track, which stay: `count` of them, less if too much is held or nothing follows."""
        queue = self._queues[index]
        while len(queue) < count and not self.ended and self._bytes < HELD_BYTES and self._count < HELD_PACKETS:
            self._read()
        return list(islice(queue, count))

    def _read(self) -> None:
        try:
            packet = next(self._packets, None)
        except MediaError as error:  # what was read before it is still decoded
            packet, self.fault = None, error
        if packet is None:
            self.ended = True
            return
        self._queues[packet.stream.index].append(packet)
        self._bytes, self._count = self._bytes + packet.size, self._count + 1


class _Lane:
    """The media of one track, one at a time."""

    def __init__(self, index: int, decoder: StreamDecoder, queues: PacketQueues) -> None:
        self._index, self._decoder, self._queues = index, decoder, queues
        self._decoded: Iterator[Media] = iter(())
        self._is_flushed = False
        self.front_ns = NEVER_NS
        """How far it is."""
        self.is_done = False

    def step(self, others_ns: int) -> Media | None:
        """The next item; None if there is none now. `others_ns` is how far the other tracks are."""
        item = self._next()
        if item is not None:
            self.front_ns = item.end_ns if isinstance(item, Chunk) else item.start_ns
        elif self._is_flushed:
            self.is_done = True
        return item

    def _next(self) -> Media | None:
        while True:
            if (item := next(self._decoded, None)) is not None:
                return item
            if (packet := self._queues.take(self._index)) is not None:
                self._foresee(packet)
                self._decoder.reach(packet)
                if self._decoder.is_hopeless:
                    self._decoder.counts.ignored_packets += 1
                else:
                    self._decoded = self._decoder.decode(packet)
            elif self._queues.ended and not self._is_flushed:
                self._is_flushed = True
                self._decoded = self._decoder.flush()
            else:
                return None

    def _foresee(self, packet: Packet) -> None:
        """This packet is decoded next."""


class _PictureLane(_Lane):
    """The frames of one track. The frame that is shown at a tick is there at that tick."""

    def __init__(self, index: int, decoder: VideoDecoder, queues: PacketQueues) -> None:
        super().__init__(index, decoder, queues)
        self._pictures, self._tick_ns = decoder, round(NS_PER_S / decoder.fps)
        self._shown: Frame | None = None
        self._interval_ns: int | None = None
        """Between the last two frames."""
        self._coming: Frame | None = None
        self._still_ns = NEVER_NS
        self._stands_ns = self._lasts_ns = 0
        """How long the container shows the frame that is shown, and the last one that was decoded."""

    def step(self, others_ns: int) -> Media | None:
        """The next frame, or the one that is shown again."""
        if self._coming is None:
            item = self._next()
            assert item is None or isinstance(item, Frame)
            self._coming, self._lasts_ns = item, self._pictures.lasts_ns
        if self._coming is not None:
            return self._until_next(self._coming)
        again = self._again(others_ns)
        self.is_done = again is None and self._is_flushed and not self._stands_on
        return again

    def _foresee(self, packet: Packet) -> None:
        self._pictures.foresee(packet, self._queues.ahead(self._index, AHEAD))

    def _until_next(self, coming: Frame) -> Frame:
        """The next frame, or, if it is far, the one that is shown until then."""
        shown, repeat_ns = self._shown, self.front_ns + self._tick_ns
        if shown is not None:
            gap_ns = coming.start_ns - shown.start_ns
            stands_ns = gap_ns if self._is_slow else max(self._stands_ns, STANDS_NS)
            is_far = gap_ns > FAR_NS and repeat_ns < coming.start_ns - self._tick_ns // 2
            if is_far and repeat_ns <= shown.start_ns + stands_ns:
                return self._repeated(shown, repeat_ns)
            self._interval_ns = gap_ns
        self._shown, self._coming, self._stands_ns = coming, None, self._lasts_ns
        self.front_ns = coming.start_ns
        return coming

    @property
    def _is_slow(self) -> bool:
        return self._pictures.interval_ns > SLOW_NS or (self._interval_ns or 0) > SLOW_NS

    @property
    def _stands_on(self) -> bool:
        """Whether the frame is shown for as long as the other tracks continue: a slide or the only picture."""
        return self._shown is not None and (self._interval_ns is None or self._interval_ns > SLOW_NS)

    def _again(self, others_ns: int) -> Frame | None:
        """The frame that is shown, again, as far as it lasts and as the other tracks have come."""
        if self._shown is None or not self._stands_on:
            return None
        until_ns = others_ns
        if self._is_flushed and others_ns < self._shown.start_ns:
            until_ns = self._shown.start_ns + max(self._stands_ns, self._interval_ns or 0) - 1
        repeat_ns = self.front_ns + self._tick_ns
        return self._repeated(self._shown, repeat_ns) if repeat_ns <= until_ns else None

    def _repeated(self, shown: Frame, at_ns: int) -> Frame:
        self.front_ns = at_ns
        still = shown.still if at_ns >= self._still_ns + STILL_NS else None
        if still:
            self._still_ns = at_ns
        return Frame(at_ns, shown.pixels, still)


def merged(packets: Iterator[Packet], decoders: Mapping[int, StreamDecoder]) -> Iterator[Media]:
    """All media of these packets. Raises the MediaError that ended the packets, after the media before it."""
    queues = PacketQueues(packets, list(decoders))
    lanes = [
        _PictureLane(index, decoder, queues) if isinstance(decoder, VideoDecoder) else _Lane(index, decoder, queues)
        for index, decoder in decoders.items()
    ]
    ended_ns = NEVER_NS
    while lanes:
        lanes.sort(key=lambda lane: lane.front_ns)
        for lane in lanes:
            others_ns = max((other.front_ns for other in lanes if other is not lane), default=NEVER_NS)
            item = lane.step(max(others_ns, ended_ns))
            if item is not None or lane.is_done:
                break
        else:
            break  # only frames are left that are shown to the end
        if item is not None:
            yield item
        if lane.is_done:
            lanes.remove(lane)
            ended_ns = max(ended_ns, lane.front_ns)
    if queues.fault:
        raise queues.fault
