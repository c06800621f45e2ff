"""`perceiverd tag`: files and URLs through the same windower, tagger and tracker as live streams; nothing is dropped.

Works in constant memory: one batch of windows is all that is held. It knows nothing of how a record is written.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from perceiverd.core.errors import MediaError, PerceiverdError
from perceiverd.core.labels import Label
from perceiverd.core.media import NS_PER_S
from perceiverd.model.geometry import Geometry
from perceiverd.offline.records import FileEvent, FileScores, FileSummary, Format, Record
from perceiverd.pipeline.rules import Rules
from perceiverd.pipeline.tagger import Tagger
from perceiverd.pipeline.tracker import EventChange, EventTracker
from perceiverd.pipeline.windower import Tolerance, Window, Windower
from perceiverd.sources.decode import container
from perceiverd.sources.specs import shown
from perceiverd.wire.messages import best

PATIENCE = Tolerance(wait_ns=10 * NS_PER_S, chunk_gap_ns=NS_PER_S // 50, frame_gap_ns=NS_PER_S)
"""A file waits: sound and pictures may be written this far apart in it, and a window still gets both."""

OPEN_TIMEOUT_S, READ_TIMEOUT_S = 10.0, 30.0
"""Of URLs; a file answers at once or not at all."""


@dataclass(frozen=True, slots=True)
class TagOptions:
    """What is to be told of a file."""

    top: int
    """Labels of a record, best first."""
    hop_ns: int
    """From the start of one window to the start of the next."""
    batch: int
    """Windows that go through the network together."""
    summary: bool
    """One record for the file, with the mean over its windows, in place of one for each window."""
    rules: Rules | None = None
    """One record for each event by these rules, in place of one for each window."""


def tag(files: Sequence[str], tagger: Tagger, wish: TagOptions, write: Format, output: Path | None = None) -> int:
    """Tag the files one after the other, on standard output or into `output`; 1 where one failed, else 0.

    A file that fails costs no other: its fault is told in a line, after what could be read of it.
    Raises PerceiverdError where `output` can't be written.
    """
    failed = 0
    with _opened(output, files) as out, _bars(out) as bars:
        for file in files:
            bar = bars.add_task(_shown(file), total=None if bars.disable else _length_s(file))
            try:
                for record in records(file, tagger, wish, partial(_advance, bars, bar)):
                    out.write(write(record))
                    out.flush()
            except MediaError as error:
                failed += 1
                print(f"perceiverd: {error}", file=sys.stderr)
            bars.remove_task(bar)
    return 1 if failed else 0


def records(
    file: str, tagger: Tagger, wish: TagOptions, seen: Callable[[int], None] = lambda _: None
) -> Iterator[Record]:
    """What the model makes of the file, by window, by event or in sum; `seen` hears how many nanoseconds are done.

    Raises MediaError, after the records of what could be read.
    """
    card, name = tagger.card, _shown(file)
    tracker = EventTracker(wish.rules) if wish.rules else None
    total, count = np.zeros(len(card.labels)), 0
    fault: MediaError | None = None
    try:
        for window, scores in _scored(file, tagger, wish):
            count += 1
            if wish.summary:
                total += scores
            elif tracker:
                changes = tracker.track(scores, window.start_ns, window.end_ns, window.modalities)
                yield from _over(name, changes, card.labels)
            else:
                start_s, end_s = _seconds(window.start_ns), _seconds(window.end_ns)
                yield FileScores(name, start_s, end_s, best(scores, card.labels, wish.top), window.modalities)
            seen(window.end_ns)
    except MediaError as error:
        fault = error
    if tracker:
        yield from _over(name, tracker.end("stream ended"), card.labels)
    if fault:
        raise fault
    if not count:
        raise MediaError(f"{name}: nothing in it that {card.name} could hear or see")
    if wish.summary:
        yield FileSummary(name, count, best(total / count, card.labels, wish.top))


def _over(file: str, changes: Iterable[EventChange], labels: Sequence[Label]) -> Iterator[FileEvent]:
    """The events that have ended."""
    for change in changes:
        if change.kind == "end":
            label = labels[change.index]
            yield FileEvent(
                file=file,
                id=change.id,
                start_s=_seconds(change.start_ns),
                end_s=_seconds(change.end_ns),
                mid=label.mid,
                index=label.index,
                name=label.name,
                peak=round(change.peak, 6),
                mean=round(change.mean, 6),
                modalities=change.modalities,
                windows=change.windows,
                on=round(change.on, 6),
                off=round(change.off, 6),
                reason=change.reason,
                continues=change.continues,
            )


def _scored(file: str, tagger: Tagger, wish: TagOptions) -> Iterator[tuple[Window, NDArray[np.float32]]]:
    """Windows with their scores, tagged in batches. What comes before a fault is tagged before it is raised."""
    windows = _windows(file, tagger.card.geometry, wish.hop_ns)
    batch: list[Window] = []
    fault: MediaError | None = None
    while True:
        try:
            window = next(windows, None)
        except MediaError as error:
            window, fault = None, error
        if window is not None:
            batch.append(window)
        if batch and (window is None or len(batch) == wish.batch):
            yield from zip(batch, tagger.tag(batch), strict=True)
            batch = []
        if window is None:
            break
    if fault:
        raise fault


def _windows(file: str, geometry: Geometry, hop_ns: int) -> Iterator[Window]:
    windower = Windower(geometry, hop_ns, PATIENCE)
    wanted = geometry.media_format
    if _is_url(file):
        media = container.read(file, wanted, open_timeout_s=OPEN_TIMEOUT_S, read_timeout_s=READ_TIMEOUT_S)
    else:
        media = container.read(Path(file), wanted)
    for item in media:
        yield from windower.push(item)
    yield from windower.flush()


def _seconds(time_ns: int) -> float:
    """To the millisecond: containers round times, and codecs begin some samples before zero."""
    return round(time_ns / NS_PER_S, 3) + 0.0  # never -0.0


def _is_url(file: str) -> bool:
    return "://" in file


def _shown(file: str) -> str:
    """The name as UTF-8 can hold it; a URL without its password."""
    return shown(file) if _is_url(file) else os.fsencode(file).decode(errors="replace")


@contextmanager
def _opened(output: Path | None, files: Sequence[str]) -> Iterator[TextIO]:
    if output is None:
        yield sys.stdout
        return
    if output.exists() and any(other.exists() and output.samefile(other) for other in map(Path, files)):
        raise PerceiverdError(f"{output}: is one of the files to tag, and is left as it is")
    try:
        out = output.open("w", encoding="utf-8")
    except OSError as error:
        raise PerceiverdError(f"{output}: cannot be written ({error.strerror})") from error
    with out:
        yield out


def _bars(out: TextIO) -> Progress:
    """Progress on standard error, where that is a terminal and no records scroll by on it."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
        disable=not sys.stderr.isatty() or out.isatty(),
    )


def _advance(bars: Progress, bar: TaskID, seen_ns: int) -> None:
    bars.update(bar, completed=seen_ns / NS_PER_S)


def _length_s(file: str) -> float | None:
    """How long the file says it is; None where it says nothing, or is a URL, which would be opened twice."""
    try:
        return None if _is_url(file) else container.probe(Path(file)).duration_s
    except MediaError:  # told when it is read
        return None
