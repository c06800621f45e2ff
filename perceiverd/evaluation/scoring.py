"""Runs models over the files of a manifest: scores of units with their facts, detections, and the files that failed.

Files go through the same decoder, windower and tagger as in `tag`. A unit is what a score is compared with the truth
for: a clip, whose score is the mean over its windows, or a single window. It knows no measure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import Self

import numpy as np
from numpy.typing import NDArray

from perceiverd.core.errors import MediaError
from perceiverd.core.media import NS_PER_S
from perceiverd.evaluation.detections import Detection, StretchTracker, Threshold, rules_at
from perceiverd.evaluation.metrics import Facts
from perceiverd.evaluation.truth import MeasuredLabels, Stretch, TruthKind, clip_facts, window_facts
from perceiverd.offline import tag
from perceiverd.offline.decoding import Decoder
from perceiverd.offline.joint import ManyFilesScorer, jobs_for, shared
from perceiverd.offline.tag import Scorer
from perceiverd.offline.window_memory import WindowMemory
from perceiverd.pipeline.rules import EventOptions, Rules
from perceiverd.pipeline.tagger import Tagger
from perceiverd.pipeline.windower import Window

SPARE_S = 0.5
"""If a file's name leaves it open, a file at most this much longer than its clip counts as the clip itself."""
HALF = 0.5
"""A window belongs to a clip if it covers this share of the window or of the clip."""

Scores = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ScoringOptions:
    """How files are tagged, and which events are looked for."""

    truth: TruthKind
    hop_ns: int
    batch: int
    conceal_ns: int
    thresholds: tuple[Threshold, ...]
    events: EventOptions
    jobs: int | None = None
    """Files that are read at the same time; None: as many as there are cores if a GPU scores, otherwise one."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A row of the manifest that is not measured."""

    line: int
    file: Path
    error: str


@dataclass(frozen=True, eq=False)
class ScoredStretch:
    """One stretch as one model sees it."""

    stretch: Stretch
    length_s: float
    """From its start to its end."""
    edges_s: NDArray[np.float64]
    """(windows, 2): start and end of each window within the file."""
    scores: Scores
    """(windows, labels)"""
    detections: Mapping[Threshold, Sequence[Detection]]
    crossings: Mapping[Threshold, int]

    def unit_scores(self, kind: TruthKind) -> Scores:
        """Scores (units, labels)."""
        return self.scores if kind == "events" else self.scores.mean(axis=0, keepdims=True)

    def unit_facts(self, kind: TruthKind, labels: MeasuredLabels) -> Facts:
        """Facts (units, labels)."""
        if kind == "clips":
            return clip_facts(self.stretch, labels)[None]
        return np.stack([window_facts(self.stretch, labels, start, end) for start, end in self.edges_s.tolist()])


@dataclass(eq=False)
class ScoredManifest:
    """What models have made of a manifest."""

    by_model: list[list[ScoredStretch]] = field(default_factory=list)
    """The same stretches in the same order for each model."""
    failures: list[Failure] = field(default_factory=list)


def score(
    files: Mapping[Path, Sequence[Stretch]],
    labels: MeasuredLabels,
    taggers: Sequence[Tagger],
    options: ScoringOptions,
    progress: Callable[[Path, int], None] = lambda *_: None,
) -> ScoredManifest:
    """Score all stretches with all models. A file that one model cannot read to its end is measured for none.

    Calls `progress` with each file that is done and the number of failures so far.
    """
    found = ScoredManifest([[] for _ in taggers])
    with ExitStack() as stack:
        memory = WindowMemory()  # a file is read for one model after the other
        scorers = [stack.enter_context(shared(tagger, memory)) for tagger in taggers]
        jobs = min(options.jobs or jobs_for(taggers[0], on_cpu=1), max(1, len(files)))
        reader = stack.enter_context(_Readers(labels, scorers, options, jobs))
        for file, own, results in reader.read(files):
            if isinstance(results, MediaError):
                found.failures += [Failure(each.line, file, str(results)) for each in own]
            else:
                _add(found, own, results)
            progress(file, len(found.failures))
    return found


Results = list[list[ScoredStretch | None]]
"""Of each model, the stretches of a file."""


