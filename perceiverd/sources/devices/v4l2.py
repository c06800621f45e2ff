"""Which cameras exist and which modes they offer, from the kernel: V4L2's own requests, without a library.

Captures no frames. A broken driver may hang in any of these calls, so they belong into a process that can be killed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from perceiverd.core.errors import MediaError
from perceiverd.sources.devices.usage import describe_users

DEV = Path("/dev")
STABLE = ("v4l/by-id", "v4l/by-path")
"""Folders of links to nodes, with names that stay the same after each boot; the first is the better one."""

# From linux/videodev2.h: numbers of requests, capabilities, buffer types.
QUERYCAP, ENUM_FMT, REQBUFS, ENUM_FRAMESIZES, ENUM_FRAMEINTERVALS = 0, 2, 8, 74, 75
CAPTURE, CAPTURE_MPLANE, META_CAPTURE, M2M, M2M_MPLANE, STREAMING = 0x1, 0x1000, 0x800000, 0x8000, 0x4000, 0x4000000
DEVICE_CAPS = 0x80000000
BUF_CAPTURE, BUF_CAPTURE_MPLANE, MEMORY_MMAP = 1, 9, 1
DISCRETE = 1
READ, WRITE = 2, 1
LONGEST_LIST = 64
"""We read at most this many entries of a list, because a driver may never end it."""
USUAL_SIZES = ((320, 240), (640, 480), (1280, 720), (1920, 1080))
"""Offered for a camera that accepts any size within bounds."""
USUAL_FPS = 30.0
"""Assumed if a driver does not say."""

READABLE = ("YUYV", "UYVY", "NV12", "NV21", "YU12", "YV12", "BGR3", "RGB3", "MJPG", "JPEG", "GREY")
"""Formats that OpenCV converts to RGB, the cheapest first. Compressed ones cost ten times more; GREY has no colours."""


@dataclass(frozen=True, slots=True, order=True)
class Mode:
    """A format, size and rate in which a camera can deliver."""

    format: str
    """Its four letters, such as YUYV or MJPG."""
    width: int
    height: int
    fps: float

    def __str__(self) -> str:
        return f"{self.width}x{self.height} {self.format} at {self.fps:.4g}/s"


@dataclass(frozen=True, slots=True)
class DeviceNode:
    """A V4L2 node. A camera may have several, of which one delivers video."""

    path: str
    name: str
    bus: str
    """Where it is plugged in; the same for all nodes of one camera."""
    captures: bool
    """Whether it delivers video."""
    planes: bool
    """Whether it delivers only frames with several planes."""

    def __str__(self) -> str:
        return f"{self.path} ({self.name})"


def resolve(device: str | int) -> str:
    """The path of a configured device. Opens nothing. Raises MediaError if there is no such device."""
    if isinstance(device, int) or device.isdecimal():
        path = str(DEV / f"video{int(device)}")
    elif device.startswith("/"):
        path = device
    else:
        path = next((str(each) for folder in STABLE if (each := DEV / folder / device).exists()), device)
    if path.startswith("/") and Path(path).exists():
        return path
    raise MediaError(f"camera {path}: there is no such device; {_alternatives()}")


def paths() -> list[str]:
    """All V4L2 nodes, in the order of their numbers."""
    nodes = [node for node in DEV.glob("video*") if node.name[5:].isdecimal()]
    return [str(node) for node in sorted(nodes, key=lambda node: int(node.name[5:]))]


def stable(path: str) -> str | None:
    """The node's name that stays the same after each boot; None if udev gave it none."""
    for folder in STABLE:
        for link in sorted((DEV / folder).glob("*")) if (DEV / folder).is_dir() else ():
            if os.path.realpath(link) == os.path.realpath(path):
                return str(link)
    return None


def node(path: str) -> DeviceNode:
    """What this node is. Raises MediaError if it cannot be opened or is no V4L2 node."""
    with _opened(path) as descriptor:
        return _node(path, descriptor)


def modes(path: str) -> tuple[Mode, ...]:
    """All modes of the node; empty if its driver does not list them. Raises MediaError as `node` does."""
    with _opened(path) as descriptor:
        found = _node(path, descriptor)
        kind = BUF_CAPTURE_MPLANE if found.planes else BUF_CAPTURE
        return tuple(dict.fromkeys(_modes(descriptor, kind)))


def busy(path: str) -> bool:
    """Whether another program captures from it now. Requests a buffer to find out, and returns it."""
    with _opened(path) as descriptor:
        kind = BUF_CAPTURE_MPLANE if _node(path, descriptor).planes else BUF_CAPTURE
        try:
            _request(descriptor, REQBUFS, struct.pack("=5I", 1, kind, MEMORY_MMAP, 0, 0))
            _request(descriptor, REQBUFS, struct.pack("=5I", 0, kind, MEMORY_MMAP, 0, 0))
        except OSError as error:
            return error.errno == errno.EBUSY
        return False


