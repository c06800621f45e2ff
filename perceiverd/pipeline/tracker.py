"""Events: a label that begins, goes on and ends, from the scores of overlapping windows. Pure: it knows no clock.

What happens to the scores of a window, in this order:

* **Roll-up.** A label is at least as sure as the surest label below it in the ontology: who barks is a dog.
* **Smoothing**, in continuous time: the smoothed score s follows the scores x by tau * ds/dt = x - s, a window's score
  taken to hold since the end of the window before. That is solved exactly, s += (1 - exp(-dt / tau)) * (x - s), so
  the weight of a window is the time it stands for, not its number. A median or a mean of the last n windows would mean
  something else at every hop and after every dropped window, and would count overlapping windows as if they were
  independent. It is one number a label, and as it is the same for all labels, roll-up survives it.
* **Hysteresis.** A label holds while its smoothed score is at or above `on`. When it has held for the minimum duration
  its event begins. Once the score is below `off` the event fades, and ends when it doesn't come back within the merge
  gap.
* **Lineage.** An event takes the place of those of the labels above it. A label whose time has come waits for one below
  that holds too, for as long again as its minimum duration at most, so that not every Bark begins as a Dog.

An event reaches from the beginning of the first window that confirms it to the end of the last. An event begins only
with windows that share nothing with the label's event before, so that overlapping windows can't make two of one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from perceiverd.core.labels import Label
from perceiverd.core.media import NS_PER_S
from perceiverd.pipeline.rules import Rules
from perceiverd.wire.messages import Candidate

Mask = NDArray[np.bool_]


class LabelState(IntEnum):
    """How a label stands; the later one holds where two are true."""

    QUIET = 0
    BELOW_ON = 1
    COOL_DOWN = 2
    SUBSUMED = 3
    NOT_ALLOWED = 4
    DENIED = 5
    HOLDING = 6
    OPEN = 7
    FADING = 8


STATES = ("quiet", "below on", "cool-down", "subsumed", "not allowed", "denied", "holding", "open", "fading")
"""The same in words."""
SUPPRESSIONS = ("below on", "too short", "merged", "subsumed", "cool-down", "denied", "not allowed")
MODALITIES = ("audio", "video")
NEVER_NS = -(2**62)


@dataclass(frozen=True, slots=True)
class EventChange:
    """An event begins, goes on or ends."""

    kind: Literal["begin", "update", "end"]
    id: str
    """Of the label and the event's start: two events of a label never start together."""
    index: int
    """Of the label."""
    start_ns: int
    end_ns: int
    """The end of the last window that confirms it."""
    since_ns: int
    """The end of the first."""
    decided_ns: int
    """The end of the window that brought this."""
    peak: float
    mean: float
    windows: int
    modalities: tuple[str, ...]
    smoothed: float
    on: float
    off: float
    continues: str | None
    """The id of the event that was cut, and goes on in this one."""
    reason: str


