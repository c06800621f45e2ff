"""How the windows of one stream progress: tagged, dropped, and when. Counts only; it knows no media and no messages."""

from __future__ import annotations

import logging
from collections import deque

from perceiverd.core.logs import LogLimit, log_event
from perceiverd.core.media import NS_PER_S
from perceiverd.daemon.telemetry import latencies, level_dbfs
from perceiverd.pipeline.windower import Skew, Window
from perceiverd.sources.process.restart import RunState

logger = logging.getLogger("perceiverd.daemon")

RECENT = 20
"""The number of tagged windows over which the hop is averaged."""
NEVER_NS = -(1 << 62)


class Progress:
    """Counts since the stream began, and measures of its last window."""

    def __init__(self) -> None:
        self.tagged = self.dropped = 0
        self.dropped_since = 0
        """Windows that were dropped since the last scores."""
        self.sent_ns: int | None = None
        """When the last scores were sent."""
        self.lag_s: float | None = None
        """Seconds from the capture of the last window's end to the publishing of its scores."""
        self.latency = latencies()
        """The same of all windows."""
        self.level_dbfs: float | None = None
        """Level of the last window's audio; None if it had none."""
        self.skew: Skew | None = None
        """Of the last window; None if it lacked audio or video."""
        self._dropped_before: deque[int] = deque(maxlen=RECENT)
        """How many windows were dropped before each of the recent tagged ones."""
        self._up_ns: int | None = None
        """Since when all sources are up."""
        self._excused_ns = NEVER_NS
        """When the stream last had a reason to give no window: a gap or a stall."""
        self._gaps = 0
        self._log_limit, self._dropped_logged = LogLimit(), 0

    def drop(self, count: int) -> None:
        """Newer windows have replaced this many, or a suspend has."""
        self.dropped += count
        self.dropped_since += count

    def sent(self, window: Window, now_ns: int) -> None:
        """The scores of this window were sent."""
        self._dropped_before.append(self.dropped_since)
        self.tagged, self.dropped_since, self.sent_ns = self.tagged + 1, 0, now_ns
        self.lag_s = (now_ns - window.end_ns) / NS_PER_S
        self.latency.add(self.lag_s)
        self.level_dbfs = None if window.audio is None else level_dbfs(window.audio)
        self.skew = window.skew

    def hop_s(self, hop_ns: int) -> float | None:
        """Mean time between recent tagged windows: the hop, longer if windows were dropped; None before the first."""
        if not self._dropped_before:
            return None
        return hop_ns / NS_PER_S * (1 + sum(self._dropped_before) / len(self._dropped_before))

    def update(self, state: RunState, now_ns: int, *, gaps: int, stalled: bool) -> None:
        """Record the stream's state, its number of gaps, and whether an active source is stalled; in every turn."""
        if stalled or gaps != self._gaps:
            self._gaps, self._excused_ns = gaps, now_ns
        if state is not RunState.UP:
            self._up_ns = None
        elif self._up_ns is None:
            self._up_ns = now_ns

    def is_stuck(self, now_ns: int, recent_ns: int) -> bool:
        """True if the stream is up, has given windows before, and none was sent for `recent_ns`.

        A camera that gives less than a frame a second at night, each one after a gap, is excused.
        """
        if self._up_ns is None or self.sent_ns is None:
            return False
        return now_ns - max(self._up_ns, self.sent_ns, self._excused_ns) >= recent_ns

    def log_drops(self, stream: str, hop_s: float | None, now_ns: int) -> None:
        """Log the windows that were dropped since the last line."""
        new = self.dropped - self._dropped_logged
        if new and self._log_limit.admit(now_ns) is not None:
            self._dropped_logged = self.dropped
            hop = "-" if hop_s is None else f"{hop_s:.2f}"
            log_event(
                logger, logging.WARNING, "windows-dropped", stream=stream, count=new, tagged=self.tagged, hop_s=hop
            )
