"""The test source itself."""

from __future__ import annotations

from itertools import islice, pairwise

import numpy as np

from perceiverd.media import NS_PER_S, Chunk, Frame
from perceiverd.sources import Synthetic, Wanted, WantedVideo, synthetic

WANTED = Wanted(11025, WantedVideo(31, 43, 6.25))  # a rate that 25 doesn't divide


def test_flash_and_beep_begin_together() -> None:
    """The white picture and the beep both begin with the second and last a tenth of it."""
    items = [item for item in islice(synthetic.media(Synthetic(), WANTED), 80) if item is not None]
    frames = [item for item in items if isinstance(item, Frame)]
    chunks = [item for item in items if isinstance(item, Chunk)]
    begin_ns = frames[0].start_ns
    white = [(frame.start_ns - begin_ns) / NS_PER_S for frame in frames if frame.pixels.min() == 255]
    loud = [(chunk.start_ns - begin_ns) / NS_PER_S for chunk in chunks if np.abs(chunk.samples).max() > 0.3]
    assert 3 <= len(white) <= 6  # of 1.6 s: one whole flash, and where it began or ended, parts of others
    assert abs(len(white) - len(loud)) <= 1  # the last moment may have its picture alone
    assert max(abs(seen - heard) for seen, heard in zip(white, loud, strict=False)) < 0.001
    assert all(0 <= after.start_ns - before.end_ns < 200_000 for before, after in pairwise(chunks))


def test_one_modality() -> None:
    """A source can be deaf or blind, and says that it is alive to a model that wants only the other."""
    assert isinstance(next(synthetic.media(Synthetic(audio=False), WANTED)), Frame)
    assert isinstance(next(synthetic.media(Synthetic(video=False), WANTED)), Chunk)
    assert next(synthetic.media(Synthetic(video=False), Wanted(None, WANTED.video))) is None
