"""Events of rows of scores, counted as the daemon makes them, in little, and the false alarms among them."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from perceiverd.core.labels import ontology
from perceiverd.core.logs import log_event
from perceiverd.pipeline.rules import lineage
from perceiverd.pipeline.tagger import Tagger
from perceiverd.training.data.ambient import HOP_S, SIGHTS, SOUNDS, Stream, cut, right
from perceiverd.training.evaluation.metrics import rate

SMOOTHING_S = 0.5
"""Time constant of the smoothing."""
HOLD_S = 0.5
"""How long a label holds at or above its threshold before its event begins."""
HYSTERESIS = 1.0
"""How far below its threshold a label may fall before its event ends, in logits."""
MERGE_S = 2.0
"""What comes back so soon is the same event."""
BATCH = 32
SENSES = ("sound alone", "pictures alone", "sound and pictures")
EVERY_S = 1800
"""Of quiet, from one line of the log to the next."""

logger = logging.getLogger("perceiverd.training")

Scores = NDArray[np.floating]


@dataclass(frozen=True)
class DetectedEvent:
    """A label that began."""

    label: int
    window: int


def smoothed(scores: Scores, hop_s: float) -> NDArray[np.float64]:
    """(T, classes) scores of windows in a row, each label as sure as the surest below it, followed in time."""
    above, below = lineage(ontology().labels)
    out = scores.astype(np.float64)
    np.maximum.at(out.T, above, scores.T[below])
    weight = -math.expm1(-hop_s / SMOOTHING_S)
    for at in range(1, len(out)):
        out[at] = out[at - 1] + weight * (out[at] - out[at - 1])
    return out


def event_levels(scores: Scores, hop_s: float) -> NDArray[np.float64]:
    """(classes,): the threshold above which these scores (T, classes) would make no event of a label."""
    levels = smoothed(scores, hop_s)
    held = min(1 + math.ceil(HOLD_S / hop_s - 1e-9), len(levels))
    return np.asarray(np.lib.stride_tricks.sliding_window_view(levels, held, axis=0).min(axis=-1).max(axis=0))


def events(scores: Scores, thresholds: Scores, hop_s: float) -> list[DetectedEvent]:
    """The events of scores (T, classes), in order; one of a label takes the place of those of labels above it."""
    above, below = lineage(ontology().labels)
    levels = smoothed(scores, hop_s)
    off = 1 / (1 + math.exp(HYSTERESIS) * (1 / thresholds - 1))
    since, last = np.full(levels.shape[1], -1), np.full(levels.shape[1], -(10**9))
    going = np.zeros(levels.shape[1], np.bool_)
    found = []
    for at, level in enumerate(levels):
        last[going & (level >= off)] = at
        going &= (at - last) * hop_s <= MERGE_S
        holds = level >= thresholds
        since = np.where(holds, np.where(since < 0, at, since), -1)
        begins = holds & ~going & ((at - since) * hop_s >= HOLD_S - 1e-9)
        for label in np.flatnonzero(begins):
            inner = below[above == label]
            if not (going[inner] | holds[inner]).any():
                found.append(DetectedEvent(int(label), at))
        going |= begins
        last[begins] = at
    return found


def score(tagger: Tagger, stream: Stream) -> NDArray[np.float32]:
    """(T, classes), calibrated."""
    windows = cut(tagger.card.geometry, stream)
    parts = []
    while batch := list(islice(windows, BATCH)):
        parts.append(tagger.tag(batch))
    return np.concatenate(parts)


def stream_levels(tagger: Tagger, quiet: Iterator[Stream]) -> NDArray[np.float64]:
    """(streams, classes): the threshold above which a stream makes no event of a label; 0 where one would be right."""
    rows: list[NDArray[np.float64]] = []
    for stream in _told(quiet):
        row = event_levels(score(tagger, stream), HOP_S)
        row[[label.index for label in tagger.card.labels if label.name in right(stream)]] = 0
        rows.append(row)
    return np.stack(rows)


def _told(quiet: Iterator[Stream]) -> Iterator[Stream]:
    """The same streams; the log tells how far they have come."""
    seconds = 0
    for stream in quiet:
        yield stream
        if seconds // EVERY_S != (seconds := seconds + stream.seconds) // EVERY_S:
            log_event(logger, logging.INFO, "ambient-progress", hours=f"{seconds / 3600:.1f}")


def report(tagger: Tagger, quiet: Iterator[Stream]) -> Iterator[str]:
    """False alarms per hour at the model's thresholds, as Markdown: in all, by kind of quiet and by label."""
    card = tagger.card
    thresholds = np.array([one.threshold for one in card.calibration])
    hours, false, by_label, aside = (Counter[str]() for _ in range(4))
    for stream in _told(quiet):
        named, keys = right(stream), ("all", stream.sense, *stream.kinds)
        hours.update(dict.fromkeys(keys, stream.seconds))
        for event in events(score(tagger, stream), thresholds, HOP_S):
            name = card.labels[event.label].name
            if name in named:
                aside[name] += 1
            else:
                by_label[name] += 1
                false.update(keys)
    yield f"Quiet: {hours['all'] / 3600:.1f} hours, made, hop {HOP_S:g} s; false alarms at the default thresholds"
    yield ""
    yield "| | hours | false alarms | an hour [95 %] |"
    yield "|---|--:|--:|---|"
    for key in (key for key in ("all", *SENSES, *SOUNDS, *SIGHTS) if key in hours):
        length = hours[key] / 3600
        yield f"| {key} | {length:.2f} | {false[key]} | {rate(false[key], length)} |"
    yield ""
    for what, counts in (("False alarms by label", by_label), ("Right, so not counted", aside)):
        told = ", ".join(f"{name} {count}" for name, count in counts.most_common()) or "none"
        yield f"{what}: {told}."
        yield ""
