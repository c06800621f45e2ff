"""What all commands share: exit statuses, error lines, standard output, options. Knows no command.

Kept light: `perceiverd --help` loads it.
"""

from __future__ import annotations

import codecs
import errno
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedWriter, FileIO, TextIOWrapper
from typing import TYPE_CHECKING

import typer

from perceiverd.core.errors import PerceiverdError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

EXIT_FAILED = 1
EXIT_CONFIG = 78
"""The configuration or model cannot be used (EX_CONFIG). systemd does not restart the service after this status."""
EXIT_INTERRUPTED = 130
"""What a shell reports after SIGINT. `run` ends with 0 instead, because Ctrl-C is the normal way to end it by hand."""
EXIT_BROKEN_PIPE = 141
"""What a shell reports after SIGPIPE. Wrong usage is 2; typer sets it."""

MODEL = typer.Option(help="Name of a bundled or imported model, or a model's folder.", metavar="NAME|FOLDER")
DEVICE = typer.Option(help="auto (the first GPU, otherwise the CPU), cpu, cuda or cuda:N.", metavar="DEVICE")
ENGINE = typer.Option(help="What computes the network; auto is onnxruntime on a CPU and torch on a GPU.")
ENDPOINT_HELP = "The daemon's endpoint: ipc://PATH or tcp://HOST:PORT."
ENDPOINT = typer.Argument(help=ENDPOINT_HELP, metavar="ENDPOINT")
SERVER_KEY = typer.Option(help="The daemon's public key file, if the daemon encrypts.", metavar="FILE")
SECRET_KEY = typer.Option(help="Your own secret key file, if the daemon encrypts.", metavar="FILE")
CONFIG_HELP = "Configuration file (TOML). Annotated example: /usr/local/share/doc/perceiverd/perceiverd.toml"


ESCAPES = "perceiverd-escapes"
"""Our handler of letters that an output's encoding lacks: it writes them as JSON does, so that JSON stays JSON."""
UNWRITABLE = {
    errno.EBADF: "it is closed",
    errno.ENOSPC: os.strerror(errno.ENOSPC),
    errno.EDQUOT: os.strerror(errno.EDQUOT),
    errno.EIO: os.strerror(errno.EIO),
}
"""Why standard output cannot be written, by error number; other errors are faults of the program."""


def report(error: PerceiverdError) -> None:
    """Print the error as one line on standard error."""
    print(f"perceiverd: {error}", file=sys.stderr)


def prepare_streams() -> None:
    """Make standard input, output and error usable, whatever the caller has passed.

    A closed one (`>&-`) would leave its number to the next file that is opened, and that file would get our output.
    Writing to a closed standard output then fails. A standard error that cannot be written swallows what is written:
    the work is done, and the exit status reports the error. Letters that an encoding lacks are escaped.
    """
    _fill_closed_descriptors()
    if sys.stdout is None:
        sys.stdout = TextIOWrapper(open(1, "wb", closefd=False), "utf-8")  # noqa: SIM115 - for the whole run
    codecs.register_error(ESCAPES, _escaped)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors=ESCAPES)
    if sys.stderr is sys.__stderr__:
        encoding = sys.stderr.encoding if sys.stderr else "utf-8"
        raw = BufferedWriter(_LossyFile(2, "wb", closefd=False))
        sys.stderr = TextIOWrapper(raw, encoding, ESCAPES, line_buffering=True, write_through=True)
    # A log line that cannot be written is lost; it would otherwise print a traceback.
    logging.raiseExceptions = False


class _LossyFile(FileIO):
    """A file that loses what cannot be written."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def _fill_closed_descriptors() -> None:
    """Open /dev/null on each standard descriptor that is closed; on standard output in a way that refuses to write."""
    for number, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # takes the lowest free number, which is this one
            os.set_inheritable(number, True)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    r"""The letters that cannot be encoded as `\uXXXX`; those beyond 16 bits as two surrogates, like JSON."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    pairs = (units[at : at + 2].hex() for at in range(0, len(units), 2))
    return "".join(f"\\u{pair}" for pair in pairs), error.end


@contextmanager
def output() -> Iterator[None]:
    """Handle a standard output that can no longer be written.

    If its reader has closed the pipe (`| head`), the program ends silently with EXIT_BROKEN_PIPE. If it is closed or
    the disk is full, PerceiverdError is raised.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.errno != errno.EPIPE and error.errno not in UNWRITABLE:
            raise
        discard_output()
        if error.errno == errno.EPIPE:
            raise typer.Exit(EXIT_BROKEN_PIPE) from error
        raise PerceiverdError(f"cannot write the output: {UNWRITABLE[error.errno or 0]}") from error


def discard_output() -> None:
    """Send what is still buffered nowhere: Python flushes standard output again at exit, and must not fail then."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
