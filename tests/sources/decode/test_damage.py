"""Damage that FFmpeg reports in words of its own, and how much of it ends a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import pytest
from av.container import InputContainer

from perceiverd.core.errors import MediaError
from perceiverd.core.media import MediaFormat
from perceiverd.sources.decode.boundary import INVALID_DATA
from perceiverd.sources.decode.container import read
from perceiverd.sources.decode.decoders import CORRUPT_RUN, DecodeCounts, Packet
from perceiverd.sources.decode.packets import Demuxed, demux

Clip = Callable[..., Path]


def test_an_impossible_size_is_damage(clip: Clip) -> None:
    """If a table claims to have billions of rows, the file is at fault, not the machine's memory."""
    path = clip("a.mp4", sound=lambda t: 0.3 * np.sin(t), seconds=2.0)
    data = bytearray(path.read_bytes())
    rows = data.index(b"stts") + 8  # after the name: a version and flags, then the number of rows
    data[rows : rows + 4] = b"\x1f\xff\xff\xff"
    path.write_bytes(data)
    with pytest.raises(MediaError) as caught:
        list(read(path, MediaFormat(16_000)))
    assert str(caught.value) == (
        f"{path}: cannot be opened (one of its parts claims to be larger than 2 GB); it is damaged, or no media file"
    )


class Damaged:
    """A container whose reads fail `run` times in a row before each packet."""

    def __init__(self, packets: list[Packet], run: int) -> None:
        self._turns: Iterator[Packet | None] = iter([each for packet in packets for each in (*[None] * run, packet)])

    def demux(self, indices: list[int]) -> Iterator[Any]:
        assert indices == [0]
        for turn in self._turns:
            if turn is None:
                raise av.error.InvalidDataError(-INVALID_DATA, "damaged")
            yield turn


def test_only_damage_in_a_row_ends_a_file(clip: Clip) -> None:
    """A file that is damaged in a thousand places is read to its end; one that is damaged for long is not."""
    path = clip("a.wav", sound=lambda t: 0.3 * np.sin(t), seconds=2.0, audio_codec="pcm_s16le")
    with av.open(str(path)) as container:
        packets = [cast("Packet", packet) for packet in container.demux() if packet.size]
    assert len(packets) > 3

    def readable(run: int, counts: DecodeCounts) -> int:
        damaged = cast(InputContainer, Damaged(packets, run))
        return sum(1 for _ in demux(damaged, [0], "a", counts, None, Demuxed(), live=False))

    counts = DecodeCounts()
    assert readable(CORRUPT_RUN - 1, counts) == len(packets)
    assert counts.corrupt_packets == (CORRUPT_RUN - 1) * len(packets)
    with pytest.raises(MediaError, match="a: is damaged and cannot be read further"):
        readable(CORRUPT_RUN, DecodeCounts())