class _Readers:
    """A context manager: reads files, several at the same time, and gives their results in order."""

    def __init__(
        self, labels: MeasuredLabels, scorers: Sequence[ManyFilesScorer], options: ScoringOptions, jobs: int
    ) -> None:
        self._memories = {scorer.memory for scorer in scorers}
        self._decoders = [
            [Decoder(scorer.card.geometry.media_format, jobs=jobs) for scorer in scorers] for _ in range(jobs)
        ]
        self._free: SimpleQueue[list[_Scorer]] = SimpleQueue()
        for decoders in self._decoders:
            self._free.put([_Scorer(labels, *pair, options) for pair in zip(scorers, decoders, strict=True)])
        self._jobs = jobs
        self._threads = ThreadPoolExecutor(jobs, thread_name_prefix="eval")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Also after Ctrl-C: nobody waits for the rest of a file."""
        decoders = [decoder for each in self._decoders for decoder in each]
        for memory in self._memories:
            memory.end()
        self._threads.shutdown(wait=False, cancel_futures=True)
        for decoder in decoders:
            decoder.interrupt()
        self._threads.shutdown()
        for decoder in decoders:
            decoder.__exit__(None, None, None)

    def read(
        self, files: Mapping[Path, Sequence[Stretch]]
    ) -> Iterator[tuple[Path, Sequence[Stretch], Results | MediaError]]:
        """Each file with its stretches, and their results or why it cannot be read."""
        under_way: deque[tuple[Path, Sequence[Stretch], Future[Results]]] = deque()
        left = iter(files.items())
        while True:
            for file, own in islice(left, self._jobs + 1 - len(under_way)):
                under_way.append((file, own, self._threads.submit(self._one, file, own)))
            if not under_way:
                return
            file, own, future = under_way.popleft()
            try:
                yield file, own, future.result()
            except MediaError as error:
                yield file, own, error

    def _one(self, file: Path, own: Sequence[Stretch]) -> Results:
        scorers = self._free.get()
        try:
            return [scorer.score(file, own) for scorer in scorers]
        finally:
            self._free.put(scorers)


def _add(found: ScoredManifest, own: Sequence[Stretch], results: Sequence[Sequence[ScoredStretch | None]]) -> None:
    """Keep the stretches that have windows for every model."""
    for stretch, *each in zip(own, *results, strict=True):
        scored = [one for one in each if one is not None]
        if len(scored) == len(each):
            for into, one in zip(found.by_model, scored, strict=True):
                into.append(one)
        else:
            until = "its end" if stretch.end_s is None else f"{stretch.end_s:g} s"
            error = f"{stretch.file}: has no media from {stretch.start_s:g} s to {until}"
            found.failures.append(Failure(stretch.line, stretch.file, error))


class _Scorer:
    """One model with its decoder."""

    def __init__(self, labels: MeasuredLabels, tagger: Scorer, decoder: Decoder, options: ScoringOptions) -> None:
        card = tagger.card
        index = {label.mid: label.index for label in card.labels}
        self._columns = np.array([index[label.mid] for label in labels.labels], np.intp)
        self._tagger, self._decoder = tagger, decoder
        self._rules = {
            threshold: rules_at(threshold, labels, card.labels, card.calibration, options.events)
            for threshold in options.thresholds
        }
        self._options = tag.TagOptions(top=1, hop_ns=options.hop_ns, batch=options.batch, conceal_ns=options.conceal_ns)

    def score(self, file: Path, own: Sequence[Stretch]) -> list[ScoredStretch | None]:
        """The stretches of one file; None for one without a window. Raises MediaError if the file cannot be read."""
        collectors = [_StretchCollector(stretch, self._rules, self._columns) for stretch in own]
        length_s = 0.0
        for window, scores in self._windows(file, own):
            length_s = window.end_ns / NS_PER_S
            for collector in collectors:
                collector.add(window, scores)
        return [collector.finish(length_s) for collector in collectors]

    def _windows(self, file: Path, own: Sequence[Stretch]) -> Iterator[tuple[Window, Scores]]:
        """The windows of a file up to the last one that a stretch needs."""
        ends = [each.end_s + SPARE_S if each.end_s is not None else np.inf for each in own]
        last_ns = max(ends) * NS_PER_S
        for window, scores in tag.scored(str(file), self._tagger, self._options, self._decoder):
            if window.start_ns > last_ns:
                break
            yield window, scores


class _StretchCollector:
    """Collects the windows of a stretch. If the file may be the clip itself, all of its windows too."""

    def __init__(self, stretch: Stretch, rules: Mapping[Threshold, Rules], columns: NDArray[np.intp]) -> None:
        self._stretch = stretch
        end_s = np.inf if stretch.end_s is None else stretch.end_s
        self._inside = _Windows(stretch.start_s, end_s, rules, columns)
        self._longest_s = end_s - stretch.start_s + SPARE_S
        self._whole = _Windows(0.0, np.inf, rules, columns) if stretch.cut else None

    def add(self, window: Window, scores: Scores) -> None:
        self._inside.add(window, scores)
        if self._whole and window.end_ns > self._longest_s * NS_PER_S:
            self._whole = None  # the file is longer than the clip
        if self._whole:
            self._whole.add(window, scores)

    def finish(self, file_s: float) -> ScoredStretch | None:
        """`file_s`: the length of the file."""
        return (self._whole or self._inside).finish(self._stretch, file_s)


class _Windows:
    """The windows that lie between two times, at least by half."""

    def __init__(
        self, start_s: float, end_s: float, rules: Mapping[Threshold, Rules], columns: NDArray[np.intp]
    ) -> None:
        self._start_s, self._end_s, self._columns = start_s, end_s, columns
        self._trackers = {threshold: StretchTracker(rule, columns) for threshold, rule in rules.items()}
        self._edges: list[tuple[float, float]] = []
        self._scores: list[Scores] = []

    def add(self, window: Window, scores: Scores) -> None:
        start_s, end_s = window.start_ns / NS_PER_S, window.end_ns / NS_PER_S
        shared_s = min(end_s, self._end_s) - max(start_s, self._start_s)
        if shared_s < HALF * min(end_s - start_s, self._end_s - self._start_s):
            return
        self._edges.append((start_s, end_s))
        self._scores.append(scores[self._columns])
        for tracker in self._trackers.values():
            tracker.add(window, scores)

    def finish(self, stretch: Stretch, file_s: float) -> ScoredStretch | None:
        if not self._scores:
            return None
        for tracker in self._trackers.values():
            tracker.finish()
        return ScoredStretch(
            stretch,
            min(self._end_s, file_s) - self._start_s,
            np.array(self._edges),
            np.stack(self._scores),
            {threshold: tuple(tracker.found) for threshold, tracker in self._trackers.items()},
            {threshold: tracker.crossings for threshold, tracker in self._trackers.items()},
        )
