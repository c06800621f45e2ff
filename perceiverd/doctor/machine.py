"""What the daemon stands on: devices, clock, memory, descriptors, libraries. Looks, and changes nothing."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

from perceiverd.doctor.checks import Finding

DAEMON_MB, SOURCE_MB = 700, 120
"""What the daemon takes with the bundled model, and what a source's process does."""
FEW_DESCRIPTORS = 1024
GROUPS = Path("/sys/fs/cgroup")
LIMITS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)
"""What a container may take, what it takes, and how much of that is of files lately read, which the kernel gives back
when asked: in the second version of control groups and in the first."""
WATCHED_S = 1.0
"""How long the clocks are watched."""
STEP_NS = 2_000_000
STA_UNSYNC, TIME_ERROR = 0x40, 5
"""From the kernel's timex.h: no program has set the clock lately."""
RELEASED = 1_735_689_600
"""2025: no clock that is right shows less."""


def cameras() -> Iterator[Finding]:
    """The nodes of /dev/video*, by name, and whether this user may open them."""
    nodes = sorted(Path("/dev").glob("video[0-9]*"), key=lambda node: (len(node.name), node.name))
    if not nodes:
        yield Finding("cameras", "ok", "no attached camera here; cameras on the network and clips need none")
        return
    told = ", ".join(f"{node} ({_first_line(Path('/sys/class/video4linux') / node.name / 'name')})" for node in nodes)
    yield _openable("cameras", told, nodes, "video")


def sound_cards() -> Iterator[Finding]:
    """The ALSA devices that record, and whether this user may open them."""
    nodes = sorted(Path("/dev/snd").glob("pcmC*D*c"))
    if not nodes:
        yield Finding("sound cards", "ok", "no attached microphone here; sound from the network and clips needs none")
        return
    names = {}
    for line in _lines(Path("/proc/asound/cards")):
        number, _, rest = line.strip().partition(" ")
        if number.isdecimal():
            names[number] = rest.rpartition("- ")[2]
    told = ", ".join(f"{node.name} ({names.get(node.name[4:].partition('D')[0], 'no name')})" for node in nodes)
    yield _openable("sound cards", told, nodes, "audio")


def sound_library(needed: bool) -> Iterator[Finding]:
    """PortAudio, which only microphones need."""
    try:
        ctypes.CDLL(ctypes.util.find_library("portaudio") or "libportaudio.so.2")
    except OSError as error:
        yield Finding(
            "sound library",
            "fault" if needed else "ok",
            f"PortAudio cannot be loaded ({error}); " + ("a microphone needs it" if needed else "no stream needs it"),
            "install it (Debian, Ubuntu: apt-get install libportaudio2)" if needed else "",
        )
    else:
        yield Finding("sound library", "ok", "PortAudio is there, for microphones")


def clock() -> Iterator[Finding]:
    """Whether UTC can be true, and whether the clocks go as they should."""
    if time.time() < RELEASED:
        today = time.strftime("%Y-%m-%d", time.gmtime())
        yield Finding("clock", "fault", f"it shows {today}, which is past", "set it, or see below")
    timex = (ctypes.c_char * 512)()  # larger than the struct: all zeros ask, and change nothing
    libc = ctypes.CDLL(None, use_errno=True)
    state = libc.adjtimex(timex)
    status = int.from_bytes(timex.raw[40:44], "little")  # its sixth field, where a long has eight bytes
    if state == TIME_ERROR or (state >= 0 and status & STA_UNSYNC):
        yield Finding(
            "clock",
            "warning",
            "UTC is not synchronised: labels may be told at wrong times",
            "switch on a time service (timedatectl set-ntp true), or leave it where the host sets the clock",
        )
    elif state < 0:
        yield Finding("clock", "ok", "whether UTC is synchronised cannot be asked here")
    else:
        yield Finding("clock", "ok", "UTC is synchronised")
    began, began_real = time.monotonic_ns(), time.time_ns()
    time.sleep(WATCHED_S)
    apart = (time.time_ns() - began_real) - (time.monotonic_ns() - began)
    if abs(apart) > STEP_NS:
        yield Finding(
            "clock",
            "warning",
            f"UTC went {apart / 1e6:+.0f} ms against the monotonic clock within a second: somebody sets it",
            "windows are not harmed, their UTC jumps; wait until it is set, or see that only one time service runs",
        )


def memory(sources: int, groups: Path = GROUPS) -> Iterator[Finding]:
    """Whether there is enough for the model and so many sources."""
    need = DAEMON_MB + SOURCE_MB * sources
    fields = dict(line.split(":", 1) for line in _lines(Path("/proc/meminfo")) if ":" in line)
    free = int(fields.get("MemAvailable", "0").split()[0]) // 1024
    for limit, used, stat, cached in LIMITS:
        most, now = (_first_line(groups / name) for name in (limit, used))
        if most.isdecimal() and now.isdecimal():
            cache = dict(line.split()[:2] for line in _lines(groups / stat)).get(cached, "0")
            free = min(free, (int(most) - int(now) + int(cache)) >> 20)
    what = f"{free} MB are free; the daemon takes about {need} MB with {sources} sources"
    if free < need:
        yield Finding("memory", "warning", what, "end other programs, watch fewer streams, or use a larger machine")
    else:
        yield Finding("memory", "ok", what)


def descriptors(sources: int) -> Iterator[Finding]:
    """How many files and connections may be open: a subscriber is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    rest = soft - 64 - 8 * sources
    what = f"{soft} open files are allowed here ({hard} if asked for), enough for {max(0, rest)} subscribers"
    if soft < FEW_DESCRIPTORS or rest < 32:
        yield Finding(
            "descriptors", "warning", what, "ulimit -n 4096; the service has its own limit, LimitNOFILE=65536"
        )
    else:
        yield Finding("descriptors", "ok", what)


def _openable(check: str, told: str, nodes: list[Path], group: str) -> Finding:
    closed = [str(node) for node in nodes if not os.access(node, os.R_OK | os.W_OK)]
    if not closed:
        return Finding(check, "ok", told)
    return Finding(
        check,
        "warning",
        f"{told}; this user may not open {', '.join(closed)}",
        f"usermod -aG {group} USER, and log in anew; the service has the group {group} already",
    )


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _first_line(path: Path) -> str:
    return next(iter(_lines(path)), "no name")
