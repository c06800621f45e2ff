"""The outputs of one file in a folder: written under other names, and given their own when all of them are complete."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any

from perceiverd.core.errors import MediaError, PerceiverdError
from perceiverd.offline.writers.formats import Format
from perceiverd.offline.writers.writer import Piece, RecordKind, Writer, WriterOptions

HIDDEN = ".perceiverd"
"""The folder, within that of the outputs, for the journal and for outputs that are not complete."""


class OutputError(PerceiverdError):
    """An output cannot be written: no later one could be either."""

    def __init__(self, folder: Path, error: OSError) -> None:
        super().__init__(
            f"{folder}: cannot write the outputs: {error.strerror or error}; correct this and run the same command "
            "again: it continues where this run stopped"
        )


class Outputs:
    """What a file's pieces become, in several formats. Use from one thread.

    Nothing has its final name until `commit`. After `discard`, or a kill, nothing has changed.
    """

    def __init__(
        self,
        folder: Path,
        formats: Sequence[Format],
        kinds: frozenset[RecordKind],
        part: str,
        embed_bytes: int = 0,
    ) -> None:
        """`kinds`: those that the user has chosen, or none. `part`: a name that no other worker uses."""
        self._folder, self._formats, self._kinds, self._part = folder, formats, kinds, part
        self._embed_bytes = embed_bytes
        self._open: list[tuple[Writer, IO[Any], Path, Path]] = []
        """Each output's writer, file, name until it is complete, and name after that."""

    def __bool__(self) -> bool:
        """Whether anything has been written since the last `commit`."""
        return bool(self._open)

    def targets(self, name: str) -> list[Path]:
        """The outputs of the file with this name."""
        return [self._folder / f"{name}{form.suffix}" for form in self._formats]

    def write(self, name: str, piece: Piece) -> None:
        """Write a piece of the file with this name into each output. Raises OutputError."""
        try:
            if not self._open:
                self._begin(name)
            for writer, *_ in self._open:
                writer.write(piece)
        except OSError as error:
            raise self._error(name, error) from error

    def commit(self, name: str) -> None:
        """Give the outputs their names. Raises OutputError."""
        try:
            for writer, file, *_ in self._open:
                writer.close()
                file.flush()
                os.fsync(file.fileno())  # a name for an empty file is what some file systems keep of a power failure
                file.close()
            for _, _, part, target in self._open:
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(part, target)
        except OSError as error:
            raise self._error(name, error) from error
        self._open.clear()

    def discard(self) -> None:
        """Remove what has been written since the last `commit`."""
        with ExitStack() as each:
            for _, file, part, _ in self._open:
                each.callback(part.unlink, missing_ok=True)
                each.callback(_close, file)
            self._open.clear()

    def _begin(self, name: str) -> None:
        for form, target in zip(self._formats, self.targets(name), strict=True):
            part = self._folder / HIDDEN / f"{self._part}{form.suffix}"
            file: IO[Any] = part.open("wb") if form.is_binary else part.open("w", encoding="utf-8", newline="")
            try:
                writer = form.make(file, WriterOptions(form.records(self._kinds), target, self._embed_bytes))
            except BaseException:
                _close(file)
                raise
            self._open.append((writer, file, part, target))

    def _error(self, name: str, error: OSError) -> PerceiverdError:
        if error.errno == errno.ENAMETOOLONG:  # only of this file
            return MediaError(f"{name}: its name is too long for the names of outputs; rename it")
        return OutputError(self._folder, error)


def _close(file: IO[Any]) -> None:
    """Close a file whose content is not wanted: what is still buffered may not fit on the disk."""
    with suppress(OSError):
        file.close()
