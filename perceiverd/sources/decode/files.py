"""Whether a path is a file that can be read. Loads no FFmpeg, so that `config check` can ask as a source does."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from perceiverd.core.errors import MediaError


def check_file(path: Path) -> None:
    """Refuse what FFmpeg would fail on, block on, or explain badly. Raises MediaError."""
    name = os.fsencode(path).decode(errors="replace")
    try:
        info = path.stat()
    except FileNotFoundError:
        raise MediaError(f"{name}: there is no such file; check the path") from None
    except OSError as error:
        raise MediaError(f"{name}: cannot be opened ({error.strerror}); check the path and its permissions") from None
    if stat.S_ISDIR(info.st_mode):
        raise MediaError(f"{name}: is a directory; name the files in it")
    if not stat.S_ISREG(info.st_mode):
        raise MediaError(f"{name}: is a device or pipe, not a file; name a media file")
    if not info.st_size:
        raise MediaError(f"{name}: is empty (0 bytes); copy or record it again")
