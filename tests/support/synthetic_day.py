"""An invented day of one stream. `python -m tests.support.synthetic_day [HOURS] [EVENTS] [SEED]` prints a table.

It imitates the scores of a model for a microphone. Every label has noise that is correlated over a second, as the
scores of overlapping windows are. Some labels stay just below their threshold for minutes, single windows have a high
score without a cause, and windows are dropped. Events are planted at known times: the score of a label rises with the
part of a window that it fills. Every other event comes in bursts, as barks and knocks do, with pauses of up to 1.5 s.
The labels above it rise with it. The table compares the tracker's events with the planted ones.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perceiverd.core.labels import ontology
from perceiverd.model.card import Calibration
from perceiverd.pipeline.rules import EventOptions, Rules, resolve
from perceiverd.pipeline.tracker import EventTracker

LABELS = ontology().labels
N = len(LABELS)
WINDOW_S, HOP_S = 1.28, 0.5
HOUR_S = 3600
NOISE = 0.9
"""Standard deviation of the noise, in logits."""
DROPPED = 0.01
"""Share of windows that are dropped."""
SPIKES_AN_HOUR, HOVERS_AN_HOUR = 30, 4
APART_S = 60.0
"""Least time between two planted events of one label: closer ones might rightly be one event."""


@dataclass(frozen=True)
class Planted:
    """One planted event."""

    index: int
    """Its label's."""
    start_s: float
    end_s: float
    level: float
    """Logits in a window that it fills."""
    bursts: NDArray[np.float64]
    """(bursts, 2): start and end of each burst, in seconds."""

    def share(self, start_s: float, end_s: float) -> float:
        """The part of a window that it fills."""
        over = np.minimum(self.bursts[:, 1], end_s) - np.maximum(self.bursts[:, 0], start_s)
        return float(over.clip(0).sum()) / (end_s - start_s)


@dataclass(frozen=True)
class Found:
    """One event that was found."""

    index: int
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Tally:
    """How good one way to make events is."""

    way: str
    found: int
    missed: int
    doubled: int
    """Planted events for which more than one was found."""
    above: int
    """Events of a label above a planted one: true, but not specific."""
    false: int
    hours: float
    late_s: tuple[float, float]
    """Medians: how much later than planted the found events begin, and end."""

    def __str__(self) -> str:
        begin, end = self.late_s
        return (
            f"{self.way:44}{self.found:7}{self.missed:8}{self.doubled:9}{self.above:7}{self.false / self.hours:14.2f}"
            f"{begin:+11.2f} s{end:+9.2f} s"
        )


HEADING = f"{'':44}{'found':>7}{'missed':>8}{'doubled':>9}{'above':>7}{'false an hour':>14}{'begin':>13}{'end':>11}"


def plant(random: np.random.Generator, hours: float, count: int, rules: Rules) -> list[Planted]:
    """Events at random times, of labels that are not denied, in the order of their starts."""
    leaves = np.setdiff1d(np.flatnonzero(~rules.denied), rules.above)
    planted: list[Planted] = []
    while len(planted) < count:
        index, start_s = int(random.choice(leaves)), float(random.uniform(10, hours * HOUR_S - 150))
        end_s = start_s + float(np.clip(random.lognormal(np.log(4), 1), 1.5, 120))
        if all(
            each.index != index or end_s + APART_S < each.start_s or each.end_s + APART_S < start_s for each in planted
        ):
            bursts = _bursts(random, start_s, end_s) if len(planted) % 2 else np.array([[start_s, end_s]])
            planted.append(Planted(index, start_s, end_s, max(1.5, random.normal(2.2, 0.7)), bursts))
    return sorted(planted, key=lambda each: each.start_s)


def _bursts(random: np.random.Generator, start_s: float, end_s: float) -> NDArray[np.float64]:
    bursts, at_s = [], start_s
    while at_s < end_s:
        burst_end_s = min(end_s, at_s + random.uniform(1, 2.5))
        bursts.append((at_s, burst_end_s))
        at_s = burst_end_s + random.uniform(0.3, 1.5)
    return np.array(bursts)


def windows(
    random: np.random.Generator, hours: float, planted: Sequence[Planted], rules: Rules
) -> Iterator[tuple[float, float, NDArray[np.float32]]]:
    """(start, end, scores) of every window that is not dropped."""
    quiet = random.normal(-5, 0.7, N)
    noise = random.normal(0, NOISE, N)
    hovers = _passing(random, hours, HOVERS_AN_HOUR, (60, 300), (-1.5, 0.2))
    spikes = _passing(random, hours, SPIKES_AN_HOUR, (0, HOP_S * 1.3), (2, 4))
    correlation = np.exp(-HOP_S)
    waiting = list(planted)
    there: list[Planted] = []
    for start_s in np.arange(0, hours * HOUR_S - WINDOW_S, HOP_S).tolist():
        end_s = start_s + WINDOW_S
        noise = correlation * noise + np.sqrt(1 - correlation**2) * random.normal(0, NOISE, N)
        logits = quiet + noise
        while waiting and waiting[0].start_s < end_s:
            there.append(waiting.pop(0))
        there = [each for each in there if each.end_s > start_s]
        for each in there:
            raised = [each.index, *rules.above[rules.below == each.index]]
            share = each.share(start_s, end_s)
            # An event that fills half of a window is found in every second case.
            level = -5 + (each.level + 5) * np.clip(1.6 * share, 0, 1)
            logits[raised] = np.maximum(logits[raised], level + noise[each.index])
        for from_s, to_s, index, level in (*hovers(end_s), *spikes(end_s)):
            if from_s < end_s <= to_s:
                logits[index] = max(logits[index], level + noise[index] / 2)
        if random.random() >= DROPPED:
            yield start_s, end_s, (1 / (1 + np.exp(-logits))).astype(np.float32)


