"""What one worker does: it loads the model once and tags one file after the other. Knows nothing of Ray.

The scores are those of `perceiverd tag --format parquet`, made by the same functions.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import msgspec
from fsspec.core import url_to_fs

from perceiverd import __version__
from perceiverd.core.errors import MediaError, PerceiverdError
from perceiverd.model.card import load_card
from perceiverd.model.engine import EngineName
from perceiverd.offline import tag
from perceiverd.offline.cluster.inputs import is_bucket
from perceiverd.offline.cluster.layout import ClusterOutputs, stem_of
from perceiverd.offline.decoding import Decoder, shown_name
from perceiverd.offline.writers.parquet import ScoresParquet
from perceiverd.offline.writers.writer import FileFacts, TaggedWindow
from perceiverd.pipeline.tagger import Tagger


@dataclass(frozen=True, slots=True)
class ClusterJob:
    """What every worker is told."""

    outputs: str
    """Folder or bucket."""
    model: str
    device: str
    engine: EngineName
    threads: int
    options: tag.TagOptions
    version: str = __version__
    """Of the program that starts the run; all workers must have it."""


@dataclass(frozen=True, slots=True)
class FileOutcome:
    """What became of one file."""

    file: str
    """As it was given, without a password."""
    windows: int
    end_s: float
    """The end of its last window."""
    error: str
    """Empty if all of it was tagged."""
    worker: int
    """The process that did it."""


class FileTagger:
    """A loaded model with its decoder, for the life of the worker process."""

    def __init__(self, job: ClusterJob) -> None:
        """Raises PerceiverdError if this machine cannot do the job."""
        if job.version != __version__:
            raise PerceiverdError(
                f"this worker has perceiverd {__version__}, not {job.version}; install the same version"
            )
        self._options = job.options
        self._outputs = ClusterOutputs(job.outputs)
        card = load_card(job.model)
        self._tagger = Tagger(card, job.device, job.threads, job.engine)
        # Its process ends with this one. Each worker has one core, so it decodes with one thread.
        self._decoder = Decoder(card.geometry.media_format, jobs=len(os.sched_getaffinity(0)))

    def close(self) -> None:
        """End the process that decodes."""
        self._decoder.__exit__(None, None, None)

    def tag(self, file: str) -> FileOutcome:
        """Tag a file and write its outputs. Media that cannot be read is an outcome; all else is an error."""
        stem, name = stem_of(file), shown_name(file)
        outcome = FileOutcome(name, 0, 0.0, "", os.getpid())
        try:
            with _on_disk(file) as path, self._outputs.scores(stem) as out:
                outcome = self._written(path, name, stem, out)
                if outcome.error and not outcome.windows:
                    raise MediaError(outcome.error)  # no scores are kept
        except MediaError as fault:
            self._outputs.fail(stem, name, str(fault), windows=0)
            return replace(outcome, error=str(fault))
        return outcome

    def _written(self, path: str, name: str, stem: str, out: IO[bytes]) -> FileOutcome:
        """Write the scores of what can be read of a file."""
        writer, windows, end_s, error = ScoresParquet(out), 0, 0.0, ""
        try:
            for piece in tag.pieces(path, self._tagger, self._options, decoder=self._decoder):
                match piece:
                    case FileFacts():
                        writer.begin(replace(piece, header=msgspec.structs.replace(piece.header, file=name)))
                    case TaggedWindow():
                        windows, end_s = windows + 1, piece.record.end_s
                        writer.window(piece)
        except MediaError as fault:
            error = str(fault).replace(path, name)
            if windows:  # before the scores appear: if the worker dies between the two, the file is not done
                self._outputs.fail(stem, name, error, windows=windows)
        writer.close()
        return FileOutcome(name, windows, end_s, error, os.getpid())


@contextmanager
def _on_disk(file: str) -> Iterator[str]:
    """The file as FFmpeg can open it: one in a bucket is copied first. Raises MediaError if it cannot be copied."""
    if not is_bucket(file):
        yield file
        return
    folder = tempfile.mkdtemp(prefix="perceiverd-")
    try:
        files, source = url_to_fs(file)
        place = Path(folder) / f"media{Path(source).suffix[:10]}"
        try:
            files.get_file(source, str(place))
        except OSError as error:
            raise MediaError(f"{shown_name(file)}: cannot be copied: {error}") from error
        yield str(place)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
