"""Transport streams whose tracks change, from a real encoder: all parts are found and read."""

from __future__ import annotations

import logging
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from perceiverd.core.errors import MediaError
from perceiverd.core.media import Chunk, Frame, MediaFormat, VideoFormat
from perceiverd.sources.decode.container import read
from perceiverd.sources.decode.decoders import DecodeCounts
from perceiverd.sources.decode.transport import PartRange, ranges
from perceiverd.sources.specs import MediaOptions

BOTH = MediaFormat(16_000, VideoFormat(30, 42, 6.25))
SECONDS = 2.0
Part = Callable[..., bytes]

pytestmark = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="needs ffmpeg: apt-get install ffmpeg")


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> Part:
    """Makes a transport stream of 2 s with other PIDs, codecs or tracks."""
    folder = tmp_path_factory.mktemp("parts")

    def make(*options: str, video: str = "mpeg2video", audio: str = "aac") -> bytes:
        path = folder / f"{abs(hash((options, video, audio)))}.ts"
        inputs = ["-f", "lavfi", "-i", "testsrc=s=84x60:r=25"] if video else []
        inputs += ["-f", "lavfi", "-i", "sine=440:r=48000"] if audio else []
        codecs = (["-c:v", video] if video else []) + (["-c:a", audio] if audio else [])
        command = ["ffmpeg", "-loglevel", "error", "-y", *inputs, "-t", str(SECONDS), *codecs, *options, str(path)]
        subprocess.run(command, check=True, timeout=60)
        return path.read_bytes()

    return make


def amounts(path: Path, counts: DecodeCounts | None = None, use: MediaOptions | None = None) -> tuple[float, int]:
    """Seconds of audio, and how many frames."""
    items = list(read(path, BOTH, counts=counts, use=use))
    samples = sum(len(item.samples) for item in items if isinstance(item, Chunk))
    return samples / 16_000, sum(isinstance(item, Frame) for item in items)


OTHER_PIDS = ("-mpegts_start_pid", "0x200", "-mpegts_pmt_start_pid", "0x1100")


@pytest.mark.parametrize(
    "second",
    [
        {"options": OTHER_PIDS},
        {"options": ("-mpegts_start_pid", "0x300")},
        {"video": "libx264"},
        {"video": "libx264", "audio": "mp2"},
    ],
)
@pytest.mark.parametrize("torn", [0, 77])
def test_other_pids_and_codecs(part: Part, tmp_path: Path, second: dict[str, object], torn: int) -> None:
    """Both parts of a small file are read, sound and pictures, though FFmpeg would drop the second one."""
    first, path, counts = part(), tmp_path / "a.ts", DecodeCounts()
    options = second.get("options", ())
    assert isinstance(options, tuple)
    after = part(*options, **{key: value for key, value in second.items() if key != "options"})
    path.write_bytes(first[: len(first) - torn] + after)
    alone = tmp_path / "b.ts"
    alone.write_bytes(first)
    one_s, frames = amounts(alone)
    both_s, both_frames = amounts(path, counts)
    assert len(ranges(path)) == 2
    assert both_s == pytest.approx(2 * one_s, abs=0.15)
    assert both_frames == pytest.approx(2 * frames, abs=3)
    assert counts.joins == 1


def test_the_same_tracks_are_one_part(part: Part, tmp_path: Path) -> None:
    """A file alone, one that repeats it, one with two programmes, and no transport stream are one part."""
    two = ("-map", "0", "-map", "1", "-program", "title=a:st=0", "-program", "title=b:st=1")
    for name, data in {"a": part(), "b": part() * 2, "c": part(*two), "d": b"\x47" + bytes(5000)}.items():
        path = tmp_path / name
        path.write_bytes(data)
        assert ranges(path) == [PartRange(0, 0)], name


def test_packets_of_192_bytes(part: Part, tmp_path: Path) -> None:
    """Camcorders put a time of four bytes before each packet."""
    path = tmp_path / "a.m2ts"
    whole = np.frombuffer(part() + part(*OTHER_PIDS), np.uint8).reshape(-1, 188)
    path.write_bytes(np.hstack([np.full((len(whole), 4), 7, np.uint8), whole]).tobytes())
    first, second = ranges(path)
    assert first.end_byte == second.first_byte
    assert first.end_byte % 192 == 0


def test_damage_begins_no_part(part: Part, tmp_path: Path) -> None:
    """Tables with a wrong checksum are no tables, wherever the bits flip."""
    data, path, rng = bytearray(part() * 2), tmp_path / "a.ts", np.random.default_rng(5)
    for place in rng.integers(188 * 5, len(data), 3000):
        data[place] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)
    assert ranges(path) == [PartRange(0, 0)]


def test_a_part_without_the_wanted_track(part: Part, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A part that lacks what is wanted is reported, and what comes before and after it is read."""
    path, counts = tmp_path / "a.ts", DecodeCounts()
    silent = part("-mpegts_start_pid", "0x300", audio="")
    path.write_bytes(part() + silent + part(*OTHER_PIDS))
    with caplog.at_level(logging.WARNING, "perceiverd.sources"):
        sound_s, frames = amounts(path, counts, MediaOptions(only="audio"))
    assert sound_s == pytest.approx(2 * SECONDS, abs=0.2)
    assert (frames, counts.skipped_parts) == (0, 1)
    assert [line.split(" file=")[0] for line in caplog.messages] == ["part-skipped"]
    assert "has no audio" in caplog.text
    path.write_bytes(silent + part("-mpegts_start_pid", "0x400", audio=""))
    with pytest.raises(MediaError, match="has no audio"):
        amounts(path, use=MediaOptions(only="audio"))
