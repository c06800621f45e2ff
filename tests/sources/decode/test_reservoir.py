"""MP3 frames behind a lost one: those that need its bits are lost too, all others sound as they did."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from perceiverd.core.media import NS_PER_S, Chunk, MediaFormat
from perceiverd.sources.decode.container import read
from perceiverd.sources.decode.decoders import Packet
from perceiverd.sources.decode.reservoir import BitReservoir

FRAME = 1152


def write_mp3(path: Path, rate_hz: int, channels: str, lost: frozenset[int] = frozenset()) -> Path:
    """4 s of bursts of noise, which fill the bit reservoir, without these packets."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libmp3lame", rate=rate_hz, layout=channels, bit_rate=48_000)
        rng = np.random.default_rng(11)
        packets: list[Packet] = []
        for number in range(4 * rate_hz // FRAME):
            noise = rng.normal(0, 0.2 if number % 7 else 0.01, (stream.codec_context.layout.nb_channels, FRAME))
            frame = av.AudioFrame.from_ndarray(noise.clip(-1, 1).astype(np.float32), "fltp", channels)
            frame.sample_rate, frame.pts = rate_hz, number * FRAME
            packets += stream.encode(frame)
        for number, packet in enumerate(packets + stream.encode(None)):
            if number not in lost:
                out.mux(packet)
    return path


def decoded(path: Path, rate_hz: int) -> NDArray[np.float32]:
    """5 s at the file's own rate from the time -0.1 s on, because MP3 begins before 0; NaN where nothing is."""
    samples = np.full(5 * rate_hz, np.nan, np.float32)
    for chunk in read(path, MediaFormat(audio_rate_hz=rate_hz, video=None)):
        assert isinstance(chunk, Chunk)
        begin = round((chunk.start_ns / NS_PER_S + 0.1) * rate_hz)
        samples[begin : begin + len(chunk.samples)] = chunk.samples
    return samples


def difference(whole: NDArray[np.float32], torn: NDArray[np.float32], begin: int, end: int) -> float:
    """The largest one between these samples, at the best lag: Matroska rounds the time at which the audio begins."""
    lags = range(-60, 61)
    return min(float(np.abs(whole[begin + lag : end + lag] - torn[begin:end]).max()) for lag in lags)


@pytest.mark.parametrize(("rate_hz", "channels"), [(48_000, "mono"), (48_000, "stereo"), (24_000, "mono")])
def test_no_noise_comes_out_behind_a_lost_frame(tmp_path: Path, rate_hz: int, channels: str) -> None:
    """Behind a lost frame nothing comes until a frame has all its data; then the audio is that of the whole file."""
    whole = decoded(write_mp3(tmp_path / "whole.mkv", rate_hz, channels), rate_hz)
    torn = decoded(write_mp3(tmp_path / "torn.mkv", rate_hz, channels, frozenset({60})), rate_hz)
    frame = FRAME if rate_hz > 24_000 else FRAME // 2
    hole = np.flatnonzero(np.isnan(torn[: 3 * rate_hz]) & ~np.isnan(whole[: 3 * rate_hz]))
    hole = hole[hole > rate_hz // 2]
    assert frame * 1.5 < len(hole) < 0.2 * rate_hz
    assert difference(whole, torn, rate_hz // 2, hole[0] - 100) < 0.01
    # The transform and the filters of the decoder reach over a granule and a half: the audio fades in.
    assert difference(whole, torn, hole[-1] + 1 + FRAME, 3 * rate_hz) < 0.01


def test_a_whole_file_loses_nothing(tmp_path: Path) -> None:
    """Without a hole each frame has what it needs."""
    whole = decoded(write_mp3(tmp_path / "whole.mkv", 48_000, "mono"), 48_000)
    assert not np.isnan(whole[24_000 : 3 * 48_000]).any()


@given(st.lists(st.tuples(st.integers(0, 10), st.integers(100, 10_000)), max_size=60))
def test_times_that_are_no_use_cost_no_frame(times: list[tuple[int, int]]) -> None:
    """If no packet follows the one before it, none is taken for the end of a hole."""
    reservoir, end_ns = BitReservoir(), 0
    for lasts_ns, gap_ns in times:
        assert not reservoir.is_lost(end_ns + gap_ns, end_ns + gap_ns + lasts_ns)
        end_ns += gap_ns + lasts_ns


@given(st.binary(max_size=40))
def test_any_bytes_are_taken(packet: bytes) -> None:
    """What is no frame of MP3 needs nothing, and no bytes raise."""
    reservoir = BitReservoir()
    assert reservoir.suffices(packet)
