"""Opens files and URLs with FFmpeg, and explains in one line why one cannot be opened. Knows no streams."""

from __future__ import annotations

import mmap
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

import av
from av.container import InputContainer

from perceiverd.core.clock import now_ns
from perceiverd.core.errors import MediaError, Refused
from perceiverd.core.media import NS_PER_S
from perceiverd.sources.decode.boundary import ffmpeg_errors
from perceiverd.sources.specs import shown

NOT_MEDIA = frozenset({"tty"})
"""Formats as which FFmpeg renders plain text to video."""
MP4_BOXES = (b"ftyp", b"mdat", b"moov", b"wide", b"free", b"skip")

Why = Callable[[av.FFmpegError], tuple[str, Refused]]
"""Why a URL could not be opened and what to do, and whether it was refused."""


def open_container(
    what: Path | str,
    options: Mapping[str, str],
    open_timeout_s: float | None,
    read_timeout_s: float | None,
    why: Why | None = None,
) -> InputContainer:
    """Open a file (Path) or URL (str). Raises MediaError."""
    name = name_of(what)
    if isinstance(what, Path):
        _check_file(what)
        # With the prefix, FFmpeg does not read a colon in a file's name as a protocol. With the white list, a playlist
        # that is named like a clip cannot reach into the network.
        address, options = f"file:{what}", {"protocol_whitelist": "file,crypto,data", **options}
    else:
        address = what
    began_ns = now_ns()
    try:
        container = _opened(address, options, (open_timeout_s, read_timeout_s))
    except av.FFmpegError as error:
        # For RTSP, FFmpeg reports an interruption as damaged data, so the time decides what it was.
        lasted_ns = now_ns() - began_ns
        if open_timeout_s is not None and lasted_ns >= open_timeout_s * NS_PER_S:
            how = f"does not answer within {open_timeout_s:g} s"
            raise MediaError(f"{name}: {how}; check the device and the network") from None
        if isinstance(what, str) and read_timeout_s is not None and lasted_ns >= read_timeout_s * NS_PER_S:
            how = f"accepted a connection and did not answer for {read_timeout_s:g} s"
            raise MediaError(f"{name}: {how}; check the device and the network") from None
        if why:
            text, refused = why(error)
            raise MediaError(f"{name}: {text}", refused) from None
        raise _explained(what, name, error) from None
    if container.format.name in NOT_MEDIA:
        container.close()
        raise MediaError(f"{name}: is text, neither audio nor video; name a media file")
    return container


def open_part(path: Path, at: int) -> InputContainer:
    """Open what begins at byte `at` of a file. Raises MediaError."""
    try:
        return _opened(f"subfile,,start,{at},end,0,,:file:{path}", {"protocol_whitelist": "file,subfile"}, (None, None))
    except av.FFmpegError as error:
        raise _explained(path, str(path), error) from None


def _opened(address: str, options: Mapping[str, str], timeout: tuple[float | None, float | None]) -> InputContainer:
    with ffmpeg_errors():
        # Titles and languages may be any bytes.
        return av.open(address, "r", options=dict(options), timeout=timeout, metadata_errors="replace")


def name_of(what: Path | str) -> str:
    """What errors call it; holds no secret."""
    return str(what) if isinstance(what, Path) else shown(what)


def message_of(error: av.FFmpegError) -> str:
    """FFmpeg's message without the address, which may hold a password."""
    return error.strerror or type(error).__name__


def _check_file(path: Path) -> None:
    """Refuse what FFmpeg would fail on, block on, or explain badly."""
    try:
        info = path.stat()
    except FileNotFoundError:
        raise MediaError(f"{path}: there is no such file; check the path") from None
    except OSError as error:
        raise MediaError(f"{path}: cannot be opened ({error.strerror}); check the path and its permissions") from None
    if stat.S_ISDIR(info.st_mode):
        raise MediaError(f"{path}: is a directory; name the files in it")
    if not stat.S_ISREG(info.st_mode):
        raise MediaError(f"{path}: is a device or pipe, not a file; name a media file")
    if not info.st_size:
        raise MediaError(f"{path}: is empty (0 bytes); copy or record it again")


def _explained(what: Path | str, name: str, error: av.FFmpegError) -> MediaError:
    """Why opening failed, and what to do."""
    if isinstance(what, str):
        return MediaError(f"{name}: cannot be opened ({message_of(error)}); check the URL, the device and the network")
    if isinstance(error, av.error.PermissionError):
        return MediaError(f"{name}: this user may not read it; give the user read permission")
    if isinstance(error, av.error.InvalidDataError):
        with what.open("rb") as file:
            head = file.read(12)
        if _is_encrypted(what, head):
            return MediaError(f"{name}: is encrypted; perceiverd cannot decrypt it")
        if head[4:8] in MP4_BOXES:
            return MediaError(f"{name}: breaks off before its index (moov), so nothing can be read; record it again")
        return MediaError(f"{name}: is neither audio nor video that FFmpeg knows; name a media file")
    return MediaError(f"{name}: cannot be opened ({message_of(error)}); check that it is a media file")


def _is_encrypted(path: Path, head: bytes) -> bool:
    """Whether an MP4 has a scheme of encryption (CENC), or a playlist names a key."""
    if head.startswith(b"#EXTM3U"):
        return any(
            line.startswith("#EXT-X-KEY:") and "METHOD=NONE" not in line
            for line in path.read_text(errors="replace").splitlines()
        )
    if head[4:8] not in MP4_BOXES:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.find(b"schm") >= 0 and (data.find(b"encv") >= 0 or data.find(b"enca") >= 0)
