"""Which frames are worth converting: a model needs far fewer than a camera sends. Pure, and without FFmpeg."""

from __future__ import annotations

from collections.abc import Iterable

from perceiverd.core.media import NS_PER_S

PER_TICK = 4
"""At most this many frames are kept for each tick of the model: the nearest is then within an eighth of a tick."""


class Decimator:
    """Chooses which frames are worth converting."""

    def __init__(self, fps: float) -> None:
        self._spacing_ns = NS_PER_S / (fps * PER_TICK)
        self._due_ns: float | None = None

    def keeps(self, start_ns: int) -> bool:
        """Whether a frame of this time is needed. It may be early by a quarter of the spacing, because of jitter."""
        kept, self._due_ns = self._decided(start_ns, self._due_ns)
        return kept

    def would_keep(self, starts_ns: Iterable[int]) -> bool:
        """Whether the last of these frames will be needed, if they come next and in this order."""
        kept, due_ns = False, self._due_ns
        for start_ns in starts_ns:
            kept, due_ns = self._decided(start_ns, due_ns)
        return kept

    def _decided(self, start_ns: int, due_ns: float | None) -> tuple[bool, float]:
        """Whether a frame is needed if the next one is due at `due_ns`, and when the next one is due then."""
        spacing_ns = self._spacing_ns
        if due_ns is None or start_ns < due_ns - 2 * spacing_ns:  # the first frame, or time has jumped back
            due_ns = start_ns
        if start_ns < due_ns - spacing_ns / 4:
            return False, due_ns
        return True, max(due_ns + spacing_ns, start_ns)
