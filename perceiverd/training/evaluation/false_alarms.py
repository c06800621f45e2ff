"""Events in rows of scores, by a short form of the daemon's rules, and the false alarms among them."""

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
from perceiverd.evaluation.metrics import rate
from perceiverd.pipeline.rules import lineage
from perceiverd.pipeline.tagger import Tagger
from perceiverd.training.data.ambient import HOP_S, VIDEO_KINDS, AmbientStream, correct_labels, windows_of
from perceiverd.training.data.ambient_audio import AUDIO_KINDS

SMOOTHING_S = 0.5
"""Time constant of the smoothing."""
HOLD_S = 0.5
"""How long a label must stay at or above its threshold before its event begins."""
HYSTERESIS = 1.0
"""How far below its threshold a label may fall before its event ends, in logits."""
MERGE_S = 2.0
"""A label that returns within this time continues its event."""
BATCH = 32
SENSES = ("sound alone", "pictures alone", "sound and pictures")
LOG_EVERY_S = 1800
"""Seconds of media between two log lines."""

logger = logging.getLogger("perceiverd.training")

Scores = NDArray[np.floating]


@dataclass(frozen=True)
class DetectedEvent:
    """The begin of an event."""

    label: int
    window: int


def smoothed(scores: Scores, hop_s: float) -> NDArray[np.float64]:
    """(T, classes) scores of consecutive windows, smoothed in time. A label is at least as high as those below it."""
    above, below = lineage(ontology().labels)
    out = scores.astype(np.float64)
    np.maximum.at(out.T, above, scores.T[below])
    weight = -math.expm1(-hop_s / SMOOTHING_S)
    for at in range(1, len(out)):
        out[at] = out[at - 1] + weight * (out[at] - out[at - 1])
    return out


def event_levels(scores: Scores, hop_s: float) -> NDArray[np.float64]:
    """(classes,): the threshold above which these scores (T, classes) make no event of a label."""
    levels = smoothed(scores, hop_s)
    held = min(1 + math.ceil(HOLD_S / hop_s - 1e-9), len(levels))
    return np.asarray(np.lib.stride_tricks.sliding_window_view(levels, held, axis=0).min(axis=-1).max(axis=0))


def events(scores: Scores, thresholds: Scores, hop_s: float) -> list[DetectedEvent]:
    """The events of scores (T, classes), in order. A label has no event while a label below it has one."""
    above, below = lineage(ontology().labels)
    levels = smoothed(scores, hop_s)
    off = 1 / (1 + math.exp(HYSTERESIS) * (1 / thresholds - 1))
    since, last = np.full(levels.shape[1], -1), np.full(levels.shape[1], -(10**9))
    active = np.zeros(levels.shape[1], np.bool_)
    found = []
    for at, level in enumerate(levels):
        last[active & (level >= off)] = at
        active &= (at - last) * hop_s <= MERGE_S
        holds = level >= thresholds
        since = np.where(holds, np.where(since < 0, at, since), -1)
        begins = holds & ~active & ((at - since) * hop_s >= HOLD_S - 1e-9)
        for label in np.flatnonzero(begins):
            inner = below[above == label]
            if not (active[inner] | holds[inner]).any():
                found.append(DetectedEvent(int(label), at))
        active |= begins
        last[begins] = at
    return found


def score(tagger: Tagger, stream: AmbientStream) -> NDArray[np.float32]:
    """(T, classes), calibrated."""
    windows = windows_of(tagger.card.geometry, stream)
    parts = []
    while batch := list(islice(windows, BATCH)):
        parts.append(tagger.tag(batch))
    return np.concatenate(parts)


def stream_levels(tagger: Tagger, streams: Iterator[AmbientStream]) -> NDArray[np.float64]:
    """(streams, classes): the threshold above which a stream makes no event of a label.

    0 for labels that are correct for the stream.
    """
    rows: list[NDArray[np.float64]] = []
    for stream in _logged(streams):
        row = event_levels(score(tagger, stream), HOP_S)
        row[[label.index for label in tagger.card.labels if label.name in correct_labels(stream)]] = 0
        rows.append(row)
    return np.stack(rows)


def _logged(streams: Iterator[AmbientStream]) -> Iterator[AmbientStream]:
    """The same streams; progress is logged."""
    seconds = 0
    for stream in streams:
        yield stream
        if seconds // LOG_EVERY_S != (seconds := seconds + stream.seconds) // LOG_EVERY_S:
            log_event(logger, logging.INFO, "ambient-progress", hours=f"{seconds / 3600:.1f}")


def report(tagger: Tagger, streams: Iterator[AmbientStream]) -> Iterator[str]:
    """False alarms per hour at the model's thresholds, as Markdown: in all, by kind of stream and by label."""
    card = tagger.card
    thresholds = np.array([one.threshold for one in card.calibration])
    seconds, false, by_label, correct = (Counter[str]() for _ in range(4))
    for stream in _logged(streams):
        expected, keys = correct_labels(stream), ("all", stream.modality, *stream.kinds)
        seconds.update(dict.fromkeys(keys, stream.seconds))
        for event in events(score(tagger, stream), thresholds, HOP_S):
            name = card.labels[event.label].name
            if name in expected:
                correct[name] += 1
            else:
                by_label[name] += 1
                false.update(keys)
    yield (
        f"Generated media without events: {seconds['all'] / 3600:.1f} hours, hop {HOP_S:g} s;"
        " false alarms at the default thresholds"
    )
    yield ""
    yield "| | hours | false alarms | per hour [95 %] |"
    yield "|---|--:|--:|---|"
    for key in (key for key in ("all", *SENSES, *AUDIO_KINDS, *VIDEO_KINDS) if key in seconds):
        hours = seconds[key] / 3600
        yield f"| {key} | {hours:.2f} | {false[key]} | {rate(false[key], hours)} |"
    yield ""
    for what, counts in (("False alarms by label", by_label), ("Correct, so not counted", correct)):
        listed = ", ".join(f"{name} {count}" for name, count in counts.most_common()) or "none"
        yield f"{what}: {listed}."
        yield ""
