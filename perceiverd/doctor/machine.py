"""Checks of the machine: cameras, sound cards, clock, memory, file descriptors. They change nothing."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

from perceiverd.doctor.checks import Finding

DAEMON_MB, TORCH_DAEMON_MB, SOURCE_MB = 300, 700, 120
"""Memory of the daemon with the bundled model in ONNX Runtime (measured: 206 MB) and in PyTorch on a CPU
(392 MB; a GPU needs more), and of one source's process (70 MB for 1080p, more for larger pictures)."""
MIN_DESCRIPTORS = 1024
DAEMON_DESCRIPTORS, SOURCE_DESCRIPTORS, MIN_SUBSCRIBERS = 64, 8, 32
"""Descriptors of the daemon and of one source, and the number of subscribers that must be possible (one each)."""
CGROUPS = Path("/sys/fs/cgroup")
CGROUP_FILES = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)
"""A container's memory limit, use, statistics and, in these, the key of cached files, which the kernel frees on demand;
for control groups of version 2, then of version 1."""
CLOCK_WATCH_S = 1.0
"""How long the clocks are compared."""
CLOCK_STEP_NS = 2_000_000
STA_UNSYNC, TIME_ERROR = 0x40, 5
"""The clock is not synchronised: a flag of the status, and a return value of adjtimex(2) (linux/timex.h)."""
RELEASED_S = 1_735_689_600
"""2025-01-01 in Unix time: no correct clock shows an earlier date."""


def cameras() -> Iterator[Finding]:
    """Each /dev/video* with its name, and whether this user may open it."""
    nodes = sorted(Path("/dev").glob("video[0-9]*"), key=lambda node: (len(node.name), node.name))
    if not nodes:
        yield Finding("cameras", "ok", "no camera is attached; network cameras and files do not need one")
        return
    names = [_first_line(Path("/sys/class/video4linux") / node.name / "name") for node in nodes]
    listed = ", ".join(f"{node} ({name})" for node, name in zip(nodes, names, strict=True))
    yield _access("cameras", listed, nodes, "video")


def sound_cards() -> Iterator[Finding]:
    """The ALSA devices that can record, and whether this user may open them."""
    nodes = sorted(Path("/dev/snd").glob("pcmC*D*c"))
    if not nodes:
        yield Finding("sound cards", "ok", "no microphone is attached; network audio and files do not need one")
        return
    names = _card_names()
    listed = ", ".join(f"{node.name} ({names.get(node.name[4:].partition('D')[0], 'no name')})" for node in nodes)
    yield _access("sound cards", listed, nodes, "audio")


def _card_names() -> dict[str, str]:
    """The name of each sound card by its number."""
    names = {}
    for line in _lines(Path("/proc/asound/cards")):
        number, _, rest = line.strip().partition(" ")
        if number.isdecimal():
            names[number] = rest.rpartition("- ")[2]
    return names


def sound_library(needed: bool) -> Iterator[Finding]:
    """PortAudio, which only microphones need."""
    try:
        ctypes.CDLL(ctypes.util.find_library("portaudio") or "libportaudio.so.2")
    except OSError as error:
        what = f"PortAudio cannot be loaded ({error})"
        if needed:
            do = "install it (Debian, Ubuntu: apt-get install libportaudio2)"
            yield Finding("sound library", "fault", f"{what}; a microphone needs it", do)
        else:
            yield Finding("sound library", "ok", f"{what}; no stream needs it")
    else:
        yield Finding("sound library", "ok", "PortAudio is installed; microphones need it")


