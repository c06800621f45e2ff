"""Whether people may be speaking in a stretch of time, by the scores of all windows that overlap it. Pure: no clock.

Snapshots are kept by it if `snapshots.keep_speech` is false. It looks at the scores of all labels of speech, not only
at the best labels of a window: speech under a barking dog is far down the list.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from perceiverd.core.errors import ConfigError
from perceiverd.core.labels import Label, ontology
from perceiverd.core.media import NS_PER_S
from perceiverd.pipeline.windower import Window

Verdict = Literal["clear", "speech", "unjudged", "wait"]
"""`unjudged`: a part of the time has no window, so that speech cannot be excluded."""
ROOTS = ("/m/09x0r", "/m/02rtxlg", "/m/07rkbfh", "/m/07qfr4h")
"""Speech, Whispering, Chatter, and Hubbub: their names mean words that somebody may understand."""
REMEMBERED_NS = 150 * NS_PER_S
"""Longer than the longest clip, 60 s before and 60 s after the event, with the time until it is judged."""
UNSEEN_NS = NS_PER_S // 5
"""A shorter stretch without a window does not count."""


def speech_indices(labels: Sequence[Label]) -> NDArray[np.intp]:
    """The outputs of the model that stand for speech. Raises ConfigError if there are none."""
    above = ontology().ancestors
    found = [label.index for label in labels if label.mid in ROOTS or not above(label.mid).isdisjoint(ROOTS)]
    if not found:
        raise ConfigError(
            "$.snapshots.keep_speech: the model has no label for speech, so speech cannot be excluded; "
            "remove keep_speech = false, or choose another model"
        )
    return np.array(found, np.intp)


@dataclass(frozen=True, slots=True)
class JudgedWindow:
    """One window and its highest score of speech."""

    start_ns: int
    end_ns: int
    score: float


class SpeechMemory:
    """The scores of speech in the last windows of one stream."""

    def __init__(self, labels: Sequence[Label]) -> None:
        self._indices = speech_indices(labels)
        self._windows: deque[JudgedWindow] = deque()
        self._first_ns: int | None = None

    def add(self, window: Window, row: NDArray[np.float32]) -> None:
        """Record a window and its scores, (labels,)."""
        if self._first_ns is None:
            self._first_ns = window.start_ns
        if window.missing.get("audio", "no track") != "no track":
            return  # the network got no audio, but the clip may have some
        self._windows.append(JudgedWindow(window.start_ns, window.end_ns, float(row[self._indices].max())))
        while self._windows[0].end_ns < window.end_ns - REMEMBERED_NS:
            self._windows.popleft()

    def verdict(self, begin_ns: int, end_ns: int, limit: float) -> Verdict:
        """Whether somebody may speak in [begin_ns, end_ns]: a window that overlaps it has a score of `limit` or more.

        `wait` if windows are still to come.
        """
        inside = [each for each in self._windows if each.start_ns < end_ns and each.end_ns > begin_ns]
        if any(each.score >= limit for each in inside):
            return "speech"
        if not self._windows or self._windows[-1].end_ns < end_ns:
            return "wait"
        covered_ns = max(begin_ns, self._first_ns or begin_ns)  # before the stream began there is nothing to keep
        for each in inside:
            if each.start_ns > covered_ns + UNSEEN_NS:
                return "unjudged"
            covered_ns = max(covered_ns, each.end_ns)
        return "clear" if covered_ns >= end_ns - UNSEEN_NS else "unjudged"
