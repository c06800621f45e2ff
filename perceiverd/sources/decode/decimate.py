"""Which pictures are worth converting: far fewer than a camera takes. Pure, and without FFmpeg, which not all need."""

from __future__ import annotations

from perceiverd.core.media import NS_PER_S

PER_TICK = 4
"""At most so many pictures are kept for each tick of the model: the nearest is then within an eighth of a tick."""


class Decimator:
    """Chooses which pictures are worth converting."""

    def __init__(self, fps: float) -> None:
        self._spacing_ns = NS_PER_S / (fps * PER_TICK)
        self._due_ns: float | None = None

    def keeps(self, start_ns: int) -> bool:
        """Whether a picture of this time is needed. A quarter of the spacing is forgiven, so that jitter costs none."""
        due_ns, spacing_ns = self._due_ns, self._spacing_ns
        if due_ns is None or start_ns < due_ns - 2 * spacing_ns:  # the first, or the time line went back
            due_ns = start_ns
        if start_ns < due_ns - spacing_ns / 4:
            return False
        self._due_ns = max(due_ns + spacing_ns, start_ns)
        return True