def clock() -> Iterator[Finding]:
    """Whether UTC can be correct, is synchronised, and runs evenly."""
    if time.time() < RELEASED_S:
        today = time.strftime("%Y-%m-%d", time.gmtime())
        yield Finding("clock", "fault", f"the clock shows {today}, which is in the past", "set the clock")
    yield _synchronised()
    began_ns, began_utc_ns = time.monotonic_ns(), time.time_ns()
    time.sleep(CLOCK_WATCH_S)
    step_ns = (time.time_ns() - began_utc_ns) - (time.monotonic_ns() - began_ns)
    if abs(step_ns) > CLOCK_STEP_NS:
        what = f"UTC moved {step_ns / 1e6:+.0f} ms against the monotonic clock in one second: a program is setting it"
        do = "wait until it is set, or run only one time service; windows stay correct, but their UTC jumps"
        yield Finding("clock", "warning", what, do)


def _synchronised() -> Finding:
    timex = (ctypes.c_char * 512)()  # larger than the struct; all zeros: read only
    state = ctypes.CDLL(None, use_errno=True).adjtimex(timex)
    status = int.from_bytes(timex.raw[40:44], "little")  # timex.status, if a long has eight bytes
    if state == TIME_ERROR or (state >= 0 and status & STA_UNSYNC):
        what = "UTC is not synchronised: published times may be wrong"
        do = "start a time service (timedatectl set-ntp true); ignore this if the host of this guest sets the clock"
        return Finding("clock", "warning", what, do)
    if state < 0:
        return Finding("clock", "ok", "the kernel does not report whether UTC is synchronised")
    return Finding("clock", "ok", "UTC is synchronised")


def memory(sources: int, cgroups: Path = CGROUPS, *, in_torch: bool = False) -> Iterator[Finding]:
    """Whether there is enough memory for this many sources and the model, which may run in PyTorch."""
    need_mb = (TORCH_DAEMON_MB if in_torch else DAEMON_MB) + SOURCE_MB * sources
    free_mb = _free_mb(cgroups)
    what = (
        f"{free_mb} MB are free; the daemon needs about {need_mb} MB with {sources} source{'' if sources == 1 else 's'}"
    )
    if free_mb < need_mb:
        yield Finding("memory", "warning", what, "stop other programs, use fewer streams, or use a larger machine")
    else:
        yield Finding("memory", "ok", what)


def _free_mb(cgroups: Path) -> int:
    """Free memory of the machine, or of the container if that is less."""
    fields = dict(line.split(":", 1) for line in _lines(Path("/proc/meminfo")) if ":" in line)
    free_mb = int(fields.get("MemAvailable", "0").split()[0]) // 1024
    for limit_file, used_file, stat_file, cache_key in CGROUP_FILES:
        limit, used = (_first_line(cgroups / name) for name in (limit_file, used_file))
        if limit.isdecimal() and used.isdecimal():
            cached = dict(line.split()[:2] for line in _lines(cgroups / stat_file)).get(cache_key, "0")
            free_mb = min(free_mb, (int(limit) - int(used) + int(cached)) >> 20)
    return free_mb


def descriptors(sources: int) -> Iterator[Finding]:
    """Whether this process may open enough files and connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    subscribers = soft - DAEMON_DESCRIPTORS - SOURCE_DESCRIPTORS * sources
    what = f"the limit is {soft} open files (at most {hard}), enough for {max(0, subscribers)} subscribers"
    if soft < MIN_DESCRIPTORS or subscribers < MIN_SUBSCRIBERS:
        do = "ulimit -n 4096; the service has its own limit, LimitNOFILE=65536"
        yield Finding("descriptors", "warning", what, do)
    else:
        yield Finding("descriptors", "ok", what)


def _access(check: str, listed: str, nodes: list[Path], group: str) -> Finding:
    closed = [str(node) for node in nodes if not os.access(node, os.R_OK | os.W_OK)]
    if not closed:
        return Finding(check, "ok", listed)
    what = f"{listed}; this user may not open {', '.join(closed)}"
    do = f"usermod -aG {group} USER, then log out and in again; the service is in the group {group} already"
    return Finding(check, "warning", what, do)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _first_line(path: Path) -> str:
    return next(iter(_lines(path)), "no name")
