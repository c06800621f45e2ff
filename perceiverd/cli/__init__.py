"""The command line: options into arguments, errors into one line, and terminal views.

Every command imports what it needs when it runs, so that `--help` answers at once.
"""

from perceiverd.cli.app import main

__all__ = ["main"]
