"""`perceiverd tag`: files and URLs through the same windower, tagger and tracker as live streams. It drops no window.

Memory use is constant: it holds one batch of windows. It does not know how records are written.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
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
from perceiverd.offline.decoding import Decoder, shown_name
from perceiverd.offline.losses import log_losses
from perceiverd.offline.records import FileEvent, FileExplanation, FileScores, FileSummary, Format, Record
from perceiverd.pipeline.rules import Rules
from perceiverd.pipeline.tagger import Tagger
from perceiverd.pipeline.tracker import EventChange, EventTracker
from perceiverd.pipeline.windower import Tolerance, Window, Windower
from perceiverd.sources.specs import MediaOptions
from perceiverd.wire.messages import best

TOLERANCE = Tolerance(
    wait_ns=60 * NS_PER_S,
    chunk_gap_ns=15 * NS_PER_S // 1000,
    frame_gap_ns=NS_PER_S,
    conceal_ns=NS_PER_S // 5,
    is_stored=True,
)
"""A window gets both audio and video even if the file stores them up to 60 s apart."""


@dataclass(frozen=True, slots=True)
class TagOptions:
    """Which records of a file to make."""

    top: int
    """Labels of a record, best first."""
    hop_ns: int
    """Time from the start of one window to the start of the next."""
    batch: int
    """Windows that the network scores together."""
    summary: bool
    """Make one record for the file, with the mean over its windows, instead of one for each window."""
    conceal_ns: int = TOLERANCE.conceal_ns
    """The longest hole that is always filled, as in `Tolerance`."""
    rules: Rules | None = None
    """Make one record for each event by these rules, instead of one for each window."""
    use: MediaOptions = field(default_factory=MediaOptions)
    """Which tracks to use, and what to do with audio."""


def tag(
    files: Sequence[str],
    tagger: Tagger,
    options: TagOptions,
    write: Format,
    output: Path | None = None,
    decoder: Decoder | None = None,
) -> int:
    """Tag the files in order and write records to `output`, or to standard output; returns 1 if a file failed, else 0.

    `decoder` may be started already. If a file fails, its error is one line on standard error, after the records of
    what could be read; the next file is tagged. Raises PerceiverdError if `output` cannot be written.
    """
    failed = 0
    with (
        decoder or Decoder(tagger.card.geometry.media_format) as decoding,
        _opened(output, files) as out,
        _bars(out) as bars,
    ):
        for file in files:
            bar = bars.add_task(shown_name(file), total=None)
            if not bars.disable:
                decoding.on_length = partial(_set_length, bars, bar)
            try:
                for record in records(file, tagger, options, partial(_advance, bars, bar), decoding):
                    out.write(write(record))
                    out.flush()
            except MediaError as error:
                failed += 1
                print(f"perceiverd: {error}", file=sys.stderr)
            bars.remove_task(bar)
    return 1 if failed else 0


def records(
    file: str,
    tagger: Tagger,
    options: TagOptions,
    progress: Callable[[int], None] = lambda _: None,
    decoder: Decoder | None = None,
) -> Iterator[Record]:
    """The records of one file. Calls `progress` with the nanoseconds of media that are done.

    `decoder` decodes it; without one, it gets one of its own. Raises MediaError after the records of what could be
    read.
    """
    with nullcontext(decoder) if decoder else Decoder(tagger.card.geometry.media_format) as decoding:
        yield from _records(file, tagger, options, progress, decoding)


def _records(
    file: str, tagger: Tagger, options: TagOptions, progress: Callable[[int], None], decoder: Decoder
) -> Iterator[Record]:
    card, name = tagger.card, shown_name(file)
    tracker = EventTracker(options.rules) if options.rules else None
    total, count = np.zeros(len(card.labels)), 0
    fault: MediaError | None = None
    try:
        for window, scores in _scored(file, tagger, options, decoder):
            count += 1
            if options.summary:
                total += scores
            elif tracker:
                changes = tracker.track(scores, window.start_ns, window.end_ns, window.modalities)
                yield from _ended(name, changes, card.labels)
            else:
                start_s, end_s = _seconds(window.start_ns), _seconds(window.end_ns)
                labels = best(scores, card.labels, options.top)
                yield FileScores(
                    name, start_s, end_s, window.modalities, labels, window.filled_ms, dict(window.missing)
                )
            progress(window.end_ns)
    except MediaError as error:
        fault = error
    if tracker:
        yield from _ended(name, tracker.end("stream ended"), card.labels)
    if fault:
        raise fault
    if not count:
        raise MediaError(f"{name}: has no media for the model {card.name}")
    if options.summary:
        yield FileSummary(name, count, best(total / count, card.labels, options.top))


def _ended(file: str, changes: Iterable[EventChange], labels: Sequence[Label]) -> Iterator[FileEvent]:
    """The events among these changes that have ended."""
    return (_event(file, change, labels[change.index]) for change in changes if change.kind == "end")


def _event(file: str, change: EventChange, label: Label) -> FileEvent:
    start_s, end_s = _seconds(change.start_ns), _seconds(change.end_ns)
    explanation = FileExplanation(
        score=round(change.smoothed, 6),
        on=round(change.on, 6),
        off=round(change.off, 6),
        windows=change.windows,
        reason=change.reason,
    )
    return FileEvent(
        file=file,
        id=change.id,
        mid=label.mid,
        index=label.index,
        name=label.name,
        start_s=start_s,
        end_s=end_s,
        duration_s=round(end_s - start_s, 3),
        peak=round(change.peak, 6),
        mean=round(change.mean, 6),
        modalities=change.modalities,
        continues=change.continues,
        explanation=explanation,
    )


def _scored(
    file: str, tagger: Tagger, options: TagOptions, decoder: Decoder
) -> Iterator[tuple[Window, NDArray[np.float32]]]:
    """The windows with their scores, tagged in batches. Raises MediaError after the windows before it are tagged."""
    windows = _windows(file, tagger.card.geometry, options, decoder)
    batch: list[Window] = []
    fault: MediaError | None = None
    while True:
        try:
            window = next(windows, None)
        except MediaError as error:
            window, fault = None, error
        if window is not None:
            batch.append(window)
        if batch and (window is None or len(batch) == options.batch):
            yield from zip(batch, tagger.tag(batch), strict=True)
            batch = []
        if window is None:
            break
    if fault:
        raise fault


def _windows(file: str, geometry: Geometry, options: TagOptions, decoder: Decoder) -> Iterator[Window]:
    windower = Windower(geometry, options.hop_ns, replace(TOLERANCE, conceal_ns=options.conceal_ns))
    for number, item in enumerate(decoder.read(file, options.use)):
        if not number:
            for modality in {"audio", "video"} - decoder.modalities:
                windower.end(modality)
        yield from windower.push(item)
    yield from windower.flush()
    log_losses(shown_name(file), windower.counts)


def _seconds(time_ns: int) -> float:
    """Seconds to the millisecond, because containers round times and codecs start a few samples before zero."""
    return round(time_ns / NS_PER_S, 3) + 0.0  # never -0.0


@contextmanager
def _opened(output: Path | None, files: Sequence[str]) -> Iterator[TextIO]:
    if output is None:
        yield sys.stdout
        return
    if output.exists() and any(other.exists() and output.samefile(other) for other in map(Path, files)):
        raise PerceiverdError(f"{output}: is one of the files to tag; choose another output")
    try:
        out = output.open("w", encoding="utf-8")
    except OSError as error:
        raise PerceiverdError(
            f"{output}: cannot write the output: {error.strerror}; check the folder and the permissions"
        ) from error
    with out:
        yield out


def _bars(out: TextIO) -> Progress:
    """Progress bars on standard error, if it is a terminal and the records go elsewhere."""
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


def _advance(bars: Progress, bar: TaskID, done_ns: int) -> None:
    bars.update(bar, completed=done_ns / NS_PER_S)


def _set_length(bars: Progress, bar: TaskID, length_s: float) -> None:
    bars.update(bar, total=length_s)
