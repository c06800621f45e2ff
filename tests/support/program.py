"""Helpers of tests that run the real program: types of fixtures, and reading its output."""

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable

PROGRAM = [sys.executable, "-m", "perceiverd"]
DEADLINE_S = 100
"""How long a program may take to print what a test waits for: on a very busy machine its start takes a minute."""

Start = Callable[..., "subprocess.Popen[str]"]
"""The fixture `start`: runs `perceiverd ARGUMENTS` as a process with its output in the file `log`."""
Perceiverd = Callable[..., tuple[int, str, str]]
"""The fixture `perceiverd`: runs the command line in this process; exit status, standard output, standard error."""


def read_until(fd: int, pieces: list[bytes], meanwhile: Callable[[], None] = lambda: None) -> bytes:
    """Read from the descriptor until all pieces have come.

    A terminal hands over what was written piece by piece, later than the write returns: one read may lack the rest.
    """
    os.set_blocking(fd, False)
    text, end_s = b"", time.monotonic() + DEADLINE_S
    while not all(piece in text for piece in pieces):
        assert time.monotonic() < end_s, text.decode(errors="replace")
        meanwhile()
        time.sleep(0.05)
        try:
            text += os.read(fd, 65536)
        except BlockingIOError:
            continue
    return text


def read_to_the_end(terminal: int) -> bytes:
    """Read what was written to a terminal, until its other end is closed."""
    text = b""
    try:
        while piece := os.read(terminal, 65536):
            text += piece
    except OSError as error:  # Linux's way to say that the other end of a terminal is closed
        if error.errno != errno.EIO:
            raise
    return text
