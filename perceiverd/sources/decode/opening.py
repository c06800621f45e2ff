"""Opens files and URLs with FFmpeg, and explains in one line why one cannot be opened. Knows no streams."""

from __future__ import annotations

import logging
import mmap
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import av
from av.codec.hwaccel import HWAccel
from av.container import InputContainer

from perceiverd.core.clock import Clock, now_ns
from perceiverd.core.errors import MediaError, Refused
from perceiverd.core.logs import log_event
from perceiverd.core.media import NS_PER_S
from perceiverd.sources.decode.boundary import ffmpeg_errors
from perceiverd.sources.decode.files import check_file
from perceiverd.sources.decode.pipes import MP4_BOXES, PipeReader
from perceiverd.sources.specs import RawFormat, shown

logger = logging.getLogger("perceiverd.sources")

NOT_MEDIA = frozenset({"tty"})
"""Formats as which FFmpeg renders plain text to video."""
INDEX_LAST = (
    "its index (moov) is at its end, and a pipe cannot go back; name the file itself, or write it with FFmpeg's "
    "-movflags +faststart"
)


class Rest:
    """What is left of a time, for PyAV, which gives its whole time-out to each of the two steps of opening.

    It reads the number of seconds when a step begins. This is no float, because PyAV would then read it only once.
    """

    def __init__(self, seconds: float, clock: Clock = now_ns) -> None:
        self._clock, self._until_ns = clock, clock() + round(seconds * NS_PER_S)

    def __float__(self) -> float:
        """The seconds that are left; never below 0, which PyAV would read as no time-out."""
        return max(0, self._until_ns - self._clock()) / NS_PER_S


Why = Callable[[av.FFmpegError], tuple[str, Refused]]
"""Why a URL could not be opened and what to do, and whether it was refused."""


def open_container(
    what: Path | str | PipeReader,
    options: Mapping[str, str],
    open_timeout_s: float | None,
    read_timeout_s: float | None,
    why: Why | None = None,
    raw: RawFormat | None = None,
    *,
    hardware: bool = False,
) -> InputContainer:
    """Open a file (Path), URL (str) or pipe; `raw` says what it holds if it has no container. Raises MediaError.

    `hardware`: an NVIDIA GPU decodes the video, if there is one that can.

    All of opening takes at most `open_timeout_s`: connecting, the header, and the search for streams.
    """
    name = name_of(what)
    address: str | PipeReader
    if isinstance(what, Path):
        check_file(what)
        # With the prefix, FFmpeg does not read a colon in a file's name as a protocol. With the white list, a playlist
        # that is named like a clip cannot reach into the network.
        address, options = f"file:{what}", {"protocol_whitelist": "file,crypto,data", **options}
    else:
        address = what
    form = None
    if raw is not None:
        form, options = raw.format, {**options, "sample_rate": str(raw.rate_hz), "ch_layout": raw.layout}
    began_ns = now_ns()
    try:
        container = _opened(address, options, (open_timeout_s, read_timeout_s), form, hardware=hardware)
    except av.FFmpegError as error:
        # For RTSP, FFmpeg reports an interruption as damaged data, so the time decides what it was.
        lasted_ns = now_ns() - began_ns
        if open_timeout_s is not None and lasted_ns >= open_timeout_s * NS_PER_S:
            raise _too_slow(name, open_timeout_s) from None
        if isinstance(what, str) and read_timeout_s is not None and lasted_ns >= read_timeout_s * NS_PER_S:
            how = f"accepted a connection and did not answer for {read_timeout_s:g} s"
            raise MediaError(f"{name}: {how}; check the device and the network") from None
        if why:
            text, refused = why(error)
            raise MediaError(f"{name}: {text}", refused) from None
        raise _explained(what, name, error) from None
    except IndexError:  # PyAV 18 for a file without streams
        raise MediaError(f"{name}: has neither audio nor video; name a media file") from None
    if container.format.name in NOT_MEDIA:
        container.close()
        raise MediaError(f"{name}: is text, neither audio nor video; name a media file")
    # FFmpeg does not report that its search for streams was interrupted.
    if open_timeout_s is not None and now_ns() - began_ns >= open_timeout_s * NS_PER_S:
        container.close()
        raise _too_slow(name, open_timeout_s)
    return container


def _too_slow(name: str, open_timeout_s: float) -> MediaError:
    return MediaError(f"{name}: does not answer within {open_timeout_s:g} s; check the device and the network")


def open_part(path: Path, at: int, end: int = 0) -> InputContainer:
    """Open what begins at byte `at` of a file and ends before byte `end`; 0 is the file's end. Raises MediaError."""
    address = f"subfile,,start,{at},end,{end},,:file:{path}"
    try:
        return _opened(address, {"protocol_whitelist": "file,subfile"}, (None, None))
    except av.FFmpegError as error:
        raise _explained(path, str(path), error) from None


def _opened(
    address: str | PipeReader,
    options: Mapping[str, str],
    timeout: tuple[float | None, float | None],
    form: str | None = None,
    *,
    hardware: bool = False,
) -> InputContainer:
    open_s, read_s = timeout

    def opened(hwaccel: HWAccel | None) -> InputContainer:
        both = (None if open_s is None else cast(float, Rest(open_s)), read_s)
        with ffmpeg_errors():
            # Titles and languages may be any bytes.
            return av.open(
                address,
                "r",
                format=form,
                options=dict(options),
                timeout=both,
                metadata_errors="replace",
                hwaccel=hwaccel,
            )

    if hardware:
        try:
            return opened(HWAccel("cuda", allow_software_fallback=True))
        except (av.FFmpegError, NotImplementedError, RuntimeError) as error:  # no driver, or a codec that it lacks
            log_event(logger, logging.DEBUG, "gpu-decoder-unusable", reason=str(error))
    return opened(None)


def name_of(what: Path | str | PipeReader) -> str:
    """What errors call it; holds no secret."""
    match what:
        case Path():
            return os.fsencode(what).decode(errors="replace")
        case PipeReader():
            return what.name
        case _:
            return shown(what)


def message_of(error: av.FFmpegError) -> str:
    """FFmpeg's message without the address, which may hold a password."""
    if isinstance(error, av.error.MemoryError):
        # FFmpeg refuses to allocate 2 GB at once. No table and no packet is so large: the number is damaged.
        return "one of its parts claims to be larger than 2 GB"
    return error.strerror or type(error).__name__


def _explained(what: Path | str | PipeReader, name: str, error: av.FFmpegError) -> MediaError:
    """Why opening failed, and what to do."""
    if isinstance(what, str):
        return MediaError(f"{name}: cannot be opened ({message_of(error)}); check the URL, the device and the network")
    if isinstance(what, PipeReader):
        return MediaError(f"{name}: {_wrong_with_pipe(what, error)}")
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
    return MediaError(f"{name}: cannot be opened ({message_of(error)}); it is damaged, or no media file")


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


def _wrong_with_pipe(pipe: PipeReader, error: av.FFmpegError) -> str:
    if not pipe.head:
        return "nothing came through the pipe; check the program that writes into it"
    if pipe.is_mp4_stream():
        return INDEX_LAST
    if isinstance(error, av.error.InvalidDataError):
        return "is neither audio nor video that FFmpeg knows; for samples without a container, say which they are"
    return f"cannot be read ({message_of(error)}); check the program that writes into it"
