"""Runs calls in a thread of its own, one after the other, while its owner does other work. It knows no engines."""

from __future__ import annotations

import atexit
import ctypes
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import TypeVar
from weakref import finalize

T = TypeVar("T")

EXIT_S = 5.0
"""How long the end of the program waits for a call that still runs."""
SOON_S = 0.1
"""How long it may take without being interrupted."""

_Call = tuple[Future[object], Callable[[], object]]


class BackgroundThread:
    """The thread begins with the first call, and ends with `close`, with its owner, or with the program.

    It stays between calls: PyTorch may keep cuBLAS's workspaces and cuDNN's plans for each thread, and CUDA graphs
    refer to them (pytorch#192061). It is a daemon thread: a driver may hang in a
    call for ever, and the program must end nevertheless.
    """

    def __init__(self, name: str) -> None:
        self._name, self._calls = name, SimpleQueue[_Call | None]()
        self._thread: threading.Thread | None = None
        self._at_exit: Callable[[], bool] = bool
        self.stopping = threading.Event()
        """Set when the thread is to end; a long call looks at it."""
        finalize(self, _ask_to_end, self._calls, self.stopping).atexit = False

    def start(self, call: Callable[[], T]) -> Future[T]:
        """Run this after the calls before it. The result has its exception too. Raises RuntimeError after `close`."""
        if self.stopping.is_set():
            raise RuntimeError(f"the thread {self._name} has ended")
        if self._thread is None:
            # Not a method: the thread must not keep its owner alive.
            self._thread = threading.Thread(target=_work, args=(self._calls,), name=self._name, daemon=True)
            self._thread.start()
            self._at_exit = atexit.register(partial(_end, self._thread, self._calls, self.stopping, EXIT_S))
        future: Future[T] = Future()
        self._calls.put((future, call))  # type: ignore[arg-type]  # the future has the type of its own call
        return future

    def close(self, wait_s: float = EXIT_S) -> bool:
        """Ask the thread to end, and wait for it; False if its call has not ended by then. May be called again."""
        atexit.unregister(self._at_exit)
        return _end(self._thread, self._calls, self.stopping, wait_s)


def _work(calls: SimpleQueue[_Call | None]) -> None:
    while (one := calls.get()) is not None:
        future, call = one
        try:
            result = call()
        except BaseException as error:  # raised again where the result is asked for
            future.set_exception(error)
        else:
            future.set_result(result)
            del result  # the owner may want to free it
        del one, future, call


def _ask_to_end(calls: SimpleQueue[_Call | None], stopping: threading.Event) -> None:
    stopping.set()
    calls.put(None)


def _end(
    thread: threading.Thread | None, calls: SimpleQueue[_Call | None], stopping: threading.Event, wait_s: float
) -> bool:
    _ask_to_end(calls, stopping)
    if thread is None or thread.ident is None:
        return True
    thread.join(SOON_S)
    if thread.is_alive():
        # It ends at its next line of Python, not some seconds later. If a daemon thread still runs when Python ends and
        # returns from C++ then, it aborts the process (bpo-42969).
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))
        thread.join(wait_s)
    return not thread.is_alive()
