"""Times that devices give, brought onto CLOCK_MONOTONIC. Pure: told what all the clocks say."""

from __future__ import annotations

from perceiverd.core.media import NS_PER_S

LATE_NS, EARLY_NS = 10 * NS_PER_S, NS_PER_S // 2
"""What was taken longer ago, or lies further ahead, was not stamped by the clock in question."""

LATELY = 64


def on_monotonic(device_ns: int, monotonic_ns: int, realtime_ns: int) -> int | None:
    """The time on CLOCK_MONOTONIC that a device means, by whichever clock of this machine it goes; None if by neither.

    Both clocks are read when the stamp comes in. PortAudio stamps by CLOCK_REALTIME through ALSA's plugins and by
    CLOCK_MONOTONIC from hardware, and a driver of V4L2 may do either; none of them says so.
    """
    for clock_ns in (monotonic_ns, realtime_ns):
        if -EARLY_NS <= clock_ns - device_ns <= LATE_NS:
            return device_ns - clock_ns + monotonic_ns
    return None


class PictureTimes:
    """When pictures were taken: by the kernel's stamps where those can be believed, else by when they came."""

    def __init__(self, fps: float) -> None:
        self._period_ns = round(NS_PER_S / fps)
        self._last_ns, self._ends = -1, False
        self._stamp_ns: int | None = None
        """The last stamp that could be believed, on CLOCK_MONOTONIC. What was told instead of one that could not may
        be later than the next one, which is no worse for that."""
        self.believed = self.arrived = 0
        """How many pictures got their time in which way."""
        self.late_ns = 0.0
        """How long after they were taken they come, lately."""

    def taken(self, stamp_ns: int, monotonic_ns: int, realtime_ns: int) -> int:
        """The time of a picture that came just now with this stamp. Never in the future, and never twice the same."""
        said_ns = on_monotonic(stamp_ns, monotonic_ns, realtime_ns) if stamp_ns > 0 else None
        if said_ns is not None and said_ns > monotonic_ns:
            # No picture comes before it was taken: this driver says when its last line will have been read.
            self._ends = True
        if said_ns is not None and self._ends:
            said_ns -= self._period_ns
        stood = said_ns is not None and self._stamp_ns is not None and said_ns <= self._stamp_ns
        self._stamp_ns = said_ns if said_ns is not None else self._stamp_ns
        if said_ns is None or stood:
            self.arrived += 1
            said_ns = monotonic_ns
        else:
            self.believed += 1
        self._last_ns = max(min(said_ns, monotonic_ns), self._last_ns + 1)
        self.late_ns += (monotonic_ns - self._last_ns - self.late_ns) / min(LATELY, self.believed + self.arrived)
        return self._last_ns
