"""Makes one HTML file of a template, a style sheet, ES modules and blocks of data. Knows no timeline.

The result loads nothing: a Content Security Policy allows only the script and the style sheet in it, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import IO, Any

import msgspec

PAGES = Path(__file__).with_name("page")
"""The templates, style sheets and modules."""
IMPORT = re.compile(r'^import \{([^}]*)\} from "\./([a-z_]+\.js)";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:async )?(?:function|class|const|let) )", re.MULTILINE)
POLICY = (
    "default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; img-src data: blob:; "
    "media-src 'self' file: blob:; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)
"""Only the media beside the page may be loaded. Trusted types forbid to make elements from text (`innerHTML`)."""


class Assembled:
    """The parts of a page that are the same for all files."""

    def __init__(self, name: str) -> None:
        """`name` is that of the template, the style sheet and the main module: `timeline` or `index`."""
        self._template = (PAGES / f"{name}.html").read_text(encoding="utf-8")
        self._style = "".join(each.read_text(encoding="utf-8") for each in (PAGES / "theme.css", PAGES / f"{name}.css"))
        self._script = linked(f"{name}_main.js")
        self._policy = POLICY.format(script=_sha256(self._script), style=_sha256(self._style))

    def write(self, out: IO[str], texts: Mapping[str, str], write_data: Callable[[IO[str]], None]) -> None:
        """Write the page. `texts` fill the template's places; `write_data` writes the blocks of data.

        Each text must be HTML already: see `text` and `json_block`.
        """
        known = {"style": self._style, "script": self._script, "csp": self._policy, **texts}
        # Split, not replaced one after the other: a file may be called {{script}}.
        for i, part in enumerate(re.split(r"\{\{(\w+)\}\}", self._template)):
            if i % 2 == 0:
                out.write(part)
            elif part == "data":
                write_data(out)
            else:
                out.write(known[part])


@cache
def assembled(name: str) -> Assembled:
    """The parts of this page, read once."""
    return Assembled(name)


def linked(main: str) -> str:
    """The module and those that it imports as one module, each once and after those that it imports.

    Modules import by name, without `as`, and no two of them have a name in common.
    """
    done: list[str] = []
    parts: list[str] = []

    def add(name: str) -> None:
        if name in done:
            return
        done.append(name)
        source = (PAGES / name).read_text(encoding="utf-8")
        for found in IMPORT.finditer(source):
            add(found[2])
        parts.append(EXPORT.sub("", IMPORT.sub("", source)))

    add(main)
    return "\n" + "".join(parts)


def text(words: str) -> str:
    """Text as HTML. Its writing direction ends with it, so a name cannot reverse the text that follows."""
    return f"<bdi>{html.escape(words)}</bdi>"


def json_text(value: Any) -> str:
    """JSON that stands in a script element: no sign in it can end the element."""
    encoded = msgspec.json.encode(value).decode()
    return encoded.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def write_json(out: IO[str], name: str, value: Any) -> None:
    """A block of JSON."""
    out.write(f'<script type="application/json" id="{name}">{json_text(value)}</script>\n')


def write_packed(out: IO[str], name: str, *arrays: bytes) -> None:
    """A block of bytes, compressed by zlib, as base64."""
    packed = base64.b64encode(zlib.compress(b"".join(arrays), 9)).decode()
    out.write(f'<script type="text/plain" id="{name}">{packed}</script>\n')


def write_bytes(out: IO[str], name: str, pieces: Iterable[bytes]) -> None:
    """A block of bytes as base64. All pieces but the last have a length that is a multiple of 3."""
    out.write(f'<script type="text/plain" id="{name}">')
    out.writelines(base64.b64encode(piece).decode() for piece in pieces)
    out.write("</script>\n")


def _sha256(words: str) -> str:
    return base64.b64encode(hashlib.sha256(words.encode()).digest()).decode()
