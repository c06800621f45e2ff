"""Pictures, sounds and clips of events, from a real server."""

from __future__ import annotations

import io
from pathlib import Path

import av
import msgspec
import pytest

from tests.sources.snapshots.test_playable import made
from tests.support.history import Store, event
from tests.support.pages import PageProcess, served
from tests.support.running_daemon import RunningDaemon

PICTURE = bytes(range(256)) * 40
"""What the fixture has stored."""


@pytest.fixture
def place(page: PageProcess) -> str:
    """The path of the media of the last event."""
    return f"/api/1/events/{page.browser().get('/api/1/events?limit=1').json['events'][0]['id']}/media"


def test_a_stream_that_only_hears(page: PageProcess, place: str) -> None:
    """Its picture is the spectrogram, and its clip is a sound."""
    browser = page.browser()
    (last,) = browser.get("/api/1/events?limit=1").json["events"]
    assert [last[kind] for kind in ("picture", "clip", "sound", "spectrogram")] == [False, False, True, True]
    answer = browser.get(f"{place}/spectrogram")
    assert (answer.status, answer.headers["content-type"], answer.body) == (200, "image/jpeg", PICTURE)
    assert browser.get(f"{place}/sound").headers["content-type"] == "audio/flac"
    missing = browser.get(f"{place}/picture")
    assert (missing.status, "this event has no picture" in missing.error) == (404, True)


@pytest.mark.parametrize(
    ("wanted", "status", "first", "last"),
    [
        ("bytes=0-99", 206, 0, 99),
        ("bytes=10000-", 206, 10000, 10239),
        ("bytes=-5", 206, 10235, 10239),
        ("bytes=7-999999", 206, 7, 10239),
        ("bytes=0-1,4-5", 200, 0, 10239),
        ("bytes=x", 200, 0, 10239),
        ("bytes=-", 200, 0, 10239),
    ],
)
def test_ranges(page: PageProcess, place: str, wanted: str, status: int, first: int, last: int) -> None:
    """A player seeks with them; what is no single range gets the whole file."""
    answer = page.browser().get(f"{place}/spectrogram", range=wanted)
    assert (answer.status, answer.body) == (status, PICTURE[first : last + 1])
    if status == 206:
        assert answer.headers["content-range"] == f"bytes {first}-{last}/10240"


@pytest.mark.parametrize("wanted", ["bytes=10240-", "bytes=9-8", "bytes=-0"])
def test_ranges_outside_of_the_file(page: PageProcess, place: str, wanted: str) -> None:
    """They are refused with the size."""
    answer = page.browser().get(f"{place}/spectrogram", range=wanted)
    assert (answer.status, answer.headers["content-range"]) == (416, "bytes */10240")


def test_clips_become_playable(tmp_path: Path, daemon: RunningDaemon) -> None:
    """A clip becomes WebM, its sound FLAC, and its spectrogram JPEG; a damaged one is refused."""
    snaps = tmp_path / "snaps"
    snaps.mkdir()
    (snaps / "good.mkv").write_bytes(made())
    (snaps / "bad.mkv").write_bytes(b"\x1aE\xdf\xa3" + bytes(500))
    store = Store(tmp_path)
    store.begin()
    for number, name in enumerate(("bad", "good")):
        ended = event("end", "Dog", 100 * number, 100 * number + 3)
        ended = msgspec.structs.replace(ended, clip=str(snaps / f"{name}.mkv"))
        store.receive(100 * number + 3, event("begin", "Dog", 100 * number, 100 * number + 1), ended)
    store.writer.connection.close()
    options = ("--endpoint", f"house={daemon.endpoint}", "--history", str(tmp_path), "--media", str(snaps))
    with served(tmp_path, *options) as page:
        browser = page.browser()
        good, bad = browser.get("/api/1/events").json["events"]
        place = f"/api/1/events/{good['id']}/media"
        clip = browser.get(f"{place}/clip")
        assert (clip.status, clip.headers["content-type"]) == (200, "video/webm")
        with av.open(io.BytesIO(clip.body), "r") as container:
            assert [each.codec_context.name for each in container.streams] == ["vp8", "opus"]
        assert browser.get(f"{place}/clip", range="bytes=5-24").body == clip.body[5:25]
        assert browser.get(f"{place}/sound").body.startswith(b"fLaC")
        assert browser.get(f"{place}/spectrogram").body.startswith(b"\xff\xd8")
        refused = browser.get(f"/api/1/events/{bad['id']}/media/clip")
        assert (refused.status, "this event has no clip: the clip cannot be read" in refused.error) == (404, True)
