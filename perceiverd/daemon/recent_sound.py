"""Which stretches of a stream's sound are kept as recent sound: all, or those in which nobody speaks.

It knows no source and no file: the caller passes how to ask. It decides with the times and scores of windows alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from perceiverd.core.labels import Label
from perceiverd.core.media import NS_PER_S
from perceiverd.daemon.settings import StreamSettings
from perceiverd.daemon.speech import UNSEEN_NS, speech_indices
from perceiverd.pipeline.windower import Window
from perceiverd.sources.snapshots.requests import SoundRequest

STRETCH_NS = 20 * NS_PER_S
"""A file has this length, if no speech ends it earlier."""
GUARD_NS = 3 * NS_PER_S
"""Nothing is kept this close to speech: words begin and end below the limit."""
LEAST_NS = NS_PER_S
"""Shorter stretches are not kept."""


class RecentSound:
    """The recent sound of one stream. Times are on CLOCK_MONOTONIC."""

    def __init__(self, labels: Sequence[Label], request: Callable[[SoundRequest], bool]) -> None:
        """`request` has a source write a stretch; it returns False if none can."""
        self._labels, self._request = labels, request
        self._speech: NDArray[np.intp] | None = None
        self._from_ns: int | None = None
        """Where the stretch begins that is kept next; None before the first window."""
        self._to_ns = 0
        """The end of the last window."""
        self._withheld_ns: Counter[str] = Counter()

    @property
    def withheld_s(self) -> dict[str, float]:
        """Seconds that were not kept: `speech`; `unjudged`, without scores; `no source` that could write them."""
        return {reason: round(ns / NS_PER_S, 3) for reason, ns in self._withheld_ns.items()}

    def tagged(self, window: Window, row: NDArray[np.float32], settings: StreamSettings) -> None:
        """Record a window with its scores (labels,), and ask for the stretch that is complete with it."""
        if settings.recent is None:
            self._from_ns = None
            return
        limit = settings.speech_limit
        if self._from_ns is None:
            self._from_ns = window.start_ns
        elif window.start_ns > self._to_ns + UNSEEN_NS:
            self._hole(window.start_ns, judged=limit is not None)
        self._to_ns = max(self._to_ns, window.end_ns)
        if limit is None:
            self._keep_until(window.end_ns, STRETCH_NS)
        elif (why := self._objection(window, row, limit)) is None:
            self._keep_until(window.start_ns - GUARD_NS, STRETCH_NS)
        else:
            self._withhold(window.start_ns - GUARD_NS, window.end_ns + GUARD_NS, why)

    def stop(self, settings: StreamSettings) -> None:
        """No more windows come for now: keep what is judged."""
        if self._from_ns is not None and settings.recent is not None:
            guard_ns = 0 if settings.speech_limit is None else GUARD_NS
            self._keep_until(self._to_ns - guard_ns, LEAST_NS)
        self._from_ns = None

    def forget(self) -> None:
        """The clock has jumped: what is pending has no UTC time any more."""
        self._from_ns = None

    def _objection(self, window: Window, row: NDArray[np.float32], limit: float) -> str | None:
        """Why the time of this window may not be kept; None if it may."""
        if window.missing.get("audio", "no track") != "no track":
            return "unjudged"  # the network got no audio, but the file would have some
        if self._speech is None:
            self._speech = speech_indices(self._labels)
        return "speech" if float(row[self._speech].max()) >= limit else None

    def _hole(self, until_ns: int, *, judged: bool) -> None:
        """No window covers the time from the last one until here."""
        if judged:
            self._withhold(self._to_ns - GUARD_NS, until_ns + GUARD_NS, "unjudged")
        else:
            self._keep_until(self._to_ns, LEAST_NS)
            self._from_ns = until_ns

    def _keep_until(self, end_ns: int, least_ns: int) -> None:
        """Ask for the pending stretch up to here, if it is long enough, in pieces of STRETCH_NS."""
        assert self._from_ns is not None
        while end_ns - self._from_ns >= least_ns:
            begin_ns, self._from_ns = self._from_ns, min(end_ns, self._from_ns + STRETCH_NS)
            if not self._request(SoundRequest(begin_ns, self._from_ns)):
                self._withheld_ns["no source"] += self._from_ns - begin_ns

    def _withhold(self, begin_ns: int, end_ns: int, why: str) -> None:
        """Keep what is pending before this time, and nothing of this time."""
        assert self._from_ns is not None
        self._keep_until(begin_ns, LEAST_NS)
        lost_ns = end_ns - self._from_ns
        if lost_ns > 0:
            self._withheld_ns[why] += lost_ns
            self._from_ns = end_ns
