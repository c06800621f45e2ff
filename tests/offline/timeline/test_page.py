"""The page of a file: its summary, its data and how it plays the file."""

import json
import os
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest

from perceiverd.offline.timeline.page import PageMedia, media_of, summary_of
from tests.support.timelines import page_of, timeline_of


def test_a_link_leads_from_the_page_to_any_name(tmp_path: Path) -> None:
    """The address is relative to the page's folder and keeps every byte of the name; a colon makes no scheme of it."""
    for name in (b"a b.mp4", b"x:y.mp4", b"50%.mp4", b"#1?.mp4", b"\xff\xfe.wav", "Käse.ogg".encode(), b"..mp4"):
        path = tmp_path / os.fsdecode(name)
        path.write_bytes(b"x")
        for folder in (tmp_path, tmp_path / "out" / "deep"):
            media, embedded = media_of(str(path), folder, has_video=True, embed_bytes=0)
            assert media.href and embedded is None and ":" not in media.href
            assert (
                folder / os.fsdecode(unquote_to_bytes(media.href))
            ).resolve() == path.resolve() or folder != tmp_path
            assert os.path.normpath(os.fsencode(folder) + b"/" + unquote_to_bytes(media.href)) == os.fsencode(path)


def test_small_files_are_embedded(tmp_path: Path) -> None:
    """A file up to the limit goes into the page with its media type; a larger one is linked if there is a folder."""
    path = tmp_path / "a.ogg"
    path.write_bytes(b"12345")
    assert media_of(str(path), tmp_path, has_video=False, embed_bytes=5) == (PageMedia("audio", type="audio/ogg"), path)
    assert media_of(str(path), tmp_path, has_video=False, embed_bytes=4)[0] == PageMedia("audio", href="a.ogg")
    assert media_of(str(path), None, has_video=False, embed_bytes=4)[0] == PageMedia(None)
    strange = path.rename(tmp_path / "a.bin")
    assert media_of(str(strange), None, has_video=True, embed_bytes=5)[0].type == "video/mp4"


@pytest.mark.parametrize(
    "address", ["-", "http://user:secret@example.org/a.mp4", "/dev/stdin", "/no/such/file", "a\0b"]
)
def test_pipes_and_urls_have_no_player(address: str, tmp_path: Path) -> None:
    """What is no file is neither linked nor embedded: the page asks for nothing from a network."""
    assert media_of(address, tmp_path, has_video=True, embed_bytes=9**9) == (PageMedia(None), None)


def test_the_summary_has_each_label_with_events() -> None:
    """The summary counts events by label, and says why a file is incomplete."""
    timeline = timeline_of(6, [("Bark", 1.0, 2.0, 0.9), ("Siren", 2.0, 4.0, 0.8)])
    summary = summary_of(timeline, "a.mp4", "tiny", PageMedia(None), "a.mp4: is cut short")
    assert [(each.name, each.events, each.total_s, each.first_s) for each in summary.labels] == [
        ("Bark", 1, 1.0, 1.0),
        ("Siren", 1, 2.0, 2.0),
    ]
    assert (summary.windows, summary.error) == (timeline.windows, "a.mp4: is cut short")


def test_the_page_is_one_file_with_all_data(tmp_path: Path) -> None:
    """Events, times and labels are in the page's data; an hour of windows needs less than 1 MB."""
    timeline = timeline_of(600, [("Bark", float(k), k + 0.9, 0.9) for k in range(0, 590, 3)], pictures=False)
    page = page_of(tmp_path / "a.html", timeline).read_text()
    data = json.loads(page.partition('id="timeline">')[2].partition("</script>")[0])
    assert data["events"]["start_s"] == [float(k) for k in range(0, 590, 3)]
    assert data["labels"][0]["name"] == "Bark"
    assert data["columns"]["count"] == len(timeline.heard)
    assert len(page) < 1_000_000