class EventTracker:
    """The events of one stream."""

    def __init__(self, rules: Rules) -> None:
        self.suppressed: Counter[str] = Counter(dict.fromkeys(SUPPRESSIONS, 0))
        """How often a label had no event of its own, by reason; one that is held down for hours counts once."""
        self._rules = rules
        n = len(rules.labels)
        self._smoothed, self._rolled, self._scores = (np.zeros(n) for _ in range(3))
        self._standing = np.zeros(n, np.int8)
        self._highest = np.zeros(n, np.int8)
        """How each label stood at best since it was quiet."""
        self._start_ns = self._end_ns = None  # type: int | None
        # Of the events that are open, and of those that may come of what holds; a label has one of them at most.
        self._open, self._fading, self._holding = (np.zeros(n, np.bool_) for _ in range(3))
        self._full = np.zeros(n, np.bool_)
        """Open events that have reached the maximum duration and wait for a window with which the next one begins."""
        self._from_ns, self._since_ns, self._to_ns, self._reported_ns = (np.zeros(n, np.int64) for _ in range(4))
        self._peak, self._sum = np.zeros(n), np.zeros(n)
        self._windows, self._modalities = np.zeros(n, np.int64), np.zeros(n, np.int64)
        self._continues: dict[int, str] = {}
        # Of the last event of each label.
        self._over_ns = np.full(n, NEVER_NS, np.int64)

    @property
    def labels(self) -> tuple[Label, ...]:
        return self._rules.labels

    @property
    def tracking(self) -> bool:
        """Whether a window has come since the last `end`."""
        return self._end_ns is not None

    @property
    def open(self) -> tuple[int, ...]:
        """The labels whose events are open."""
        return tuple(np.flatnonzero(self._open).tolist())

    @property
    def smoothed(self) -> NDArray[np.float64]:
        """The smoothed score of each label, as of the last window."""
        return self._smoothed.copy()

    @property
    def on(self) -> NDArray[np.float64]:
        """The threshold of each label."""
        return self._rules.on

    def track(
        self, scores: NDArray[np.floating], start_ns: int, end_ns: int, modalities: Sequence[str]
    ) -> list[EventChange]:
        """Take a window's scores (labels,), 0..1; what changes with them, in the order in which it happens.

        Windows come in the order of their ends. Raises ValueError where they don't, or a score is no number.
        """
        if not np.isfinite(scores).all() or scores.shape != self._smoothed.shape:
            raise ValueError(f"{len(self._smoothed)} finite scores are needed, not {scores}")
        if end_ns <= start_ns or (self._end_ns is not None and end_ns <= self._end_ns):
            raise ValueError(f"a window of {start_ns} to {end_ns} ns after one that ended at {self._end_ns}")
        changes: list[EventChange] = []
        if self._end_ns is not None and start_ns - self._end_ns > self._rules.max_gap_ns:
            changes += self.end("gap")
        self._smooth(scores, end_ns)
        self._start_ns, self._end_ns = start_ns, end_ns
        window = (start_ns, end_ns, sum(1 << MODALITIES.index(modality) for modality in modalities))
        above, keeps = self._smoothed >= self._rules.on, self._smoothed >= self._rules.off
        changes += self._go_on(keeps, *window)
        changes += self._begin(above, *window)
        told = self._open & (end_ns - self._reported_ns >= self._rules.update_ns)
        changes += self._changes("update", np.flatnonzero(told), "goes on")
        self._reported_ns[told] = end_ns
        self._note(above, keeps, start_ns)
        return changes

    def end(self, reason: str) -> list[EventChange]:
        """No window follows, or none that belongs to these: end the open events, and begin anew with what comes."""
        changes = self._close(self._open.copy(), reason)
        self.suppressed["too short"] += int(self._holding.sum())
        self._holding[:] = False
        self._standing[:] = self._highest[:] = LabelState.QUIET
        self._start_ns = self._end_ns = None
        return changes

    def change(self, rules: Rules) -> list[EventChange]:
        """Go by these rules from now on; they are for the same labels. Open events end."""
        changes = self.end("reload")
        self._rules = rules
        return changes

    def candidates(self, least: int) -> list[Candidate]:
        """The labels that are not quiet, and the best in any case, at the last window; the surest first."""
        best = np.argsort(-self._smoothed, kind="stable")
        lively = self._standing != LabelState.QUIET
        lively[best[:least]] = True
        return [self._candidate(i) for i in best if lively[i]]

    # What a window does, in this order.

    def _smooth(self, scores: NDArray[np.floating], end_ns: int) -> None:
        self._scores = scores.astype(np.float64)
        self._rolled = self._rules.rolled_up(self._scores)
        if self._end_ns is None or not self._rules.smoothing_s:
            self._smoothed = self._rolled.copy()
        else:
            weight = -math.expm1((self._end_ns - end_ns) / NS_PER_S / self._rules.smoothing_s)
            self._smoothed += weight * (self._rolled - self._smoothed)

    def _go_on(self, keeps: Mask, start_ns: int, end_ns: int, modalities: int) -> list[EventChange]:
        """What becomes of the events that are open: they go on, fade, come back, end, or are cut."""
        rules = self._rules
        self._fading |= self._open & ~keeps
        over = self._fading & (start_ns >= self._to_ns + rules.merge_gap_ns)
        back = self._fading & ~over & keeps
        self.suppressed["merged"] += int(back.sum())
        self._fading &= ~back
        changes = self._close(over & ~self._full, "faded") + self._close(over & self._full, "maximum duration")
        goes_on = self._open & ~self._fading
        self._full = self._open & (end_ns - self._from_ns > rules.max_duration_ns) & (goes_on | self._full)
        # Smoothing may still hold up the score of a sound that is over. No event begins with such a window.
        cut = goes_on & self._full & self._audible()
        before = {int(i): self._id(i) for i in np.flatnonzero(cut)}
        changes += self._close(cut, "maximum duration")
        self._start(cut, self._to_ns[cut], end_ns)
        self._open |= cut
        self._reported_ns[cut] = end_ns
        self._continues |= before
        self._confirm(goes_on & ~self._full, end_ns, modalities)
        return changes + self._changes("begin", before, "split")

    def _begin(self, above: Mask, start_ns: int, end_ns: int, modalities: int) -> list[EventChange]:
        """The events that begin, and those whose place they take."""
        rules = self._rules
        may = above & ~self._open & rules.allowed & ~rules.denied & ~self._cooling(start_ns)
        may &= ~(rules.subsume & rules.any_below(self._open))
        # After a cool-down smoothing may still hold up the score of a sound that is over.
        may &= self._holding | self._audible()
        self._start(may & ~self._holding, start_ns, end_ns)
        self._holding = may
        self._confirm(may, end_ns, modalities)
        held_ns = end_ns - self._since_ns
        waits = rules.subsume & (held_ns < 2 * rules.min_duration_ns) & rules.any_below(self._holding)
        begins = self._holding & (held_ns >= rules.min_duration_ns) & ~waits
        if not begins.any():
            return []
        begins &= ~(rules.subsume & rules.any_below(begins))
        self._open |= begins
        self._reported_ns[begins] = end_ns
        subsumed = rules.subsume & rules.any_below(begins)
        self._holding &= ~begins & ~subsumed
        changes = self._close(self._open & subsumed, "subsumed")
        return changes + self._changes("begin", np.flatnonzero(begins), "confirmed")

    def _note(self, above: Mask, keeps: Mask, start_ns: int) -> None:
        """Note the state of each label, and count those that come to nothing."""
        rules, before = self._rules, self._standing
        standing = keeps.astype(np.int8)  # quiet or below on
        standing[above & self._cooling(start_ns)] = LabelState.COOL_DOWN
        standing[above & rules.subsume & rules.any_below(self._open)] = LabelState.SUBSUMED
        standing[above & ~rules.allowed] = LabelState.NOT_ALLOWED
        standing[above & rules.denied] = LabelState.DENIED
        standing[self._holding] = LabelState.HOLDING
        standing[self._open] = LabelState.OPEN
        standing[self._fading] = LabelState.FADING
        down = (standing != before) & (standing >= LabelState.COOL_DOWN) & (standing <= LabelState.DENIED)
        for code in standing[down]:
            self.suppressed[STATES[code]] += 1
        quiet = standing == LabelState.QUIET
        self.suppressed["too short"] += int(((before == LabelState.HOLDING) & (standing <= LabelState.BELOW_ON)).sum())
        self.suppressed["below on"] += int((quiet & (self._highest == LabelState.BELOW_ON)).sum())
        self._highest = np.where(quiet, standing, np.maximum(self._highest, standing))
        self._standing = standing

    # What these are made of.

    def _cooling(self, start_ns: int) -> Mask:
        """Where the last event is not long enough ago; a window that shares media with it is never."""
        return start_ns < self._over_ns + self._rules.cooldown_ns

    def _audible(self) -> Mask:
        """Labels whose own score in this window, not smoothed, is at or above `off`."""
        return self._rolled >= self._rules.off

    def _start(self, which: Mask, from_ns: int | NDArray[np.int64], since_ns: int) -> None:
        """Begin an event, or what may become one, that no window has confirmed yet."""
        self._from_ns[which], self._since_ns[which] = from_ns, since_ns
        self._peak[which] = self._sum[which] = self._windows[which] = self._modalities[which] = 0

    def _confirm(self, which: Mask, end_ns: int, modalities: int) -> None:
        """Let a window confirm events, or what may become some."""
        np.maximum(self._peak, self._rolled, out=self._peak, where=which)
        np.add(self._sum, self._rolled, out=self._sum, where=which)
        self._windows += which
        self._to_ns[which] = end_ns
        self._modalities[which] |= modalities

    def _close(self, which: Mask, reason: str) -> list[EventChange]:
        changes = self._changes("end", np.flatnonzero(which), reason)
        self._over_ns[which] = self._to_ns[which]
        self._open &= ~which
        self._fading &= ~which
        self._full &= ~which
        for change in changes:
            self._continues.pop(change.index, None)
        return changes

    def _changes(
        self, kind: Literal["begin", "update", "end"], indices: Iterable[int], reason: str
    ) -> list[EventChange]:
        return [self._change(kind, int(i), reason) for i in indices]

    def _change(self, kind: Literal["begin", "update", "end"], i: int, reason: str) -> EventChange:
        windows = int(self._windows[i])
        return EventChange(
            kind=kind,
            id=self._id(i),
            index=i,
            start_ns=int(self._from_ns[i]),
            end_ns=int(self._to_ns[i]),
            since_ns=int(self._since_ns[i]),
            decided_ns=self._end_ns or 0,
            peak=float(self._peak[i]),
            mean=float(self._sum[i]) / windows,
            windows=windows,
            modalities=tuple(name for bit, name in enumerate(MODALITIES) if self._modalities[i] >> bit & 1),
            smoothed=float(self._smoothed[i]),
            on=float(self._rules.on[i]),
            off=float(self._rules.off[i]),
            continues=self._continues.get(i),
            reason=reason,
        )

    def _id(self, i: int | np.intp) -> str:
        return f"{i}-{self._from_ns[i] // 1_000_000}"

    def _candidate(self, i: int) -> Candidate:
        rules, label = self._rules, self._rules.labels[i]
        standing = LabelState(self._standing[i])
        surest = max(rules.those_below(i), key=lambda j: self._scores[j], default=i)
        return Candidate(
            mid=label.mid,
            index=label.index,
            name=label.name,
            score=round(float(self._rolled[i]), 6),
            surest=rules.labels[surest].mid if self._scores[surest] > self._scores[i] else None,
            smoothed=round(float(self._smoothed[i]), 6),
            on=round(float(rules.on[i]), 6),
            off=round(float(rules.off[i]), 6),
            state=STATES[standing],
            reason=self._reason(i, standing),
            windows=int(self._windows[i]) if standing >= LabelState.HOLDING else 0,
            event=self._id(i) if self._open[i] else None,
        )

    def _reason(self, i: int, standing: LabelState) -> str:
        rules, now_ns = self._rules, self._end_ns or 0
        score, on, off = (f"{float(array[i]):.3g}" for array in (self._smoothed, rules.on, rules.off))
        match standing:
            case LabelState.QUIET:
                return f"{score} is below off, {off}"
            case LabelState.BELOW_ON if self._smoothed[i] >= rules.on[i]:
                return f"{score} is at or above on, {on}, but {self._rolled[i]:.3g} in this window is below off, {off}"
            case LabelState.BELOW_ON:
                return f"{score} is below on, {on}"
            case LabelState.COOL_DOWN:
                ago, needed = _s((self._start_ns or 0) - self._over_ns[i]), _s(rules.cooldown_ns[i])
                return f"its last event ended {ago} s before this window began; {needed} s must lie between"
            case LabelState.SUBSUMED:
                there = [rules.labels[j].name for j in rules.those_below(i) if self._open[j]]
                return f"{' and '.join(there)} took its place"
            case LabelState.NOT_ALLOWED:
                return "not on the list of allowed labels"
            case LabelState.DENIED:
                return "on the list of denied labels"
            case LabelState.HOLDING:
                held, needed = _s(now_ns - self._since_ns[i]), _s(rules.min_duration_ns[i])
                waits = [rules.labels[j].name for j in rules.those_below(i) if self._holding[j]]
                also = f"; waits for {' and '.join(waits)}" if waits and rules.subsume[i] else ""
                return f"at or above on, {on}, for {held} of {needed} s{also}"
            case LabelState.OPEN:
                return f"open for {_s(now_ns - self._from_ns[i])} s"
            case LabelState.FADING:
                gap, needed = _s((self._start_ns or 0) - self._to_ns[i]), _s(rules.merge_gap_ns[i])
                return f"{score} is below off, {off}; ends unless it is back within {needed} s, {gap} are over"


def _s(duration_ns: int | np.int64) -> str:
    return f"{max(0, int(duration_ns)) / NS_PER_S:g}"
