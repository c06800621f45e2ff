"""The index of a folder of timelines: which labels occur in which files.

Each page has its own summary, and the index is made from the pages alone: after a kill, another run or a deleted page
it is right again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import msgspec

from perceiverd import __version__
from perceiverd.offline.folders.outputs import HIDDEN
from perceiverd.offline.timeline.assembly import assembled, text, write_json
from perceiverd.offline.timeline.page import FORMAT, PageSummary

INDEX = "index.html"
OTHER_INDEX = "timelines.html"
"""Its name if a file without an ending is called `index`, so that its timeline has that name."""
MOST_FILES = 20_000
"""Files that an index lists. With ten labels each it then has some 10 MB. It says how many more there are."""
HEAD_BYTES, SUMMARY_BYTES = 4096, 1 << 20
"""Where a page's summary begins at the latest, and its largest size: 527 labels need 60 kB."""
BEGIN, END = b'<script type="application/json" id="summary">', b"</script>"


def write_index(folder: Path, most: int = MOST_FILES) -> int:
    """Write the index of the timelines in this folder and below it; returns how many there are.

    The file is replaced at once, so nobody reads half of it. Other HTML files are ignored. Raises OSError.
    """
    files: list[list[Any]] = []
    names: dict[str, int] = {}
    count = 0
    for path, summary in summaries(folder):
        count += 1
        if len(files) < most:
            files.append(_row(os.path.relpath(path, folder), summary, names))
    temporary = folder / f".{INDEX}.{os.getpid()}"
    try:
        with temporary.open("w", encoding="utf-8") as out:
            _write(out, folder, {"labels": list(names), "files": files, "omitted": count - len(files)})
        temporary.replace(folder / (OTHER_INDEX if read_summary(folder / INDEX) else INDEX))
    finally:
        temporary.unlink(missing_ok=True)
    return count


def summaries(folder: Path) -> Iterator[tuple[Path, PageSummary]]:
    """The timelines in this folder and below it with their summaries, in the order of their paths.

    Pages that are not complete are left out.
    """
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(set(folders) - {HIDDEN})
        for name in sorted(files):
            path = Path(parent, name)
            if name.endswith(".html") and not name.startswith(".") and (summary := read_summary(path)):
                yield path, summary


def read_summary(page: Path) -> PageSummary | None:
    """The summary of a page; None if this is no timeline, or one of a later format."""
    try:
        with page.open("rb") as file:
            head = file.read(HEAD_BYTES)
            begin = head.find(BEGIN)
            if begin < 0:
                return None
            head = head[begin + len(BEGIN) :]
            while (end := head.find(END)) < 0 and len(head) < SUMMARY_BYTES and (more := file.read(HEAD_BYTES * 4)):
                head += more
        summary = msgspec.json.decode(head[:end], type=PageSummary) if end >= 0 else None
    except (OSError, msgspec.MsgspecError):
        return None
    return summary if summary and summary.format == FORMAT else None


def _row(path: str, summary: PageSummary, names: dict[str, int]) -> list[Any]:
    """A file as the index has it: address, name, length, error, labels."""
    labels = [
        (names.setdefault(each.name, len(names)), each.events, each.total_s, each.first_s, each.peak)
        for each in summary.labels
    ]
    return [quote(os.fsencode(path)), summary.file, summary.duration_s, summary.error, labels]


def _write(out: IO[str], folder: Path, index: dict[str, Any]) -> None:
    name = os.fsencode(folder.absolute().name or "/").decode(errors="replace")
    title = text(f"{name} - labels").removeprefix("<bdi>").removesuffix("</bdi>")
    texts = {"version": __version__, "title": title, "name": text(name)}
    assembled("index").write(out, texts, lambda out: write_json(out, "index", index))
