"""Pages made of a template, a style sheet, modules and data."""

import base64
import hashlib
import io
import json
import re
import zlib
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiverd.offline.timeline.assembly import PAGES, assembled, json_text, linked, text, write_bytes, write_packed

NAMES = ["timeline", "index"]


class Parsed(HTMLParser):
    """The text of each element of some kinds, and all attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: dict[str, list[str]] = {"script": [], "style": [], "title": []}
        self.attributes: list[tuple[str, str, str]] = []
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self._inside = tag
        if tag in self.texts:
            self.texts[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside in self.texts:
            self.texts[self._inside][-1] += data


def page_of(page: str, **texts: str) -> str:
    out = io.StringIO()
    given = {"version": "1", "title": "t", "name": "n", "summary": "{}"} | texts
    assembled(page).write(out, given, lambda out: None)
    return out.getvalue()


@pytest.mark.parametrize("name", NAMES)
def test_the_policy_allows_only_what_is_in_the_page(name: str) -> None:
    """The hashes of the policy are those of the script and the style sheet; no attribute loads or runs anything."""
    page = Parsed(page_of(name))
    (policy,) = (value for _, key, value in page.attributes if key == "content" and "default-src" in value)
    hashes = re.findall(r"'sha256-([^']+)'", policy)
    sources = [page.texts["script"][-1], page.texts["style"][0]]
    assert hashes == [base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in sources]
    assert "'unsafe" not in policy and "default-src 'none'" in policy
    assert not [key for _, key, _ in page.attributes if key.startswith("on") or key in ("style", "src", "srcset")]
    links = [value for _, key, value in page.attributes if key in ("href", "action")]
    assert all(link.startswith(("#", "data:", "index.html")) for link in links)


@pytest.mark.parametrize("name", NAMES)
def test_modules_become_one_script(name: str) -> None:
    """Each module is in the script once, after those that it imports; no import, export or end of script is left."""
    script = linked(f"{name}_main.js")
    assert not re.search(r"^(import|export)\b", script, re.MULTILINE)
    assert "</script" not in script.lower() and "innerHTML" not in script
    top = re.findall(r"^(?:async )?(?:function|class|const|let) (\w+)", script, re.MULTILINE)
    assert len(top) == len(set(top)) > 20
    assert script.index("function clock(") < script.index(
        "clock(model.durationS)" if name == "timeline" else "clock(file"
    )


def test_modules_import_only_what_exists() -> None:
    """Every name that a module imports is exported by the other module, so each module also runs alone."""
    imports = re.compile(r'^import \{ ([^}]*) \} from "\./([a-z_]+\.js)";$', re.MULTILINE)
    exports = re.compile(r"^export (?:async )?(?:function|class|const|let) (\w+)", re.MULTILINE)
    for module in PAGES.glob("*.js"):
        for names, other in imports.findall(module.read_text()):
            assert set(names.split(", ")) <= set(exports.findall((PAGES / other).read_text())), (module, names)


@given(st.text())
def test_no_text_ends_its_element(words: str) -> None:
    """Text and JSON keep every sign, whatever it is, and cannot end the element that they are in."""
    page = Parsed(page_of("timeline", title=text(words)[5:-6], summary=json_text({"file": words})))
    assert json.loads(page.texts["script"][0]) == {"file": words}
    assert len(page.texts["script"]) == 2
    unpaired = re.compile(r"[\ud800-\udfff]|\r\n?")  # HTML has neither
    assert unpaired.sub("\n", page.texts["title"][0]) == unpaired.sub("\n", words)


def test_a_text_may_look_like_a_place() -> None:
    """A name that looks like a place of the template stays a name."""
    assert '<h1 id="title"><bdi>{{script}}{{data}}</bdi></h1>' in page_of("timeline", name=text("{{script}}{{data}}"))


def test_bytes_come_back() -> None:
    """Packed blocks are zlib in base64, other blocks base64."""
    out = io.StringIO()
    write_packed(out, "a", b"one", b"two")
    write_bytes(out, "b", [b"123456", b"78"])
    first, second = Parsed(out.getvalue()).texts["script"]
    assert zlib.decompress(base64.b64decode(first)) == b"onetwo"
    assert base64.b64decode(second) == b"12345678"
