"""Marks of sounds by a key that is held in a terminal. Pure: the caller passes the times.

A terminal reports no release of a key. It repeats a held key, after half a second and then many times a second, so the
key counts as released when no repetition comes for a while.
"""

from __future__ import annotations

from dataclasses import dataclass

REACTION_S = 0.5
"""A person presses this long after a sound begins."""
RELEASED_S = 0.8
"""No key for this long: it was released. Longer than the time until a held key repeats, which is up to 0.66 s."""
TAPPED_S = 2.0
"""A key that was pressed once and not held means that the sound was in this time before."""
AFTER_S = 0.3
"""The mark of a held key reaches this far beyond the last repetition."""


@dataclass(frozen=True, slots=True)
class HeldMark:
    """A stretch of time, in seconds on the caller's clock."""

    start_s: float
    end_s: float


class HeldKey:
    """Turns presses of one key into marks."""

    def __init__(self) -> None:
        self._first_s: float | None = None
        self._last_s = 0.0

    @property
    def is_held(self) -> bool:
        """Whether a mark has begun."""
        return self._first_s is not None

    def press(self, now_s: float) -> None:
        """The key was pressed, or repeated."""
        if self._first_s is None:
            self._first_s = now_s
        self._last_s = now_s

    def released(self, now_s: float) -> HeldMark | None:
        """The mark, once the key was released; None otherwise."""
        if self._first_s is None or now_s - self._last_s < RELEASED_S:
            return None
        first_s, last_s, self._first_s = self._first_s, self._last_s, None
        if last_s == first_s:
            return HeldMark(first_s - TAPPED_S, first_s + AFTER_S)
        return HeldMark(first_s - REACTION_S, last_s + AFTER_S)
