"""The synthetic source: flash and beep, and each modality alone."""

from __future__ import annotations

from itertools import islice, pairwise

import numpy as np

from perceiverd.core.media import NS_PER_S, Chunk, Frame, Media, MediaFormat, VideoFormat
from perceiverd.sources import synthetic
from perceiverd.sources.specs import Synthetic

WANTED = MediaFormat(11025, VideoFormat(31, 43, 6.25))  # a rate that 25 does not divide


def test_flash_and_beep_begin_together() -> None:
    """White frames and beep are in the same ticks: the first tenth of each second of the clock."""
    items = list(islice((item for item in synthetic.media(Synthetic(), WANTED) if isinstance(item, Media)), 80))
    frames = [item for item in items if isinstance(item, Frame)]
    chunks = [item for item in items if isinstance(item, Chunk)]
    assert len(frames) == len(chunks) == 40
    white = [frame.pixels.min() == 255 for frame in frames]
    assert white == [bool(np.abs(chunk.samples).max() > 0.3) for chunk in chunks]
    assert white == [frame.start_ns % NS_PER_S < synthetic.MARK_S * NS_PER_S for frame in frames]
    assert all(abs(frame.start_ns - chunk.start_ns) < 1_000_000 for frame, chunk in zip(frames, chunks, strict=True))
    assert all(0 <= after.start_ns - before.end_ns < 200_000 for before, after in pairwise(chunks))


def test_one_modality() -> None:
    """A source can have one modality alone; it sends signs of life if the model wants only the other."""
    assert isinstance(next(synthetic.media(Synthetic(audio=False), WANTED)), Frame)
    assert isinstance(next(synthetic.media(Synthetic(video=False), WANTED)), Chunk)
    assert next(synthetic.media(Synthetic(video=False), MediaFormat(None, WANTED.video))) is None