def check(path: str) -> DeviceNode:
    """The node, if it delivers video. Raises MediaError: one line with what is wrong and what to do."""
    here = node(path)
    if here.captures:
        return here
    others: list[DeviceNode] = []
    for other in paths():
        try:
            others.append(node(other))
        except MediaError:
            continue
    sibling = next((each for each in others if each.captures and each.bus == here.bus), None)
    hint = f"its video comes from {sibling.path}" if sibling else "`perceiverd devices` shows the cameras"
    raise MediaError(f"camera {path}: delivers no video ({here.name} has several nodes); {hint}")


def _node(path: str, descriptor: int) -> DeviceNode:
    try:
        answer = _request(descriptor, QUERYCAP, bytes(104))
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EINVAL):
            raise MediaError(f"camera {path}: is no camera; {_alternatives()}") from None
        raise MediaError(f"camera {path}: does not answer ({error.strerror}); unplug it and plug it in again") from None
    _, name, bus, _, all_caps, own_caps = struct.unpack_from("=16s32s32s3I", answer)
    caps = own_caps if all_caps & DEVICE_CAPS else all_caps
    captures = bool(caps & (CAPTURE | CAPTURE_MPLANE)) and not caps & (M2M | M2M_MPLANE)
    return DeviceNode(path, _text(name), _text(bus), captures, planes=not caps & CAPTURE)


def _modes(descriptor: int, kind: int) -> Iterator[Mode]:
    for index in range(LONGEST_LIST):
        try:
            answer = _request(descriptor, ENUM_FMT, struct.pack("=2I56x", index, kind))
        except OSError:
            return
        pixels = answer[44:48]
        for width, height in _sizes(descriptor, pixels):
            for fps in _rates(descriptor, pixels, width, height):
                yield Mode(_fourcc(pixels), width, height, fps)


def _sizes(descriptor: int, pixels: bytes) -> Iterator[tuple[int, int]]:
    for index in range(LONGEST_LIST):
        try:
            answer = _request(descriptor, ENUM_FRAMESIZES, struct.pack("=I4s36x", index, pixels))
        except OSError:
            return
        kind, width, most_width, _, height, most_height, _ = struct.unpack_from("=7I", answer, 8)
        if kind == DISCRETE:
            yield struct.unpack_from("=2I", answer, 12)
            continue
        yield from ((w, h) for w, h in USUAL_SIZES if width <= w <= most_width and height <= h <= most_height)
        yield most_width, most_height
        return


def _rates(descriptor: int, pixels: bytes, width: int, height: int) -> Iterator[float]:
    for index in range(LONGEST_LIST):
        try:
            answer = _request(descriptor, ENUM_FRAMEINTERVALS, struct.pack("=I4s2I36x", index, pixels, width, height))
        except OSError:
            if not index:
                yield USUAL_FPS
            return
        kind, *fractions = struct.unpack_from("=5I", answer, 16)
        shortest, longest = fractions[:2], fractions[2:]
        if shortest[0]:
            yield shortest[1] / shortest[0]
        if kind != DISCRETE:
            least = longest[1] / longest[0] if longest[0] else 0
            if shortest[0] and least < USUAL_FPS < shortest[1] / shortest[0]:
                yield USUAL_FPS
            return


@contextmanager
def _opened(path: str) -> Iterator[int]:
    try:
        # Non-blocking: some drivers wait in open for a device that another program uses.
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise MediaError(f"camera {path}: {_why(path, error)}") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _why(path: str, error: OSError) -> str:
    match error.errno:
        case errno.ENOENT:
            return f"there is no such device; {_alternatives()}"
        case errno.ENODEV | errno.ENXIO:  # the node may stay as long as a program has it open
            return "is gone; plug it in again"
        case errno.EACCES | errno.EPERM:
            return "this user may not open it; add the user to the group video (a service: SupplementaryGroups=video)"
        case errno.EBUSY:
            return f"is busy, {describe_users(path)} uses it; end that first"
        case errno.EISDIR:
            return f"is a directory; {_alternatives()}"
    return f"cannot be opened ({error.strerror}); unplug it and plug it in again"


def _alternatives() -> str:
    """Which devices there are instead; opens nothing."""
    nodes = paths()
    return (
        f"there are {', '.join(nodes)}"
        if nodes
        else "this machine has no camera; `perceiverd devices` lists all devices"
    )


def _request(descriptor: int, number: int, argument: bytes) -> bytes:
    direction = READ if number == QUERYCAP else READ | WRITE
    code = direction << 30 | len(argument) << 16 | ord("V") << 8 | number
    return fcntl.ioctl(descriptor, code, argument)


def _fourcc(pixels: bytes) -> str:
    """The four letters of a format; its highest bit means that samples have their high byte first."""
    letters = bytes(each & 0x7F for each in pixels)
    return _text(letters).rstrip() + ("-BE" if letters != pixels else "")


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode(errors="replace")
