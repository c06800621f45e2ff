"""The format `html`: from pieces to a page."""

import io
import json
from dataclasses import replace
from pathlib import Path

from perceiverd.offline.timeline.index import read_summary
from perceiverd.offline.writers.formats import FORMATS
from perceiverd.offline.writers.writer import FileFacts, WriterOptions
from tests.support.file_records import pieces


def test_pieces_become_a_page(tmp_path: Path) -> None:
    """The page has the file's windows, events and audio; it links to the file from the place where it will be."""
    clip = tmp_path / "clip.ogg"
    clip.write_bytes(b"12345")
    for embed_bytes, media in (
        (0, {"kind": "audio", "href": "../clip.ogg"}),
        (5, {"kind": "audio", "type": "audio/ogg"}),
    ):
        target = tmp_path / "out" / "clip.ogg.html"
        target.parent.mkdir(exist_ok=True)
        with target.open("w") as out:
            writer = FORMATS["html"].make(out, WriterOptions(target=target, embed_bytes=embed_bytes))
            for piece in pieces(9):
                writer.write(replace(piece, address=str(clip)) if isinstance(piece, FileFacts) else piece)
            writer.close()
        page, summary = target.read_text(), read_summary(target)
        assert summary and summary.windows == 9 and summary.file == "a b.mp4" and summary.model == "tiny"
        assert {key: value for key in media if (value := getattr(summary.media, key))} == media
        assert [each.name for each in summary.labels] == ["Dog"]
        assert ("MTIzNDU=" in page) is bool(embed_bytes)
        data = json.loads(page.partition('id="timeline">')[2].partition("</script>")[0])
        assert data["sound"]["count"] > 50


def test_a_page_in_memory_links_to_nothing() -> None:
    """Without a place there is no relative address."""
    out = io.StringIO()
    writer = FORMATS["html"].make(out, WriterOptions())
    for piece in pieces(3):
        writer.write(piece)
    assert '"media":{"kind":null,"href":null' in out.getvalue()


def test_a_run_ends_with_an_index(tmp_path: Path) -> None:
    """When all files of a folder are done, the format writes the index over their pages."""
    finish = FORMATS["html"].finish
    assert finish
    for name in ("a", "b"):
        with (tmp_path / f"{name}.html").open("w") as out:
            writer = FORMATS["html"].make(out, WriterOptions())
            for piece in pieces(3, name):
                writer.write(piece)
    finish(tmp_path)
    assert '"labels":["Dog"]' in (tmp_path / "index.html").read_text()
