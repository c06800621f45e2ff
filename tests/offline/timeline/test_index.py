"""The index of a folder of timelines."""

import json
from pathlib import Path
from typing import Any

import pytest

from perceiverd.offline.timeline.index import INDEX, OTHER_INDEX, read_summary, summaries, write_index
from tests.support.timelines import page_of, timeline_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with three timelines, one of them in a folder of its own."""
    (tmp_path / "sub").mkdir()
    for name, sounds in {
        "a.mp4": [("Bark", 1.0, 2.0, 0.9), ("Siren", 2.0, 3.0, 0.5)],
        "sub/b #1.mp4": [("Siren", 0.5, 3.0, 0.8)],
        "c.mp4": [],
    }.items():
        page_of(tmp_path / f"{name}.html", timeline_of(4, sounds), f"/media/{name}")
    return tmp_path


def index_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        (folder / INDEX).read_text().partition('id="index">')[2].partition("</script>")[0]
    )
    return found


def test_the_index_says_which_labels_are_where(folder: Path) -> None:
    """It has each timeline's address, name, length and labels, and leaves out other files."""
    (folder / "other.html").write_text("<html>")
    (folder / "torn.html").write_bytes((folder / "a.mp4.html").read_bytes()[:700])
    assert write_index(folder) == 3
    index = index_of(folder)
    assert index["labels"] == ["Bark", "Siren"]
    assert index["files"] == [
        ["a.mp4.html", "/media/a.mp4", 3.78, None, [[0, 1, 1.0, 1.0, 0.9], [1, 1, 1.0, 2.0, 0.5]]],
        ["c.mp4.html", "/media/c.mp4", 3.78, None, []],
        ["sub/b%20%231.mp4.html", "/media/sub/b #1.mp4", 3.78, None, [[1, 1, 2.5, 0.5, 0.8]]],
    ]


def test_it_is_made_of_what_is_there(folder: Path) -> None:
    """Written again after a page was deleted, it does not have it any more; nothing else is left in the folder."""
    write_index(folder)
    (folder / "a.mp4.html").unlink()
    assert write_index(folder) == 2
    assert sorted(path.name for path in folder.iterdir()) == ["c.mp4.html", INDEX, "sub"]


def test_no_page_is_lost_or_shown_half(folder: Path) -> None:
    """A timeline that is called like the index keeps its name; pages that are still written are left out."""
    page_of(folder / INDEX, timeline_of(4, []), "/media/index")
    (folder / ".perceiverd").mkdir()
    (folder / "a.mp4.html").rename(folder / ".perceiverd" / "part-0.html")
    assert write_index(folder) == 3
    assert read_summary(folder / INDEX)
    assert "/media/index" in (folder / OTHER_INDEX).read_text()


def test_it_is_bounded_and_says_what_it_leaves_out(folder: Path) -> None:
    """More files than the limit are counted, not listed."""
    assert write_index(folder, most=2) == 3
    assert len(index_of(folder)["files"]) == 2
    assert index_of(folder)["omitted"] == 1


def test_only_pages_of_this_format_are_read(folder: Path) -> None:
    """A page of a later format, a damaged summary and a missing file have no summary."""
    page = folder / "a.mp4.html"
    later = page.read_text().replace('id="summary">{"format":1', 'id="summary">{"format":2')
    (folder / "later.html").write_text(later)
    (folder / "damaged.html").write_text(page.read_text().replace('"duration_s":', '"duration_s":x'))
    assert [read_summary(folder / name) for name in ("later.html", "damaged.html", "missing.html")] == [None] * 3
    assert [path.name for path, _ in summaries(folder)] == ["a.mp4.html", "c.mp4.html", "b #1.mp4.html"]
