"""`from perceiverd import tag`: files in, records out, in Python. Knows no format.

The records are those of `perceiverd tag --format jsonl`, as objects with types (`perceiverd.wire.records`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self

from perceiverd.core.errors import MediaError
from perceiverd.core.media import NS_PER_S
from perceiverd.model.card import DEFAULT, load_card
from perceiverd.model.engine import EngineName
from perceiverd.offline.decoding import Decoder
from perceiverd.offline.notebook import FileProgress, progress_for
from perceiverd.offline.tag import TagOptions, records
from perceiverd.offline.writers.rows import COLUMNS, rows_of
from perceiverd.pipeline.rules import EventOptions, resolve
from perceiverd.pipeline.tagger import Tagger
from perceiverd.sources.specs import MediaOptions
from perceiverd.wire.records import Record

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

HOP_S = 0.5
"""As `window.hop_s` of a configuration that does not say otherwise."""
Name = str | os.PathLike[str]


def tag(
    files: Name | Iterable[Name],
    *,
    events: EventOptions | bool = True,
    hop_s: float | None = None,
    top: int = 5,
    model: str | None = None,
    device: str = "auto",
    engine: EngineName = "auto",
    batch: int = 16,
    use: MediaOptions | None = None,
    skip_errors: bool = False,
    progress: bool | None = None,
) -> Tagging:
    """Tag audio and video files; an iterator of their records, as they come: header, scores, events, summary.

    `files`: paths and URLs, one or several. `events`: False makes none; options are those under `[events]` in a
    configuration. `hop_s`: seconds from the start of one window to the start of the next; by default 0.5, without
    events the length of a window. `top`: labels of each window. `model`, `device`, `engine` and `batch` are as on the
    command line. `use` chooses tracks and channels. `progress`: whether to show it; None shows it in a notebook and on
    a terminal.

    While iterating, MediaError is raised for a file that cannot be read to its end, after its records; with
    `skip_errors` it is kept in `Tagging.errors` instead. Raises ModelError and ConfigError, both PerceiverdError.
    """
    card = load_card(model or DEFAULT)
    rules = EventOptions() if events is True else events or None
    options = TagOptions(
        top=top,
        hop_ns=round((HOP_S if rules else card.geometry.window_ns / NS_PER_S) * NS_PER_S)
        if hop_s is None
        else round(hop_s * NS_PER_S),
        batch=batch,
        rules=resolve(card.labels, card.calibration, rules) if rules else None,
        use=use or MediaOptions(),
    )
    named = [files] if isinstance(files, (str, os.PathLike)) else list(files)
    tagger = _tagger(model or DEFAULT, device, engine)
    return Tagging([os.fspath(each) for each in named], tagger, options, progress, skip_errors=skip_errors)


class Tagging(Iterator[Record]):
    """The records of files, in order. Iterate once, or make a table of them.

    Decoding and tagging happen while it is iterated. Leaving it early ends both.
    """

    def __init__(
        self, files: Sequence[str], tagger: Tagger, options: TagOptions, progress: bool | None, *, skip_errors: bool
    ) -> None:
        self.errors: dict[str, str] = {}
        """With `skip_errors`: why a file could not be read to its end, by its name."""
        self._skip_errors = skip_errors
        self._records = self._all(files, tagger, options, progress)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Record:
        return next(self._records)

    def rows(self) -> Iterator[dict[str, Any]]:
        """The records as rows of one table: one for each label of a window, each event, each label of a summary.

        All rows have the columns of `--format csv`; what a record does not have is None.
        """
        for record in self:
            yield from rows_of(record)

    def to_pandas(self) -> pd.DataFrame:
        """The rows as a data frame of pandas, which must be installed."""
        import pandas as pd

        return pd.DataFrame(list(self.rows()), columns=list(COLUMNS))

    def to_polars(self) -> pl.DataFrame:
        """The rows as a data frame of polars, which must be installed."""
        import polars as pl

        kinds = dict.fromkeys(COLUMNS, pl.String) | {"index": pl.Int64}
        kinds |= dict.fromkeys(("start_s", "end_s", "score", "peak", "mean"), pl.Float64)
        return pl.DataFrame(list(self.rows()), schema=kinds)

    def _all(
        self, files: Sequence[str], tagger: Tagger, options: TagOptions, progress: bool | None
    ) -> Iterator[Record]:
        with progress_for(len(files), progress) as shown, Decoder(tagger.card.geometry.media_format) as decoder:
            for file in files:
                yield from self._one(file, tagger, options, decoder, shown)

    def _one(
        self, file: str, tagger: Tagger, options: TagOptions, decoder: Decoder, shown: FileProgress
    ) -> Iterator[Record]:
        shown.begin(file)
        decoder.on_length = shown.state_length
        try:
            yield from records(file, tagger, options, shown.advance, decoder)
        except MediaError as error:
            if not self._skip_errors:
                raise
            self.errors[file] = str(error)


@lru_cache(maxsize=1)
def _tagger(model: str, device: str, engine: EngineName) -> Tagger:
    """The last model is kept: a notebook tags one file after the other."""
    return Tagger(load_card(model), device, engine=engine)
