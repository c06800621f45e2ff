"""Progress for the library: an element that changes in a notebook, a bar on a terminal, otherwise nothing.

A notebook shows HTML without any extension, so it needs no ipywidgets.
"""

from __future__ import annotations

import html
import sys
import time
from contextlib import AbstractContextManager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from perceiverd.core.media import NS_PER_S
from perceiverd.offline.decoding import shown_name

EVERY_S = 0.2
"""A notebook keeps each change of an element as a message, so it gets a few a second."""


class FileProgress(AbstractContextManager["FileProgress"]):
    """How far the current file is. This one shows nothing."""

    def __init__(self, files: int) -> None:
        """`files`: how many there will be."""
        self.files, self.number = files, 0
        self.name = ""
        self.done_s = 0.0
        self.length_s: float | None = None
        self._began_s = time.monotonic()
        self._earlier_s = 0.0

    def __exit__(self, *_: object) -> None:
        self.close()

    def begin(self, file: str) -> None:
        """Turn to the next file."""
        self._earlier_s += self.done_s
        self.number, self.name, self.done_s, self.length_s = self.number + 1, shown_name(file), 0.0, None
        self.show()

    def state_length(self, length_s: float) -> None:
        """The file states this length."""
        self.length_s = length_s

    def advance(self, done_ns: int) -> None:
        """So much of the file is tagged."""
        self.done_s = done_ns / NS_PER_S
        self.show()

    def speed(self) -> float:
        """Seconds of media per second."""
        return (self._earlier_s + self.done_s) / max(time.monotonic() - self._began_s, 1e-3)

    def show(self) -> None:
        """Show the present state."""

    def close(self) -> None:
        """Show nothing more."""


class _Handle(Protocol):
    """What IPython returns for something that it has displayed and that can change."""

    def update(self, shown: object) -> None: ...


class NotebookProgress(FileProgress):
    """A `<progress>` element and a line of text below the cell."""

    def __init__(self, files: int) -> None:
        super().__init__(files)
        from IPython.display import HTML, display

        self._html: Any = HTML
        self._shown_s = 0.0
        self._handle: _Handle = display(HTML(notebook_text(self)), display_id=True)

    def show(self) -> None:
        if time.monotonic() - self._shown_s >= EVERY_S:
            self._update(notebook_text(self))

    def close(self) -> None:
        self._update(html.escape(f"{self.number} of {self.files} files, {self.speed():.0f}x real time"))

    def _update(self, text: str) -> None:
        self._shown_s = time.monotonic()
        self._handle.update(self._html(text))


class TerminalProgress(FileProgress):
    """A bar on standard error."""

    def __init__(self, files: int) -> None:
        super().__init__(files)
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[text]}", markup=False),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=False,
        )
        self._bar = self._bars.add_task("", total=None, text="")
        self._bars.start()

    def show(self) -> None:
        text = f"{self.number} of {self.files}, {self.speed():.0f}x real time"
        self._bars.update(
            self._bar, description=self.name, completed=self.done_s, total=self.length_s, text=text, refresh=False
        )

    def close(self) -> None:
        self._bars.stop()


def notebook_text(state: FileProgress) -> str:
    """The present state as HTML: an element that a screen reader knows, and a line of text."""
    length_s = state.length_s and max(state.length_s, state.done_s)
    value = f' value="{state.done_s:.1f}" max="{length_s:.1f}"' if length_s else ""
    line = f"{state.name} ({state.number} of {state.files}), {state.done_s:.0f} s, {state.speed():.0f}x real time"
    return f'<progress style="width:20em"{value}></progress> {html.escape(line)}'


def progress_for(files: int, wanted: bool | None) -> FileProgress:
    """What shows the progress here; `wanted` is None to show it where a person looks."""
    if wanted is False:
        return FileProgress(files)
    if is_notebook():
        return NotebookProgress(files)
    return TerminalProgress(files) if wanted or sys.stderr.isatty() else FileProgress(files)


def is_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    module: Any = sys.modules.get("IPython")
    return module is not None and getattr(module.get_ipython(), "kernel", None) is not None
