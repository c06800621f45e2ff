"""Which programs have a device open, as far as /proc tells: a confined service sees none but its own."""

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


def holders(node: str | Path) -> tuple[DeviceUser, ...]:
    """The other programs that have this device node open."""
    try:
        wanted = Path(node).stat().st_rdev
    except OSError:
        return ()
    found: list[DeviceUser] = []
    for folder in PROC.iterdir():
        if folder.name.isdecimal() and int(folder.name) != os.getpid() and _has(folder / "fd", wanted):
            try:
                name = (folder / "comm").read_text(errors="replace").strip()
            except OSError:
                continue  # it has just ended
            found.append(DeviceUser(int(folder.name), name))
    return tuple(found)


def told(node: str | Path) -> str:
    """The same in words: `cheese (pid 4711)`, `another program` where that can't be seen."""
    return ", ".join(map(str, holders(node))) or "another program"


def _has(descriptors: Path, device: int) -> bool:
    try:
        entries = list(descriptors.iterdir())
    except OSError:  # it has just ended, or belongs to someone else
        return False
    for entry in entries:
        try:
            # The link's name first: opening what it names could block, and most descriptors are no device.
            if str(entry.readlink()).startswith("/dev/") and entry.stat().st_rdev == device:
                return True
        except OSError:
            continue
    return False