Passing = Callable[[float], list[tuple[float, float, int, float]]]


def _passing(
    random: np.random.Generator, hours: float, an_hour: float, lasts_s: tuple[float, float], level: tuple[float, float]
) -> Passing:
    """Returns what is present at a time: (from, to, label, logits)."""
    count = round(hours * an_hour)
    begins = np.sort(random.uniform(0, hours * HOUR_S, count))
    ends = begins + HOP_S / 2 + random.uniform(*lasts_s, count)
    indices, levels = random.integers(0, N, count), random.uniform(*level, count)

    def about(time_s: float) -> list[tuple[float, float, int, float]]:
        first, last = np.searchsorted(begins, (time_s - lasts_s[1] - HOP_S, time_s))
        return list(zip(begins[first:last], ends[first:last], indices[first:last], levels[first:last], strict=True))

    return about


def tally(way: str, events: Iterable[Found], planted: Sequence[Planted], rules: Rules, hours: float) -> Tally:
    """An event counts for a planted one of its label if the two overlap in time."""
    of: dict[int, list[Found]] = {number: [] for number in range(len(planted))}
    above = false = 0
    for event in events:
        about = [n for n, each in enumerate(planted) if each.start_s < event.end_s and event.start_s < each.end_s]
        if mine := [n for n in about if planted[n].index == event.index]:
            of[mine[0]].append(event)
        elif any(event.index in rules.above[rules.below == planted[n].index] for n in about):
            above += 1
        else:
            false += 1
    late = [
        (found[0].start_s - planted[n].start_s, found[-1].end_s - planted[n].end_s) for n, found in of.items() if found
    ]
    return Tally(
        way=way,
        found=len(late),
        missed=len(planted) - len(late),
        doubled=sum(len(found) > 1 for found in of.values()),
        above=above,
        false=false,
        hours=hours,
        late_s=(float(np.median([begin for begin, _ in late])), float(np.median([end for _, end in late]))),
    )


def run(hours: float, count: int, seed: int = 0) -> tuple[list[Tally], float]:
    """Tallies of three ways to make events: each window, each run of windows, the tracker; CPU seconds per window."""
    random = np.random.default_rng(seed)
    rules = resolve(LABELS, (Calibration(),) * N, EventOptions())
    planted = plant(random, hours, count, rules)
    tracker, tracked = EventTracker(rules), list[Found]()
    singles, runs, sure = list[Found](), list[Found](), dict[int, Found]()
    took_s, number = 0.0, 0
    for start_s, end_s, scores in windows(random, hours, planted, rules):
        began_s = time.process_time()
        changes = tracker.track(scores, round(start_s * 1e9), round(end_s * 1e9), ("audio",))
        took_s, number = took_s + time.process_time() - began_s, number + 1
        tracked += [Found(each.index, each.start_ns / 1e9, each.end_ns / 1e9) for each in changes if each.kind == "end"]
        above = np.flatnonzero((scores >= rules.on) & ~rules.denied)
        singles += [Found(int(i), start_s, end_s) for i in above]
        now = {int(i): Found(int(i), sure[int(i)].start_s if int(i) in sure else start_s, end_s) for i in above}
        runs += [event for i, event in sure.items() if i not in now]
        sure = now
    tracked += [Found(each.index, each.start_ns / 1e9, each.end_ns / 1e9) for each in tracker.end("stopped")]
    ways = {
        "each window at or above its threshold": singles,
        "each run of such windows": [*runs, *sure.values()],
        "perceiverd's events, by default": tracked,
    }
    return [tally(way, events, planted, rules, hours) for way, events in ways.items()], took_s / number


def main() -> None:
    hours, count, seed = (float(each) for each in (*sys.argv[1:], *("24", "200", "0")[len(sys.argv) - 1 :]))
    tallies, window_s = run(hours, int(count), int(seed))
    print(f"{hours:g} h of windows every {HOP_S:g} s, {count:g} planted events of {N} labels\n")
    print(HEADING)
    print(*tallies, sep="\n")
    print(f"\n{window_s * 1e6:.0f} microseconds of CPU time per window in the tracker")


if __name__ == "__main__":
    main()
