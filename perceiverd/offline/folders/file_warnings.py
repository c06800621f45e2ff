"""Keeps the log lines that concern a file for the journal and the report, instead of printing them.

A run over many files would print one for each damaged file, and through the progress bars.
"""

from __future__ import annotations

import logging
import threading
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

MOST = 20
"""Lines that are kept for a file. A later one replaces none: the first ones say what is wrong."""


class FileWarnings(logging.Handler, AbstractContextManager["FileWarnings"]):
    """Takes what the package logs in threads that have called `begin`. Lines of other threads go where they went."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._logger = logging.getLogger("perceiverd")
        self._kept: dict[int, list[str]] = {}

    def __enter__(self) -> Self:
        self._logger.addHandler(self)
        self._logger.propagate = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._logger.removeHandler(self)
        self._logger.propagate = True

    def begin(self) -> None:
        """From now on, keep the lines of this thread."""
        self._kept[threading.get_ident()] = []

    def take(self) -> tuple[str, ...]:
        """The lines of this thread since `begin`."""
        return tuple(self._kept.pop(threading.get_ident(), ()))

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line, or pass it on."""
        kept = self._kept.get(threading.get_ident())
        if kept is None:
            logging.getLogger().handle(record)
        elif len(kept) < MOST:
            kept.append(record.getMessage())
