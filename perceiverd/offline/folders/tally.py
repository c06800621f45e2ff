"""What a run has done so far, counted by several threads: its speed and the time left. Knows no terminal."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from perceiverd.core.media import NS_PER_S
from perceiverd.offline.folders.walk import Found


@dataclass(slots=True)
class Current:
    """The file that a worker is busy with. Only the worker changes it."""

    found: Found | None = None
    done_s: float = 0.0
    """Media that is tagged."""
    length_s: float | None = None
    """What the file states; None if it states nothing."""

    def begin(self, found: Found) -> None:
        """The worker turns to a file."""
        self.found, self.done_s, self.length_s = found, 0.0, None

    def advance(self, done_ns: int) -> None:
        """So much of the file is tagged."""
        self.done_s = done_ns / NS_PER_S

    def state_length(self, length_s: float) -> None:
        """The file states this length."""
        self.length_s = length_s

    @property
    def size_done(self) -> float:
        """Bytes of the file that are done, by its time."""
        if self.found is None or not self.length_s:
            return 0.0
        return self.found.size * min(1.0, self.done_s / self.length_s)


@dataclass(slots=True)
class Tally:
    """Counts of a run. Safe to use from several threads."""

    workers: list[Current]
    tagged: int = 0
    """Files with outputs, also those that could not be read to their end."""
    failed: int = 0
    """Files with an error."""
    skipped: int = 0
    """Files that were done before."""
    size: int = 0
    """Bytes of files that are done or skipped."""
    tagged_size: int = 0
    """Bytes of files that are done."""
    windows: int = 0
    media_s: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def files(self) -> int:
        """Files that are done or skipped."""
        return self.tagged + self.skipped + self._without_outputs

    _without_outputs: int = 0

    def skip(self, found: Found) -> None:
        """A file was done before."""
        with self._lock:
            self.skipped += 1
            self.size += found.size

    def add(self, found: Found, windows: int, media_s: float, *, failed: bool) -> None:
        """A file is done; it has outputs if it has windows."""
        with self._lock:
            self.tagged += windows > 0
            self._without_outputs += windows == 0
            self.failed += failed
            self.size += found.size
            self.tagged_size += found.size
            self.windows += windows
            self.media_s += media_s

    def speed(self, wall_s: float) -> float:
        """Seconds of media per second."""
        return (self.media_s + sum(worker.done_s for worker in self.workers)) / max(wall_s, 1e-3)

    def left_s(self, wall_s: float, total_size: int) -> float | None:
        """Seconds until all bytes are done, if those that are left take as long; None if nothing is known yet."""
        partly = sum(worker.size_done for worker in self.workers)
        done = self.tagged_size + partly
        return wall_s * max(0.0, total_size - self.size - partly) / done if done else None
