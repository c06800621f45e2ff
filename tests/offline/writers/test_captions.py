"""Captions, as FFmpeg reads them."""

from pathlib import Path

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiverd.offline.writers.writer import Piece
from tests.support.file_records import event, pieces
from tests.support.written import written

FORMATS = ("vtt", "srt")


def cues(path: Path) -> list[tuple[int, int, str]]:
    """Start and end in ms and the text of each caption, by FFmpeg's demuxer and decoder."""
    found = []
    with av.open(str(path)) as container:
        for packet in container.demux():
            if packet.pts is None or packet.duration is None or packet.time_base is None:
                continue
            start_ms, length_ms = (round(each * packet.time_base * 1000) for each in (packet.pts, packet.duration))
            (text,) = (each.dialogue for each in packet.decode())  # type: ignore[union-attr]
            found.append((start_ms, start_ms + length_ms, text.decode()))
    return found


@pytest.mark.parametrize("form", FORMATS)
def test_ffmpeg_reads_the_captions(tmp_path: Path, form: str) -> None:
    """FFmpeg finds each event at its time with its name, over an hour into the file too."""
    events: list[Piece] = [event("Dog", 0.64, 3.2), event("Music", 1.0, 2.5), event("Bark", 3725.007, 3726.5)]
    written(form, [*pieces()[:4], *events], tmp_path / f"a.{form}")
    assert cues(tmp_path / f"a.{form}") == [
        (640, 3200, "[Dog]"),
        (1000, 2500, "[Music]"),
        (3_725_007, 3_726_500, "[Bark]"),
    ]


@pytest.mark.parametrize("form", FORMATS)
def test_a_name_stays_one_line(tmp_path: Path, form: str) -> None:
    """A line break, an arrow or markup in a name does not break the file or vanish."""
    name = "a\n\nb --> c & <d> Crowing, cock-a-doodle-doo"
    written(form, [pieces()[0], event(name), event("Dog", 5, 6)], tmp_path / f"a.{form}")
    first, second = cues(tmp_path / f"a.{form}")
    assert first[2].replace("‹", "<").replace("›", ">") == "[a  b --> c & <d> Crowing, cock-a-doodle-doo]"
    assert second == (5000, 6000, "[Dog]")


def test_webvtt_begins_as_the_standard_wants() -> None:
    """The signature is the first line; the identifiers of cues are those of the events."""
    lines = written("vtt", pieces()).splitlines()
    assert lines[:3] == ["WEBVTT", "", "NOTE"]
    assert lines[lines.index("[Dog]") - 2] == event().id


@given(st.integers(0, 10**9))
def test_times_are_exact_to_the_millisecond(start_ms: int) -> None:
    """Hours, minutes, seconds and milliseconds of a caption add up to the time of its event."""
    text = written("srt", [event("Dog", start_ms / 1000, start_ms / 1000 + 1)])
    hours, minutes, rest = text.splitlines()[1].split(" --> ")[0].split(":")
    seconds, milliseconds = rest.split(",")
    assert ((int(hours) * 60 + int(minutes)) * 60 + int(seconds)) * 1000 + int(milliseconds) == start_ms
