"""Scores by minute and label, until they are written. Pure: it knows no database and no clock.

Writing adds to what is stored of a minute, so a minute may be written in parts, and a crash loses the last part only.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from perceiverd.wire import Scores

MINUTE_MS = 60_000


@dataclass(slots=True)
class MinuteScores:
    """What is not yet written of one minute of one stream."""

    windows: int = 0
    heard: int = 0
    """Windows with audio."""
    seen: int = 0
    """Windows with video."""
    dropped: int = 0
    """Windows that the daemon did not tag."""
    labels: dict[str, tuple[int, int]] = field(default_factory=dict)
    """The highest score and the sum of all scores, in thousandths, by mid."""

    def add(self, message: Scores) -> None:
        """Count a window."""
        self.windows += 1
        self.heard += "audio" in message.modalities
        self.seen += "video" in message.modalities
        self.dropped += message.dropped
        for tag in message.labels:
            score = round(tag.score * 1000)
            best, total = self.labels.get(tag.mid, (0, 0))
            self.labels[tag.mid] = max(best, score), total + score


class MinuteAggregator:
    """The minutes of all streams of one daemon, by stream and minute since 1970."""

    def __init__(self) -> None:
        self._minutes: dict[tuple[str, int], MinuteScores] = {}

    def add(self, message: Scores, end_ms: int) -> None:
        """Count a window in the minute in which it ends."""
        self._minutes.setdefault((message.stream, end_ms // MINUTE_MS), MinuteScores()).add(message)

    def take(self) -> dict[tuple[str, int], MinuteScores]:
        """All that was added since the last call."""
        taken, self._minutes = self._minutes, {}
        return taken
