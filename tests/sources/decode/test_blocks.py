"""Frames of audio are joined into blocks: the same samples, and a seam where one is."""

from __future__ import annotations

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiverd.core.media import NS_PER_S
from perceiverd.sources.decode.blocks import AudioBlock, BlockJoiner, to_channels

RATE_HZ = 8000


def audio(samples: int, first: int = 0, layout: str = "stereo", form: str = "s16p") -> av.AudioFrame:
    """A frame whose samples count up from `first`, on each channel from another number."""
    channels = av.AudioLayout(layout).nb_channels
    data = (np.arange(samples) + first + 1000 * np.arange(channels)[:, None]).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(data if form.endswith("p") else data.T.reshape(1, -1), form, layout)
    frame.sample_rate = RATE_HZ
    return frame


@given(st.lists(st.integers(1, 900), min_size=1, max_size=30), st.sampled_from(["s16", "s16p"]))
def test_blocks_have_all_samples_in_order(lengths: list[int], form: str) -> None:
    """Whatever the frames' lengths, blocks are long enough, and together they are the frames."""
    blocks, found, first = BlockJoiner(0.25), list[AudioBlock](), 0
    for length in lengths:
        found += blocks.add(audio(length, first, form=form), first * NS_PER_S // RATE_HZ)
        first += length
    assert all(block.samples.shape[1] >= 2000 for block in found)
    found += blocks.flush()
    joined = np.concatenate([block.samples for block in found], axis=1)
    np.testing.assert_array_equal(joined * 32768, np.arange(first) + np.array([[0], [1000]]))
    starts = np.cumsum([0, *(block.samples.shape[1] for block in found[:-1])])
    assert [block.start_ns for block in found] == pytest.approx((starts * NS_PER_S / RATE_HZ).tolist(), abs=2)


def test_a_hole_ends_a_block() -> None:
    """Audio that comes later than the block lasts begins another block, at its own time."""
    blocks = BlockJoiner(0.25)
    assert not list(blocks.add(audio(400), 0))
    (block,) = blocks.add(audio(400), NS_PER_S)
    assert block.start_ns == 0
    (last,) = blocks.flush()
    assert last.start_ns == NS_PER_S


def test_another_format_ends_a_block() -> None:
    """Frames with other channels are in another block."""
    blocks = BlockJoiner(0.25)
    assert not list(blocks.add(audio(400), 0))
    (block,) = blocks.add(audio(400, layout="mono"), NS_PER_S // 20)
    (last,) = blocks.flush()
    assert (block.names, last.names) == (("FL", "FR"), ("FC",))


def test_times_that_jitter_are_averaged() -> None:
    """A block begins where its frames say on average, as containers round times."""
    blocks = BlockJoiner(0.2)
    off_ns = [400_000, -500_000, 100_000, 0]
    found = [block for i, off in enumerate(off_ns) for block in blocks.add(audio(400), i * NS_PER_S // 20 + off)]
    assert [block.start_ns for block in found] == [0]


def test_live_audio_does_not_wait() -> None:
    """With blocks of no length each frame comes at once, with the time it has, or with none."""
    blocks = BlockJoiner(0)
    assert [block.start_ns for at in (5, None) for block in blocks.add(audio(3), at)] == [5, None]


def test_a_damaged_sample_does_no_harm() -> None:
    """NaN becomes silence, and what is beyond any codec's range is cut."""
    data = np.array([[0.5, np.nan, np.inf, -900.0]], np.float32)
    frame = av.AudioFrame.from_ndarray(data, "fltp", "mono")
    frame.sample_rate = RATE_HZ
    np.testing.assert_array_equal(to_channels([frame]), [[0.5, 0, 1, -16]])
