"""Options of sources: what is allowed, and what contradicts itself."""

import re
from pathlib import Path

import pytest

from perceiverd import config
from perceiverd.sources.specs import Camera, File, Microphone, Pipe, Source, Synthetic, Url, modalities_of
from tests.support.configs import refusal, write_config

KINDS = {"file": 'path = "a.mkv"', "url": 'url = "rtsp://192.0.2.7/s"'}
MEDIA = 'only = "audio", track = "eng", channel = 2, gain_db = -6.0, highpass_hz = 120.0'


def stream(source: str) -> str:
    return f"[streams.a]\nsources = [{{ {source} }}]\n"


@pytest.mark.parametrize("kind", KINDS)
def test_files_and_urls_have_all_media_options(tmp_path: Path, kind: str) -> None:
    """A file and a URL accept the choice of tracks and the treatment of audio."""
    (source,) = (
        config.load(write_config(tmp_path, stream(f'kind = "{kind}", {KINDS[kind]}, {MEDIA}'))).streams["a"].sources
    )
    assert isinstance(source, File | Url)
    assert (source.only, source.track, source.channel) == ("audio", "eng", 2)
    assert (source.gain_db, source.highpass_hz) == (-6, 120)


def test_a_microphone_has_the_options_of_audio(tmp_path: Path) -> None:
    """A microphone accepts channel, gain and high-pass; it has no tracks."""
    text = stream('kind = "microphone", channel = 2, gain_db = 3, highpass_hz = 80')
    assert config.load(write_config(tmp_path, text)).streams["a"].sources == (
        Microphone(channel=2, gain_db=3, highpass_hz=80),
    )
    assert refusal(tmp_path, stream('kind = "microphone", track = 1')).startswith(
        "$.streams.a.sources[0].track: unknown option"
    )
    assert refusal(tmp_path, stream('kind = "camera", gain_db = 1')).startswith(
        "$.streams.a.sources[0].gain_db: unknown option"
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ('only = "video", channel = 1', 'only = "video" leaves out the audio, to which channel belongs; remove one'),
        ('only = "video", gain_db = 3', "to which gain_db belongs"),
        ('only = "video", highpass_hz = 80', "to which highpass_hz belongs"),
        ('only = "video", track = 0', "to which track belongs"),
        ('only = "sound"', r"\.only: unknown value 'sound'"),
        ('track = "english"', 'track must be a number from 0, or a language code such as "eng"'),
        ('track = ""', "track must be a number from 0"),
        ("track = -1", r"\.track: expected an integer >= 0"),
        ("track = true", r"\.track: expected an integer or a string, got true or false"),
        ("channel = 0", r"\.channel: expected an integer >= 1"),
        ("channel = 65", r"\.channel: expected an integer <= 64"),
        ("gain_db = 61", r"\.gain_db: expected a number <= 60"),
        ("highpass_hz = 0", r"\.highpass_hz: expected a number >= 1"),
        ("highpass_hz = 9000", r"\.highpass_hz: expected a number <= 8000"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_contradictions_are_refused(tmp_path: Path, kind: str, options: str, expected: str) -> None:
    """An option that has no effect beside another, or is out of range, is an error of one line with its place."""
    line = refusal(tmp_path, stream(f'kind = "{kind}", {KINDS[kind]}, {options}'))
    assert line.startswith("$.streams.a.sources[0]")
    assert re.search(expected, line)


def test_a_highpass_above_a_microphones_rate_is_refused(tmp_path: Path) -> None:
    """A high-pass must leave something at the configured rate."""
    line = refusal(tmp_path, stream('kind = "microphone", rate_hz = 8000, highpass_hz = 4000'))
    assert "highpass_hz must be below half of rate_hz" in line


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (Camera(), "video"),
        (Microphone(), "audio"),
        (Pipe("-", raw="s16le,16000,1"), "audio"),
        (Pipe("-"), "audio video"),
        (File("a.mkv"), "audio video"),
        (File("a.mkv", only="video"), "video"),
        (Url("rtsp://192.0.2.7/s", only="audio"), "audio"),
        (Synthetic(video=False), "audio"),
        (Synthetic(), "audio video"),
    ],
)
def test_what_a_source_may_give_is_known_before_it_opens(source: Source, expected: str) -> None:
    """A device gives what its kind says, the others what their options leave."""
    assert sorted(modalities_of(source)) == expected.split()
