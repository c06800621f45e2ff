"""Which programs have a device open, as far as /proc shows it: a confined service sees only its own processes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class DeviceUser:
    """A program that has a device open."""

    pid: int
    name: str

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})"


def users_of(node: str | Path) -> tuple[DeviceUser, ...]:
    """The other programs that have this device node open."""
    try:
        wanted = Path(node).stat().st_rdev
    except OSError:
        return ()
    found: list[DeviceUser] = []
    for folder in PROC.iterdir():
        if folder.name.isdecimal() and int(folder.name) != os.getpid() and _has_open(folder / "fd", wanted):
            try:
                name = (folder / "comm").read_text(errors="replace").strip()
            except OSError:
                continue  # it has just ended
            found.append(DeviceUser(int(folder.name), name))
    return tuple(found)


def describe_users(node: str | Path) -> str:
    """The same as text: `cheese (pid 4711)`, or `another program` if /proc does not show it."""
    return ", ".join(map(str, users_of(node))) or "another program"


def _has_open(descriptors: Path, device: int) -> bool:
    try:
        entries = list(descriptors.iterdir())
    except OSError:  # it has just ended, or belongs to another user
        return False
    for entry in entries:
        try:
            # We read the link's name first: most descriptors are no device, and to stat what it names could block.
            if str(entry.readlink()).startswith("/dev/") and entry.stat().st_rdev == device:
                return True
        except OSError:
            continue
    return False
