"""What all commands share: exit statuses, error lines, standard output, options. Knows no command.

Kept light: `perceiverd --help` loads it.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from perceiverd.core.errors import PerceiverdError

EXIT_FAILED = 1
EXIT_CONFIG = 78
"""The configuration or model cannot be used (EX_CONFIG). systemd does not restart the service after this status."""
EXIT_INTERRUPTED = 130
"""What a shell reports after SIGINT. `run` ends with 0 instead, because Ctrl-C is the normal way to end it by hand."""
EXIT_BROKEN_PIPE = 141
"""What a shell reports after SIGPIPE. Wrong usage is 2; typer sets it."""

MODEL = typer.Option(help="Name of a bundled or imported model, or a model's folder.", metavar="NAME|FOLDER")
DEVICE = typer.Option(help="auto (the first GPU, otherwise the CPU), cpu, cuda or cuda:N.", metavar="DEVICE")
ENDPOINT_HELP = "The daemon's endpoint: ipc://PATH or tcp://HOST:PORT."
ENDPOINT = typer.Argument(help=ENDPOINT_HELP, metavar="ENDPOINT")
SERVER_KEY = typer.Option(help="The daemon's public key file, if the daemon encrypts.", metavar="FILE")
SECRET_KEY = typer.Option(help="Your own secret key file, if the daemon encrypts.", metavar="FILE")
CONFIG_HELP = "Configuration file (TOML). Annotated example: /usr/local/share/doc/perceiverd/perceiverd.toml"


def report(error: PerceiverdError) -> None:
    """Print the error as one line on standard error."""
    print(f"perceiverd: {error}", file=sys.stderr)


@contextmanager
def output() -> Iterator[None]:
    """Handle a standard output that can no longer be written.

    If its reader has closed the pipe (`| head`), the program ends silently with EXIT_BROKEN_PIPE. If the disk is full,
    PerceiverdError is raised.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ENOSPC, errno.EDQUOT):
            raise
        # Python flushes standard output again at exit; what is still buffered must not fail a second time.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno == errno.EPIPE:
            raise typer.Exit(EXIT_BROKEN_PIPE) from error
        raise PerceiverdError(f"cannot write the output: {error.strerror}") from error
