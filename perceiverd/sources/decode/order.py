"""Keeps the media of each kind in the order of their times. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from perceiverd.core.media import NS_PER_S, Chunk, Media
from perceiverd.sources.decode.audio import GAP_NS
from perceiverd.sources.decode.decoders import DecodeCounts


def in_order(items: Iterable[Media], counts: DecodeCounts) -> Iterator[Media]:
    """The same items; audio that overlaps the audio before it is cut, and what came already is refused and counted."""
    audio_ns = frame_ns = -(1 << 62)
    for item in items:
        if isinstance(item, Chunk):
            kept = _after(item, audio_ns)
            if kept is None:
                counts.refused_items += 1
                continue
            counts.cut_ns += kept.start_ns - item.start_ns
            audio_ns = kept.end_ns
            yield kept
        elif item.start_ns <= frame_ns:
            counts.refused_items += 1
        else:
            frame_ns = item.start_ns
            yield item


def _after(chunk: Chunk, end_ns: int) -> Chunk | None:
    """The part of the chunk from `end_ns` on; a small overlap is jitter and stays."""
    if chunk.start_ns >= end_ns - GAP_NS:
        return chunk
    skip = -(-(end_ns - chunk.start_ns) * chunk.rate_hz // NS_PER_S)
    if skip >= len(chunk.samples):
        return None
    start_ns = chunk.start_ns + skip * NS_PER_S // chunk.rate_hz
    return replace(chunk, start_ns=start_ns, samples=chunk.samples[skip:])
