"""The files of the page, without a browser."""

from __future__ import annotations

import re

from perceiverd.sources.snapshots.spectrogram import LEFT, RIGHT, WIDTH
from perceiverd.web.pages import STATIC, TYPES

MODULES = sorted((STATIC / "js").rglob("*.js"))
IMPORT = re.compile(r'^import .* from "([^"]+)";$', re.MULTILINE)


def test_files_are_small() -> None:
    """No file has more than 400 lines."""
    assert len(MODULES) > 20
    long = {path.name: lines for path in STATIC.rglob("*.*") if (lines := path.read_text().count("\n")) > 400}
    assert long == {}


def test_text_never_becomes_html() -> None:
    """No module uses a function that reads text as HTML or as code, and the page has neither code nor style in it."""
    forbidden = re.compile(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\(|new Function|DOMParser|srcdoc")
    assert [path.name for path in MODULES if forbidden.search(path.read_text())] == []
    index = (STATIC / "index.html").read_text()
    assert re.search(r"<style|\sstyle=|\son\w+=", index) is None
    assert re.findall(r"<script[^>]*>([^<]+)</script>", index) == []


def test_nothing_comes_from_elsewhere() -> None:
    """No file names another server, and all addresses are relative, so that a proxy may add a prefix."""
    for path in STATIC.rglob("*.*"):
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "://" not in text, path
        assert re.search(r"""(?:href|src)="/|url\(["']?/|["'`]/(?:api|static)/""", text) is None, path


def test_the_browser_loads_all_modules_at_once() -> None:
    """The head of the page names every module, and no other; each import leads to a file."""
    index = (STATIC / "index.html").read_text()
    named = re.findall(r'<(?:link rel="modulepreload" href|script type="module" src)="static/([^"]+)"', index)
    assert sorted(named) == [path.relative_to(STATIC).as_posix() for path in MODULES]
    for path in MODULES:
        for target in IMPORT.findall(path.read_text()):
            assert (path.parent / target).resolve() in MODULES, (path, target)


def test_every_icon_and_style_sheet_is_used() -> None:
    """Each file that the page or its style names is in the package, no other is, and the server has their types."""
    sheets = re.findall(r'href="static/((?:css|icons)/[^"]+)"', (STATIC / "index.html").read_text())
    used = {STATIC / each for each in sheets}
    for sheet in (STATIC / "css").glob("*.css"):
        used |= {(sheet.parent / each).resolve() for each in re.findall(r'url\("([^"]+)"\)', sheet.read_text())}
    assert used == {path for path in STATIC.rglob("*.*") if path.suffix in (".css", ".svg")}
    assert {path.suffix for path in STATIC.rglob("*.*")} <= TYPES.keys()


def test_labels_have_the_same_colours_in_canvas_and_legend() -> None:
    """The legend's swatches have the colours with which the canvas draws, in both themes."""
    drawn = (STATIC / "js" / "colours.js").read_text()
    css = (STATIC / "css" / "day.css").read_text()
    light, dark = (
        re.findall(r"#\w{6}", line) for line in re.findall(r"^  \w+: (\[(?:.*?#){12}.*\]),$", drawn, re.MULTILINE)
    )
    assert re.findall(r"(?<!\.dark )\.swatch\.c\d+ { background: (#\w{6});", css) == light
    assert re.findall(r"\.dark \.swatch\.c\d+ { background: (#\w{6});", css) == dark


def test_the_spectrogram_has_the_margins_that_it_is_drawn_with() -> None:
    """The line over the spectrogram moves between the margins of its picture."""
    module = (STATIC / "js" / "views" / "event_media.js").read_text()
    assert f"const [FROM, TO] = [{LEFT} / {WIDTH}, {WIDTH - RIGHT} / {WIDTH}];" in module
