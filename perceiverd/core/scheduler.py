"""How long a process has waited for a core: on a busy machine it is slow without being at fault.

The kernel counts this for each thread, in proc(5)'s `schedstat`. A kernel that was built without it gives 0.
"""

from __future__ import annotations

from pathlib import Path


def waited_ns(pid: int) -> int:
    """How long the main thread of a process has waited for a core since it began, in nanoseconds."""
    return _waited_ns(Path(f"/proc/{pid}/schedstat"))


def all_waited_ns(pid: int) -> int:
    """The sum over all present threads of a process. It falls when a thread ends."""
    try:
        return sum(_waited_ns(thread / "schedstat") for thread in Path(f"/proc/{pid}/task").iterdir())
    except OSError:  # the process is gone
        return 0


def _waited_ns(path: Path) -> int:
    try:
        return int(path.read_text().split()[1])  # time on a core, time in the queue for one, number of turns
    except (OSError, ValueError, IndexError):
        return 0
