"""Progress of a run on a terminal: a bar for all files, and one for the time within each file that is being tagged."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager
from datetime import timedelta
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from perceiverd.offline.decoding import shown_name
from perceiverd.offline.folders.spool import Spool
from perceiverd.offline.folders.tally import Current, Tally

NAME_COLUMNS = 40
"""The end of a longer name is shown: it differs more than the beginning."""


class Bars(AbstractContextManager["Bars"]):
    """On standard error if that is a terminal; otherwise nothing is drawn."""

    def __init__(self, tally: Tally, spool: Spool) -> None:
        self._tally, self._spool, self._began_s = tally, spool, time.monotonic()
        self._bars = Progress(
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            BarColumn(),
            TextColumn("{task.fields[text]}", markup=False, table_column=Column(no_wrap=True)),
            console=Console(stderr=True),
            transient=True,
            auto_refresh=False,  # `draw` does it: a thread of its own would miss states between two of its turns
            redirect_stdout=False,
            redirect_stderr=True,
            disable=not sys.stderr.isatty(),
        )
        self._files = self._bars.add_task("files", total=None, text="")
        self._each = [self._bars.add_task("", visible=False, text="") for _ in tally.workers]

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def draw(self) -> None:
        """Show the present counts."""
        if self._bars.disable:
            return
        done, total = self._done(), self._spool.size or None
        self._bars.update(self._files, completed=done, total=total, text=self._text())
        for bar, worker in zip(self._each, self._tally.workers, strict=True):
            if worker.found is None:
                self._bars.update(bar, visible=False)
                continue
            self._bars.update(
                bar,
                description=_shortened(shown_name(worker.found.name)),
                completed=worker.done_s,
                total=worker.length_s,
                text=_times(worker),
                visible=True,
            )
        self._bars.refresh()

    def _done(self) -> float:
        return self._tally.size + sum(worker.size_done for worker in self._tally.workers)

    def _text(self) -> str:
        tally, wall_s = self._tally, time.monotonic() - self._began_s
        more = "" if self._spool.is_complete else "+"
        parts = [f"{tally.files} of {self._spool.files}{more}", f"{tally.speed(wall_s):.0f}x real time"]
        if (left_s := tally.left_s(wall_s, self._spool.size)) is not None:
            parts.append(f"{clock(left_s)}{more} left")
        if tally.failed:
            parts.append(f"{tally.failed} failed")
        return ", ".join(parts)


def clock(seconds: float) -> str:
    """Hours, minutes and seconds: `0:03:12`."""
    return str(timedelta(seconds=round(seconds)))


def _times(worker: Current) -> str:
    length = f" of {clock(worker.length_s)}" if worker.length_s else ""
    return f"{clock(worker.done_s)}{length}"


def _shortened(name: str) -> str:
    printable = "".join(sign if sign.isprintable() else "?" for sign in name)
    return printable if len(printable) <= NAME_COLUMNS else "…" + printable[1 - NAME_COLUMNS :]
