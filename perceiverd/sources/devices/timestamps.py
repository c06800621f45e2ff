"""Maps the time stamps of devices to CLOCK_MONOTONIC. Pure: the caller passes what all the clocks show."""

from __future__ import annotations

from perceiverd.core.media import NS_PER_S

LATE_NS, EARLY_NS = 10 * NS_PER_S, NS_PER_S // 2
"""A stamp further in the past or in the future than this was made by another clock."""

MEAN_FRAMES = 64
"""The mean lateness covers about this many frames."""


def on_monotonic(device_ns: int, monotonic_ns: int, realtime_ns: int) -> int | None:
    """A device's stamp as a time on CLOCK_MONOTONIC; None if it fits neither clock of this machine.

    The caller reads both clocks when the stamp arrives. PortAudio stamps with CLOCK_REALTIME through ALSA's plugins and
    with CLOCK_MONOTONIC from hardware; a V4L2 driver may use either. None of them says which.
    """
    for clock_ns in (monotonic_ns, realtime_ns):
        if -EARLY_NS <= clock_ns - device_ns <= LATE_NS:
            return device_ns - clock_ns + monotonic_ns
    return None


class FrameTimes:
    """The capture times of frames: from the kernel's stamps if they are plausible, otherwise from their arrival."""

    def __init__(self, fps: float) -> None:
        self._period_ns = round(NS_PER_S / fps)
        self._last_ns, self._stamps_end = -1, False
        self._stamp_ns: int | None = None
        """The last plausible stamp, on CLOCK_MONOTONIC. An arrival that replaced an implausible stamp may be later than
        the next stamp, which is no reason to doubt that one."""
        self.stamped = self.unstamped = 0
        """How many frames got their time from their stamp, and how many from their arrival."""
        self.late_ns = 0.0
        """Mean time from capture to arrival, of the most recent frames."""

    def taken(self, stamp_ns: int, monotonic_ns: int, realtime_ns: int) -> int:
        """The capture time of a frame that arrives now with this stamp: not in the future, and after the last one."""
        time_ns = on_monotonic(stamp_ns, monotonic_ns, realtime_ns) if stamp_ns > 0 else None
        if time_ns is not None and time_ns > monotonic_ns:
            # No frame arrives before its capture, so this driver stamps the time when the last line will be read.
            self._stamps_end = True
        if time_ns is not None and self._stamps_end:
            time_ns -= self._period_ns
        stuck = time_ns is not None and self._stamp_ns is not None and time_ns <= self._stamp_ns
        self._stamp_ns = time_ns if time_ns is not None else self._stamp_ns
        if time_ns is None or stuck:
            self.unstamped += 1
            time_ns = monotonic_ns
        else:
            self.stamped += 1
        self._last_ns = max(min(time_ns, monotonic_ns), self._last_ns + 1)
        frames = min(MEAN_FRAMES, self.stamped + self.unstamped)
        self.late_ns += (monotonic_ns - self._last_ns - self.late_ns) / frames
        return self._last_ns
