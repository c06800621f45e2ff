"""Links in Markdown lead to files and headings that exist."""

import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from docs.generate.markdown import anchor
from docs.generate.pages import TEMPLATES

ROOT = Path(__file__).parents[2]
FOLDERS = ("configs", "docs", "examples", "models", "systemd")
DOCUMENTS = sorted(
    path
    for path in [*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md"))]
    if not path.is_relative_to(TEMPLATES)  # its links are right only in docs/reference
)


@cache
def prose(path: Path) -> str:
    """The text of a document without code."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", lambda code: code[0] if "](" not in code[0] else "", text)


@cache
def anchors(path: Path) -> frozenset[str]:
    """The anchors of a document's headings; a heading that occurs again gets a number."""
    seen: Counter[str] = Counter()
    found = []
    for heading in re.findall(r"^#{1,6} (.+?)\s*$", prose(path), re.MULTILINE):
        name = anchor(heading)
        found.append(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return frozenset(found)


def links(path: Path) -> Iterator[tuple[str, str]]:
    """The targets of a document's links and pictures inside the repository, as path and anchor."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if not re.match(r"[a-z]+:", target):
            file, _, heading = target.partition("#")
            yield file, heading


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    """Every link to a file or a heading of this repository has its target."""
    for file, heading in links(path):
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), file
        assert not heading or heading in anchors(target), f"{file}#{heading}"


def test_every_page_is_in_the_index() -> None:
    """docs/README.md links to every page of docs, except single decisions."""
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / file).resolve() for file, _ in links(index)}
    pages = {path for path in DOCUMENTS if path.is_relative_to(index.parent) and path != index}
    missing = {str(path.relative_to(ROOT)) for path in pages - linked if path.parent.name != "decisions"}
    assert missing == set()


def test_pictures_need_no_network() -> None:
    """A picture of the documents loads no font and no other file."""
    for path in (ROOT / "docs" / "images").glob("*.svg"):
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/", "")
        assert not re.search(r"https?:|@import|<script", text), path.name
        assert "prefers-color-scheme: dark" in text, path.name
