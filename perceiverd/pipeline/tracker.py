"""Events with a beginning and an end, from the scores of overlapping windows. Pure: it knows no clock.

What happens to the scores of a window, in this order:

* **Roll-up.** A label has at least the score of the best label below it in the ontology: a bark is a dog.
* **Smoothing**, in continuous time: the smoothed score s follows the scores x by tau * ds/dt = x - s. A window's score
  holds since the end of the window before. The exact solution is s += (1 - exp(-dt / tau)) * (x - s). So the weight of
  a window is the time that it stands for, not its number. A median or mean of the last n windows would change its
  meaning with every hop and every dropped window. It would also count overlapping windows as independent. The solution
  is one number a label, and because it is the same for all labels, roll-up survives it.
* **Hysteresis.** A label holds while its smoothed score is at or above `on`. Its event begins when it has held for the
  minimum duration. Below `off` the event fades, and ends if the score does not come back within the merge gap.
* **Lineage.** An event replaces those of the labels above it. A label that has held for long enough waits for a label
  below it that holds too, at most for its minimum duration again. Otherwise every Bark would begin as a Dog.

An event reaches from the start of the first window that confirms it to the end of the last. An event begins only with
windows that share no media with the label's event before it, so overlapping windows cannot make two events of one
sound. It begins, or continues after a cut, only with a window whose own score reaches `off`, because smoothing can hold
up the score of a sound that is over.
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
    """The state of a label. If two are true, the later one holds."""

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
"""The same in words, as on the wire."""
SUPPRESSIONS = ("below on", "too short", "merged", "subsumed", "cool-down", "denied", "not allowed")
MODALITIES = ("audio", "video")
NEVER_NS = -(2**62)
HUNDREDTH_NS = NS_PER_S // 100


@dataclass(frozen=True, slots=True)
class EventChange:
    """An event begins, continues or ends."""

    kind: Literal["begin", "update", "end"]
    id: str
    """Made of the label and the event's start: two events of a label never start at the same time."""
    index: int
    """The label's."""
    start_ns: int
    end_ns: int
    """The end of the last window that confirms it."""
    since_ns: int
    """The end of the first window that confirms it."""
    decided_ns: int
    """The end of the window that caused this change."""
    peak: float
    mean: float
    windows: int
    modalities: tuple[str, ...]
    smoothed: float
    on: float
    off: float
    continues: str | None
    """The id of the event that was cut and continues in this one."""
    reason: str


