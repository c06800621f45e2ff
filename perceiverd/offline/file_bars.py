"""A progress bar for the file that is being tagged. It loads rich only if a terminal shows the bar."""

from __future__ import annotations

import sys
from typing import IO, TYPE_CHECKING, Any, Self

from perceiverd.core.media import NS_PER_S
from perceiverd.offline.decoding import shown_name

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class FileBars:
    """A context manager. The bar is on standard error, if that is a terminal and the records go elsewhere."""

    def __init__(self, out: IO[Any]) -> None:
        """`out`: where the records go."""
        self._bars: Progress | None = _progress() if sys.stderr.isatty() and not out.isatty() else None
        self._bar: TaskID | None = None

    def __enter__(self) -> Self:
        if self._bars:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars:
            self._bars.stop()

    @property
    def is_shown(self) -> bool:
        """Whether there are bars at all."""
        return self._bars is not None

    def begin(self, file: str) -> None:
        """Show a bar for this file."""
        if self._bars:
            self._bar = self._bars.add_task(shown_name(file), total=None)

    def set_length(self, length_s: float) -> None:
        """The file says that it is so long."""
        if self._bars and self._bar is not None:
            self._bars.update(self._bar, total=length_s)

    def advance(self, done_ns: int) -> None:
        """So much of the file is tagged."""
        if self._bars and self._bar is not None:
            self._bars.update(self._bar, completed=done_ns / NS_PER_S)

    def end(self) -> None:
        """Remove the file's bar."""
        if self._bars and self._bar is not None:
            self._bars.remove_task(self._bar)


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
    )
