"""Says which frames need not be decoded, because no tick of the model needs them. Pure, and without FFmpeg.

FFmpeg can leave out a frame only if no other frame refers to it. Codecs store such a frame behind all that is shown
before it, so its packet is enough to know the frames before it. Packets behind it, which a file has, confirm that.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence

from perceiverd.sources.decode.decimate import Decimator

AHEAD = 4
"""So many packets behind a frame's packet show whether its place among the other frames is known."""
MOST = 64
"""At most so many frames are between packet and picture: 16 that wait for their turn, and one for each thread."""


class SkipPlan:
    """The frames whose packets went into the decoder and that did not come out yet, in the order of their times."""

    def __init__(self, decimator: Decimator) -> None:
        """`decimator` gets the frames that come out."""
        self._decimator = decimator
        self._coming_ns: list[int] = []

    def needs(self, start_ns: int | None, ahead_ns: Sequence[int | None]) -> bool:
        """Whether the frame of the next packet is needed. `ahead_ns` has the times of the packets behind it.

        Times are None if the container does not say them. If in doubt, the frame is needed. Without packets behind it,
        as in a live stream, the answer holds only for frames that no other frame refers to.
        """
        if start_ns is None:
            self._coming_ns.clear()
            return True
        insort(self._coming_ns, start_ns)
        del self._coming_ns[:-MOST]
        if None in ahead_ns or (ahead_ns and (ahead_ns[-1] or 0) <= start_ns):
            return True  # some frame that is shown before this one may not have been seen
        coming_ns = [*self._coming_ns, *(at_ns for at_ns in ahead_ns if at_ns is not None)]
        return self._decimator.would_keep(sorted(at_ns for at_ns in coming_ns if at_ns <= start_ns))

    def came_out(self, start_ns: int) -> None:
        """This frame came out of the decoder; those before it came out or never will."""
        del self._coming_ns[: bisect_right(self._coming_ns, start_ns)]
