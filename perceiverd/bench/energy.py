"""Energy that the processor packages have used, from the kernel's RAPL counters (Documentation/power/powercap)."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


def joules() -> float | None:
    """Joules of all packages since some moment; None if this machine has no counters, or only root may read them.

    The counters wrap about once an hour, so a difference may be negative.
    """
    files = _counters(POWERCAP)
    try:
        return sum(int(file.read_text(encoding="ascii")) for file in files) / 1e6 if files else None
    except (OSError, ValueError):
        return None


@lru_cache(maxsize=4)
def _counters(folder: Path) -> tuple[Path, ...]:
    """One file for each package: `intel-rapl:0`, but not its parts, such as `intel-rapl:0:0`."""
    return tuple(sorted(zone / "energy_uj" for zone in folder.glob("intel-rapl:*") if zone.name.count(":") == 1))
