"""Signals: flags that a loop reads, handlers that are put back, and the end of a parent. Knows nothing of the loop."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Self

from perceiverd.core.logs import log_event

STOP = (signal.SIGTERM, signal.SIGINT)
PR_SET_PDEATHSIG = 1  # from linux/prctl.h


@contextlib.contextmanager
def handling(numbers: tuple[signal.Signals, ...], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Call `handler` for these signals while the context is open; its end puts the old handlers back."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextlib.contextmanager
def stopping(logger: logging.Logger, stop: Callable[[], None]) -> Iterator[None]:
    """Log SIGTERM and SIGINT and call `stop` while the context is open. A second SIGINT has its default action."""

    def receive(number: int, _: FrameType | None) -> None:
        log_event(logger, logging.INFO, "signal-received", name=signal.Signals(number).name)
        stop()
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)

    with handling(STOP, receive):
        yield


def die_with_parent() -> None:
    """Let the kernel kill this process when the thread that started it ends, however that ends."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class SignalFlags:
    """Sets flags while its context is open; its end puts the old handlers back.

    SIGHUP asks for a reload. Until `defer_stop`, SIGTERM and SIGINT end the process at once, by the kernel's default
    action: a start that takes minutes need not be waited for. After it they ask the loop to stop, and only a second
    SIGINT ends the process at once.
    """

    def __init__(self) -> None:
        self.should_stop = self.should_reload = False
        self.stopped_by: str | None = None
        """The name of the signal that asked to stop."""
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, signal.SIG_DFL) for number in STOP}
        self._before[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._reload)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def defer_stop(self) -> None:
        """From now on SIGTERM and SIGINT set `should_stop`."""
        for number in STOP:
            signal.signal(number, self._stop)

    def _stop(self, number: int, _: FrameType | None) -> None:
        self.should_stop, self.stopped_by = True, signal.Signals(number).name
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)

    def _reload(self, *_: object) -> None:
        self.should_reload = True
