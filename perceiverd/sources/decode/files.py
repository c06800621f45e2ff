"""Whether a path is a file or a FIFO that can be read. Loads no FFmpeg: `config check` asks the same as a source."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from perceiverd.core.errors import MediaError


def check_pipe(path: Path) -> None:
    """Refuse what is no FIFO. Raises MediaError."""
    name = os.fsencode(path).decode(errors="replace")
    info = _status(path, name, f"there is no such FIFO; make it: mkfifo {name}")
    if stat.S_ISREG(info.st_mode):
        raise MediaError(f'{name}: is a file, not a FIFO; write kind = "file"')
    if not stat.S_ISFIFO(info.st_mode):
        raise MediaError(f"{name}: is no FIFO; name one that mkfifo has made")
    if not os.access(path, os.R_OK):
        raise MediaError(f"{name}: this user may not read it; give the user read permission")


def _status(path: Path, name: str, missing: str) -> os.stat_result:
    try:
        return path.stat()
    except FileNotFoundError:
        raise MediaError(f"{name}: {missing}") from None
    except OSError as error:
        raise MediaError(f"{name}: cannot be opened ({error.strerror}); check the path and its permissions") from None


def check_file(path: Path) -> None:
    """Refuse what FFmpeg would fail on, block on, or explain badly. Raises MediaError."""
    name = os.fsencode(path).decode(errors="replace")
    info = _status(path, name, "there is no such file; check the path")
    if stat.S_ISDIR(info.st_mode):
        raise MediaError(f"{name}: is a directory; name the files in it")
    if stat.S_ISFIFO(info.st_mode):
        raise MediaError(f'{name}: is a FIFO, not a file; write kind = "pipe"')
    if not stat.S_ISREG(info.st_mode):
        raise MediaError(f"{name}: is a device or socket, not a file; name a media file")
    if not info.st_size:
        raise MediaError(f"{name}: is empty (0 bytes); copy or record it again")
