"""The choice of tracks in real files with several of them."""

from __future__ import annotations

import logging
from pathlib import Path

import av
import numpy as np
import pytest

from perceiverd.core.errors import MediaError
from perceiverd.core.media import Chunk, Frame, MediaFormat, VideoFormat
from perceiverd.sources.decode.container import read
from perceiverd.sources.decode.tracks import is_language
from perceiverd.sources.specs import MediaOptions
from tests.support.tracks import write_tracks

RATE_HZ = 16_000
BOTH = MediaFormat(RATE_HZ, VideoFormat(30, 42, 6.25))


def heard_hz(path: Path, use: MediaOptions) -> float:
    """The frequency of the tone in the track that is used."""
    samples = np.concatenate([item.samples for item in read(path, BOTH, use=use) if isinstance(item, Chunk)])
    spectrum = np.abs(np.fft.rfft(samples[2000:14_000] * np.hanning(12_000)))
    return float(spectrum.argmax()) * RATE_HZ / 12_000


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "aac"), ("a.mp4", "aac"), ("a.ts", "mp2"), ("b.ts", "ac3")])
@pytest.mark.parametrize(
    ("track", "expected"), [(None, 500), (0, 500), (1, 1000), (2, 2000), ("eng", 1000), ("FRA", 2000), ("ger", 500)]
)
def test_a_track_is_chosen(tmp_path: Path, name: str, codec: str, track: int | str | None, expected: float) -> None:
    """A track is chosen by its number or language; both codes of a language mean the same."""
    assert heard_hz(write_tracks(tmp_path / name, codec), MediaOptions(track=track)) == pytest.approx(expected, abs=5)


def test_a_missing_track_is_an_error(tmp_path: Path) -> None:
    """A track that a file does not have is an error that lists the tracks."""
    path = write_tracks(tmp_path / "a.mkv", languages=("deu", None, "fra"))
    for track in (3, "eng"):
        with pytest.raises(MediaError, match=f"has no audio track {track}; its audio tracks are 0:deu, 1, 2:fra"):
            list(read(path, BOTH, use=MediaOptions(track=track)))
    with pytest.raises(MediaError, match="has no audio track 0; it has no audio"):
        list(read(write_tracks(tmp_path / "b.mkv", languages=()), BOTH, use=MediaOptions(track=0)))


def test_only_one_modality_is_used(tmp_path: Path) -> None:
    """With `only` the other modality is left out, and a file without the wanted one is an error."""
    path = write_tracks(tmp_path / "a.mkv")
    for only, kind in (("audio", Chunk), ("video", Frame)):
        use = MediaOptions(only="audio" if only == "audio" else "video")
        assert {type(item) for item in read(path, BOTH, use=use)} == {kind}
    with pytest.raises(MediaError, match='has no video that can be decoded, and only = "video" is set'):
        list(read(write_tracks(tmp_path / "b.mka", film=False), BOTH, use=MediaOptions(only="video")))
    with pytest.raises(MediaError, match='only = "video" is set, and the model uses no video'):
        list(read(path, MediaFormat(RATE_HZ), use=MediaOptions(only="video")))


def test_options_that_do_not_fit_are_errors(tmp_path: Path) -> None:
    """A channel that a track lacks, and a high-pass that leaves nothing, are errors when the file is opened."""
    path = write_tracks(tmp_path / "a.mkv")
    with pytest.raises(MediaError, match="its audio has 2 channels, and no channel 3"):
        list(read(path, BOTH, use=MediaOptions(channel=3)))
    slow = tmp_path / "a.wav"
    with av.open(str(slow), "w") as container:
        track = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        assert isinstance(track, av.AudioStream)
        block = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), "s16", "mono")
        block.sample_rate = 8000
        container.mux(track.encode(block))
    with pytest.raises(MediaError, match="has 8000 samples per second, so highpass_hz = 5000 would remove everything"):
        list(read(slow, BOTH, use=MediaOptions(highpass_hz=5000)))


def test_the_choice_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The track and the mix are logged once; it is a warning if there are several tracks and none was chosen."""
    path, caplog.handler.level = write_tracks(tmp_path / "a.mkv"), logging.INFO
    caplog.set_level(logging.INFO)
    for use in (
        MediaOptions(),
        MediaOptions(track="eng"),
        MediaOptions(track=2, channel=1),
        MediaOptions(only="video"),
    ):
        list(read(path, BOTH, use=use, log_track=True))
    start = f"track-chosen source={path} track="
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", start + '0 tracks=0:deu,1:eng,2:fra layout=stereo mix="all channels"'),
        ("INFO", start + '1 tracks=0:deu,1:eng,2:fra layout=stereo mix="all channels"'),
        ("INFO", start + '2 tracks=0:deu,1:eng,2:fra layout=stereo mix="channel 1"'),
    ]


def test_languages() -> None:
    """Case, the two codes of ISO 639-2 and regions do not matter, unless a region is wanted."""
    assert is_language("ENG", "eng") and is_language("ger", "deu") and is_language("deu", "ger")
    assert is_language("en-US", "en") and is_language("en-US", "en-us") and not is_language("en", "en-US")
    assert not is_language(None, "eng") and not is_language("fra", "eng")
