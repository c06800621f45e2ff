"""The files to tag that the user names: files, URLs, pipes, and the media in folders. Gives outputs their names."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from perceiverd.core.errors import PerceiverdError
from perceiverd.offline.decoding import is_url, shown_name
from perceiverd.offline.folders.walk import Found, Passed, Selection, Walk


class NamedFiles:
    """The files that the user names. An iterable; each pass walks through the folders again."""

    def __init__(self, named: Sequence[str], selection: Selection, out: Path) -> None:
        """`out`: the folder of the outputs, which is left out. Raises PerceiverdError if two outputs had one name."""
        self._named, self._selection, self._out = named, selection, out
        self._single = len(named) == 1
        names = Counter(name for each in named if (name := _name(each)) and not (self._single and _is_folder(each)))
        for each in named:
            if names[_name(each)] > 1:
                raise PerceiverdError(
                    f"{shown_name(each)}: outputs of two inputs would have the name {_name(each)!r}; "
                    "tag them in two runs, into two folders"
                )
        self.passed = Passed()
        """How many files in folders were left out, and why."""

    def __iter__(self) -> Iterator[Found]:
        for each in self._named:
            if _is_folder(each):
                for found in Walk(each, self._selection, self._out, self.passed):
                    yield found if self._single else replace(found, name=f"{_name(each)}/{found.name}")
            else:
                yield _file(each)


def _is_folder(named: str) -> bool:
    return not is_url(named) and Path(named).is_dir()


def _file(named: str) -> Found:
    try:
        facts = os.stat(named)  # noqa: PTH116 - a URL is no path
    except (OSError, ValueError):
        return Found(named, _name(named))
    is_pipe = not facts.st_size
    return Found(named, _name(named), facts.st_size, 0 if is_pipe else facts.st_mtime_ns)


def _name(named: str) -> str:
    """The name of its outputs, without their endings."""
    if named == "-":
        return "stdin"
    if is_url(named):
        with suppress(ValueError):  # a malformed URL is reported when it is opened
            parts = urlsplit(named)
            return unquote(parts.path).rstrip("/").rpartition("/")[2].lstrip(".") or parts.hostname or "url"
        return "url"
    return Path(named).resolve().name if _is_folder(named) else Path(named).name