class EventTracker:
    """The events of one stream."""

    def __init__(self, rules: Rules) -> None:
        self.suppressed: Counter[str] = Counter(dict.fromkeys(SUPPRESSIONS, 0))
        """How often a label had no event of its own, by reason; one that is suppressed for hours counts once."""
        self._rules = rules
        n = len(rules.labels)
        self._smoothed, self._rolled, self._scores = (np.zeros(n) for _ in range(3))
        self._states = np.zeros(n, np.int8)
        self._highest = np.zeros(n, np.int8)
        """The best state of each label since it was quiet."""
        self._start_ns = self._end_ns = None  # type: int | None
        # Of open events, and of possible events of labels that hold. A label has at most one of the two.
        self._open, self._fading, self._holding = (np.zeros(n, np.bool_) for _ in range(3))
        self._full = np.zeros(n, np.bool_)
        """Open events that have reached the maximum duration. They wait for a window that begins the next event."""
        self._from_ns, self._since_ns, self._to_ns, self._reported_ns = (np.zeros(n, np.int64) for _ in range(4))
        self._peak, self._sum = np.zeros(n), np.zeros(n)
        self._windows, self._modalities = np.zeros(n, np.int64), np.zeros(n, np.int64)
        self._continues: dict[int, str] = {}
        self._over_ns = np.full(n, NEVER_NS, np.int64)
        """The end of each label's last event."""

    @property
    def labels(self) -> tuple[Label, ...]:
        return self._rules.labels

    @property
    def tracking(self) -> bool:
        """Whether a window was tracked since the last `end`."""
        return self._end_ns is not None

    @property
    def open(self) -> tuple[int, ...]:
        """The indices of the labels whose events are open."""
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
        """Add a window's scores (labels,), 0..1; the changes that they cause, in order.

        Windows come in the order of their ends. Raises ValueError if they do not, or if a score is no number.
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
        changes += self._continue(keeps, *window)
        changes += self._begin(above, *window)
        updates = self._open & (end_ns - self._reported_ns >= self._rules.update_ns)
        changes += self._changes("update", np.flatnonzero(updates), "goes on")
        self._reported_ns[updates] = end_ns
        self._record(above, keeps, start_ns)
        return changes

    @property
    def settled_ns(self) -> int:
        """No event that is open, or that a later window begins, starts before this time."""
        starts = self._from_ns[self._open | self._holding]
        return min(int(starts.min(initial=2**62)), self._start_ns or 0)

    def end(self, reason: str) -> list[EventChange]:
        """End the open events: no window follows that belongs to them. The next window starts from nothing."""
        changes = self._close(self._open.copy(), reason)
        self.suppressed["too short"] += int(self._holding.sum())
        self._holding[:] = False
        self._states[:] = self._highest[:] = LabelState.QUIET
        self._start_ns = self._end_ns = None
        return changes

    def change(self, rules: Rules) -> list[EventChange]:
        """Use these rules from now on. They are for the same labels. Open events end."""
        changes = self.end("reload")
        self._rules = rules
        return changes

    def candidates(self, least: int) -> list[Candidate]:
        """The labels that are not quiet at the last window, and the `least` best in any case, best first."""
        best = np.argsort(-self._smoothed, kind="stable")
        shown = self._states != LabelState.QUIET
        shown[best[:least]] = True
        return [self._candidate(i) for i in best if shown[i]]

    # What a window does, in this order.

    def _smooth(self, scores: NDArray[np.floating], end_ns: int) -> None:
        self._scores = scores.astype(np.float64)
        self._rolled = self._rules.rolled_up(self._scores)
        if self._end_ns is None or not self._rules.smoothing_s:
            self._smoothed = self._rolled.copy()
        else:
            weight = -math.expm1((self._end_ns - end_ns) / NS_PER_S / self._rules.smoothing_s)
            self._smoothed += weight * (self._rolled - self._smoothed)

    def _continue(self, keeps: Mask, start_ns: int, end_ns: int, modalities: int) -> list[EventChange]:
        """Open events continue, fade, come back, end, or are cut. `keeps`: labels at or above `off`."""
        rules = self._rules
        self._fading |= self._open & ~keeps
        over = self._fading & (start_ns >= self._to_ns + rules.merge_gap_ns)
        back = self._fading & ~over & keeps
        self.suppressed["merged"] += int(back.sum())
        self._fading &= ~back
        changes = self._close(over & ~self._full, "faded") + self._close(over & self._full, "maximum duration")
        continuing = self._open & ~self._fading
        self._full = self._open & (end_ns - self._from_ns > rules.max_duration_ns) & (continuing | self._full)
        # Smoothing may still hold up the score of a sound that is over. No event begins with such a window.
        cut = continuing & self._full & self._reaches_off()
        before = {int(i): self._id(i) for i in np.flatnonzero(cut)}
        changes += self._close(cut, "maximum duration")
        self._start(cut, self._to_ns[cut], end_ns)
        self._open |= cut
        self._reported_ns[cut] = end_ns
        self._continues |= before
        self._confirm(continuing & ~self._full, end_ns, modalities)
        return changes + self._changes("begin", before, "split")

    def _begin(self, above: Mask, start_ns: int, end_ns: int, modalities: int) -> list[EventChange]:
        """Events begin, and replace those of the labels above them. `above`: labels at or above `on`."""
        rules = self._rules
        may = above & ~self._open & rules.allowed & ~rules.denied & ~self._cooling(start_ns)
        may &= ~(rules.subsume & rules.any_below(self._open))
        # After a cool-down smoothing may still hold up the score of a sound that is over.
        may &= self._holding | self._reaches_off()
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

    def _record(self, above: Mask, keeps: Mask, start_ns: int) -> None:
        """Record the state of each label, and count those that have no event."""
        rules, before = self._rules, self._states
        states = keeps.astype(np.int8)  # quiet or below on
        states[above & self._cooling(start_ns)] = LabelState.COOL_DOWN
        states[above & rules.subsume & rules.any_below(self._open)] = LabelState.SUBSUMED
        states[above & ~rules.allowed] = LabelState.NOT_ALLOWED
        states[above & rules.denied] = LabelState.DENIED
        states[self._holding] = LabelState.HOLDING
        states[self._open] = LabelState.OPEN
        states[self._fading] = LabelState.FADING
        suppressed = (states != before) & (states >= LabelState.COOL_DOWN) & (states <= LabelState.DENIED)
        for code in states[suppressed]:
            self.suppressed[STATES[code]] += 1
        quiet = states == LabelState.QUIET
        self.suppressed["too short"] += int(((before == LabelState.HOLDING) & (states <= LabelState.BELOW_ON)).sum())
        self.suppressed["below on"] += int((quiet & (self._highest == LabelState.BELOW_ON)).sum())
        self._highest = np.where(quiet, states, np.maximum(self._highest, states))
        self._states = states

    # Their parts.

    def _cooling(self, start_ns: int) -> Mask:
        """Labels whose last event is too recent. It always is if the window shares media with it."""
        return start_ns < self._over_ns + self._rules.cooldown_ns

    def _reaches_off(self) -> Mask:
        """Labels whose own score in this window, not smoothed, is at or above `off`."""
        return self._rolled >= self._rules.off

    def _start(self, which: Mask, from_ns: int | NDArray[np.int64], since_ns: int) -> None:
        """Begin events, or possible ones, that no window has confirmed yet."""
        self._from_ns[which], self._since_ns[which] = from_ns, since_ns
        self._peak[which] = self._sum[which] = self._windows[which] = self._modalities[which] = 0

    def _confirm(self, which: Mask, end_ns: int, modalities: int) -> None:
        """Confirm events, or possible ones, by this window."""
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
        state = LabelState(self._states[i])
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
            state=STATES[state],
            reason=self._reason(i, state),
            windows=int(self._windows[i]) if state >= LabelState.HOLDING else 0,
            event=self._id(i) if self._open[i] else None,
        )

    def _reason(self, i: int, state: LabelState) -> str:
        """Why the label has this state, for users: what was measured, what is needed, and in brackets the option."""
        rules, start_ns, end_ns = self._rules, self._start_ns or 0, self._end_ns or 0
        score, on, off = (f"{float(array[i]):.3g}" for array in (self._smoothed, rules.on, rules.off))
        match state:
            case LabelState.QUIET:
                return f"score {score} below the off threshold {off}"
            case LabelState.BELOW_ON if self._smoothed[i] >= rules.on[i]:
                alone = f"this window alone has {self._rolled[i]:.3g}, below the off threshold {off}"
                return f"score {score} at or above the on threshold {on}, but {alone}"
            case LabelState.BELOW_ON:
                return f"score {score} below the on threshold {on}"
            case LabelState.COOL_DOWN:
                left = _s(self._over_ns[i] + rules.cooldown_ns[i] - start_ns + HUNDREDTH_NS - 1)  # rounded up
                return f"its last event ended too recently; the next one may begin in {left} s (cooldown_s)"
            case LabelState.SUBSUMED:
                there = [rules.labels[j].name for j in rules.those_below(i) if self._open[j]]
                verb = "has" if len(there) == 1 else "have"
                return f"the more specific {' and '.join(there)} {verb} an event in its place (subsume)"
            case LabelState.NOT_ALLOWED:
                return "not in the configuration's list of allowed labels (allow)"
            case LabelState.DENIED:
                return "in the configuration's list of denied labels (deny)"
            case LabelState.HOLDING:
                held, needed = _s(end_ns - self._since_ns[i]), _configured_s(rules.min_duration_ns[i])
                waits = [rules.labels[j].name for j in rules.those_below(i) if self._holding[j]]
                also = f"; it waits for the more specific {' and '.join(waits)}" if waits and rules.subsume[i] else ""
                begins = f"an event begins after {needed} s (min_duration_s)"
                return f"score at or above the on threshold {on} for {held} s; {begins}{also}"
            case LabelState.OPEN:
                return f"the event has lasted {_s(end_ns - self._from_ns[i])} s"
            case LabelState.FADING:
                # A window that shares media with the event's last one tells nothing about the time after it.
                gone, needed = _s(start_ns - self._to_ns[i]), _configured_s(rules.merge_gap_ns[i])
                ends = f"the event ends after {needed} s (merge_gap_s)"
                return f"score {score} below the off threshold {off} for {gone} s; {ends}"


def _s(duration_ns: int | np.int64) -> str:
    """Seconds, to a hundredth, without needless zeros. Rounded down: a time never seems to reach a limit too early."""
    return f"{max(0, int(duration_ns)) // HUNDREDTH_NS / 100:g}"


def _configured_s(duration_ns: int | np.int64) -> str:
    """The seconds that the operator wrote, without needless zeros."""
    return f"{int(duration_ns) / NS_PER_S:g}"
