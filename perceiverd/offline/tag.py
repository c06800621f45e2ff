"""`perceiverd tag`: files and URLs through the same windower, tagger and tracker as live streams. It drops no window.

Memory use is constant: it holds one batch of windows, or less if many files share a memory. It does not know how
records are written.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from perceiverd import __version__
from perceiverd.core.errors import MediaError, PerceiverdError
from perceiverd.core.media import NS_PER_S
from perceiverd.model.card import Card
from perceiverd.model.geometry import Geometry
from perceiverd.offline.decoding import Decoder, is_url, shown_name
from perceiverd.offline.events import FileEvents, seconds
from perceiverd.offline.file_bars import FileBars
from perceiverd.offline.losses import log_losses
from perceiverd.offline.window_memory import share_of
from perceiverd.offline.writers.formats import Format
from perceiverd.offline.writers.lines import record_of
from perceiverd.offline.writers.writer import FileFacts, Piece, TaggedWindow, WriterOptions
from perceiverd.pipeline.rules import Rules
from perceiverd.pipeline.windower import Tolerance, Window, Windower
from perceiverd.sources.specs import MediaOptions
from perceiverd.wire.messages import Model, Tag, best
from perceiverd.wire.records import FileHeader, FileScores, FileSummary, Record

TOLERANCE = Tolerance(
    wait_ns=60 * NS_PER_S,
    chunk_gap_ns=15 * NS_PER_S // 1000,
    frame_gap_ns=NS_PER_S,
    conceal_ns=NS_PER_S // 5,
    is_stored=True,
)
"""A window gets both audio and video even if the file stores them up to 60 s apart."""


class Scorer(Protocol):
    """Scores windows: a `Tagger`, or what takes its place."""

    @property
    def card(self) -> Card:
        """The model."""

    def tag(self, windows: Sequence[Window]) -> NDArray[np.float32]:
        """Scores (windows, classes), 0..1."""


@dataclass(frozen=True, slots=True)
class TagOptions:
    """How to tag a file."""

    top: int
    """Labels of a record, best first."""
    hop_ns: int
    """Time from the start of one window to the start of the next."""
    batch: int
    """Windows that the network scores together."""
    conceal_ns: int = TOLERANCE.conceal_ns
    """The longest hole that is always filled, as in `Tolerance`."""
    rules: Rules | None = None
    """Make events by these rules."""
    sorts: bool = False
    """Give events in order of start, not as soon as they have ended."""
    use: MediaOptions = field(default_factory=MediaOptions)
    """Which tracks to use, and what to do with audio."""


def tag(
    files: Sequence[str],
    tagger: Scorer,
    options: TagOptions,
    form: Format,
    writing: WriterOptions = WriterOptions(),  # noqa: B008 - frozen
    decoder: Decoder | None = None,
) -> int:
    """Tag the files in order and write them to one output, `writing.target` or standard output; 1 if a file failed.

    `decoder` may be started already. If a file fails, its error is one line on standard error, after the records of
    what could be read; the next file is tagged. Raises PerceiverdError if the output cannot be written.
    """
    options = replace(options, sorts=form.sorts)
    failed = 0
    with (
        decoder or Decoder(tagger.card.geometry.media_format) as decoding,
        _opened(writing.target, files, is_binary=form.is_binary) as out,
        FileBars(out) as bars,
    ):
        writer = form.make(out, writing)
        for file in files:
            bars.begin(file)
            if bars.is_shown:
                decoding.on_length = bars.set_length
            try:
                if not is_url(file) and Path(file).is_dir():
                    raise MediaError(f"{shown_name(file)}: is a folder; --out FOLDER tags the files in folders")
                for piece in pieces(file, tagger, options, bars.advance, decoding):
                    writer.write(piece)
            except MediaError as error:
                failed += 1
                print(f"perceiverd: {error}", file=sys.stderr)
            bars.end()
        writer.close()
    return 1 if failed else 0


def pieces(
    file: str,
    tagger: Scorer,
    options: TagOptions,
    progress: Callable[[int], None] = lambda _: None,
    decoder: Decoder | None = None,
) -> Iterator[Piece]:
    """What is found in one file, as it comes: FileFacts, windows and events, FileSummary.

    Calls `progress` with the nanoseconds of media that are done. `decoder` decodes the file; without one, it gets one
    of its own. Raises MediaError after the pieces of what could be read; nothing comes before if nothing could.
    """
    with nullcontext(decoder) if decoder else Decoder(tagger.card.geometry.media_format) as decoding:
        yield from _pieces(file, tagger, options, progress, decoding)


def records(
    file: str,
    tagger: Scorer,
    options: TagOptions,
    progress: Callable[[int], None] = lambda _: None,
    decoder: Decoder | None = None,
) -> Iterator[Record]:
    """The same as records."""
    return (record_of(piece) for piece in pieces(file, tagger, options, progress, decoder))


def _pieces(
    file: str, tagger: Scorer, options: TagOptions, progress: Callable[[int], None], decoder: Decoder
) -> Iterator[Piece]:
    card, name = tagger.card, shown_name(file)
    model = Model(card.name, card.sha256)
    found = FileEvents(name, model, options.rules, sorts=options.sorts) if options.rules else None
    total, count, end_s = np.zeros(len(card.labels)), 0, 0.0
    fault: MediaError | None = None
    try:
        for window, scores in scored(file, tagger, options, decoder):
            if not count:
                yield FileFacts(_header(name, model, card, options, decoder), file, card, options.rules)
            count += 1
            total += scores
            end_s = seconds(window.end_ns)
            yield TaggedWindow(
                window, scores, _window_record(name, model, window, best(scores, card.labels, options.top))
            )
            if found:
                yield from found.track(window, scores)
            progress(window.end_ns)
    except MediaError as error:
        fault = error
    if found:
        yield from found.end()
    if count:
        error_line = str(fault) if fault else None
        labels = best(total / count, card.labels, options.top)
        yield FileSummary(file=name, windows=count, end_s=end_s, labels=labels, model=model, error=error_line)
    if fault:
        raise fault
    if not count:
        raise MediaError(f"{name}: has no media for the model {card.name}")


def _header(name: str, model: Model, card: Card, options: TagOptions, decoder: Decoder) -> FileHeader:
    return FileHeader(
        file=name,
        version=__version__,
        model=model,
        window_s=seconds(card.geometry.window_ns),
        hop_s=seconds(options.hop_ns),
        modalities=tuple(sorted(decoder.modalities)),
        length_s=decoder.length_s,
    )


def _window_record(name: str, model: Model, window: Window, labels: tuple[Tag, ...]) -> FileScores:
    return FileScores(
        file=name,
        start_s=seconds(window.start_ns),
        end_s=seconds(window.end_ns),
        modalities=window.modalities,
        model=model,
        labels=labels,
        filled_ms=window.filled_ms,
        missing=dict(window.missing),
    )


def scored(
    file: str, tagger: Scorer, options: TagOptions, decoder: Decoder
) -> Iterator[tuple[Window, NDArray[np.float32]]]:
    """The windows with their scores, tagged in batches. Raises MediaError after the windows before it are tagged."""
    geometry = tagger.card.geometry
    windows = _windows(file, geometry, options, decoder)
    batch: list[Window] = []
    fault: MediaError | None = None
    with share_of(tagger, shown_name(file), geometry) as share:
        while True:
            try:
                window = next(windows, None)
            except MediaError as error:
                window, fault = None, error
            if window is not None:
                batch.append(window)
            # A batch is smaller if other files need the memory.
            if batch and (window is None or len(batch) == options.batch or not share.more()):
                yield from zip(batch, tagger.tag(batch), strict=True)
                batch = []
                share.tagged()
            if window is None:
                break
    if fault:
        raise fault


def _windows(file: str, geometry: Geometry, options: TagOptions, decoder: Decoder) -> Iterator[Window]:
    windower = Windower(geometry, options.hop_ns, replace(TOLERANCE, conceal_ns=options.conceal_ns))
    for number, item in enumerate(decoder.read(file, options.use, windower.grid)):
        if not number:
            for modality in {"audio", "video"} - decoder.modalities:
                windower.end(modality)
        yield from windower.push(item)
    yield from windower.flush()
    log_losses(shown_name(file), windower.counts)


@contextmanager
def _opened(output: Path | None, files: Sequence[str], *, is_binary: bool) -> Iterator[IO[Any]]:
    if output is None:
        yield sys.stdout
        return
    if output.exists() and any(other.exists() and output.samefile(other) for other in map(Path, files)):
        raise PerceiverdError(f"{output}: is one of the files to tag; choose another output")
    try:
        out: IO[Any] = output.open("wb") if is_binary else output.open("w", encoding="utf-8")
    except OSError as error:
        raise PerceiverdError(
            f"{output}: cannot write the output: {error.strerror}; check the folder and the permissions"
        ) from error
    with out:
        yield out
