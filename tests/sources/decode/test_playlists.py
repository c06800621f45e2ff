"""Playlists with separate audio, joined from parts with other clocks, from a real encoder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from perceiverd.core.media import NS_PER_S, MediaFormat, VideoFormat
from perceiverd.sources.decode.container import read
from perceiverd.sources.decode.decoders import DecodeCounts
from tests.support.playlists import flashes_and_beeps, joined_playlist

pytestmark = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="needs ffmpeg: apt-get install ffmpeg")


@pytest.mark.parametrize(
    "parts",
    [
        [(4.4, 0.0), (3.0, 0.0)],
        [(4.4, 0.0), (3.0, 100.0)],
        [(4.4, 100.0), (3.0, 0.0)],
        [(4.0, 50.0), (3.0, 0.0), (3.0, 20.0)],
        [(2.0, 7.0), (2.0, 0.0), (2.0, 60.0), (2.0, 30.0)],
    ],
)
def test_separate_audio_stays_with_its_pictures(tmp_path: Path, parts: list[tuple[float, float]]) -> None:
    """Each flash is at its beep in all parts, though FFmpeg reads on in the playlist whose clock is less."""
    counts = DecodeCounts()
    path = joined_playlist(tmp_path, parts)
    items = list(read(path, MediaFormat(16_000, VideoFormat(30, 42, 25.0)), counts=counts))
    flashes, beeps = flashes_and_beeps(items)
    assert len(flashes) >= sum(seconds for seconds, _ in parts) - len(parts)
    # The flash at a join is part of a longer one, or begins with the audio of the part before.
    begins = [round(sum(seconds for seconds, _ in parts[:number]) * NS_PER_S) for number in range(len(parts))]
    inside = [each for each in flashes if min(abs(each - begin) for begin in begins) > NS_PER_S // 4]
    assert len(inside) >= len(flashes) - len(parts)
    assert max(min(abs(beep - flash) for beep in beeps) for flash in inside) < 60_000_000
    assert counts.joins == len(parts) - 1
    assert counts.refused_items <= len(parts)
