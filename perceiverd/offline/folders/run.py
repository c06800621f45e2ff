"""Tags many files into a folder of outputs, in several threads that share one model. A killed run can be resumed.

A file's outputs get their names when all are complete, and after that the journal gets its line. So at any moment a
file is either done and known as that, or it is tagged again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from perceiverd.core.errors import MediaError
from perceiverd.offline.decoding import Decoder, shown_name
from perceiverd.offline.decoding_protocol import VideoDecoderName
from perceiverd.offline.folders.bars import Bars
from perceiverd.offline.folders.file_warnings import FileWarnings
from perceiverd.offline.folders.journal import FileDone, Journal
from perceiverd.offline.folders.named_files import NamedFiles
from perceiverd.offline.folders.outputs import HIDDEN, OutputError, Outputs
from perceiverd.offline.folders.report import Report, write_report
from perceiverd.offline.folders.spool import Spool
from perceiverd.offline.folders.tally import Current, Tally
from perceiverd.offline.folders.walk import Found, Selection
from perceiverd.offline.joint import ManyFilesScorer, shared
from perceiverd.offline.tag import Scorer, TagOptions, pieces
from perceiverd.offline.writers.formats import Format
from perceiverd.offline.writers.writer import RecordKind
from perceiverd.sources.specs import RawFormat
from perceiverd.wire.records import FileSummary

STEP_S = 0.1
"""How often the bars are drawn, and how soon Ctrl-C and errors are noticed."""


@dataclass(frozen=True, slots=True)
class FolderOptions:
    """How to tag many files."""

    formats: Sequence[Format]
    settings: str
    """A checksum of all that decides what the outputs contain."""
    kinds: frozenset[RecordKind] = frozenset()
    """The records that the user has chosen, for formats with a choice."""
    selection: Selection = field(default_factory=Selection)
    jobs: int = 1
    """Files that are tagged at the same time."""
    skip_done: bool = False
    """Leave out files that any run before has done and that have not changed since."""
    raw: RawFormat | None = None
    """The format of all files if they hold audio without a container."""
    embed_bytes: int = 0
    """As in `WriterOptions`."""
    video: VideoDecoderName = "cpu"
    """Who decodes video."""


def tag_into(out: Path, named: Sequence[str], tagger: Scorer, options: TagOptions, how: FolderOptions) -> Report:
    """Tag files and folders into the folder `out`, which is made if it is missing; what was done and what failed.

    If the last run into `out` had the same settings and did not finish, what it did is not done again. Raises
    PerceiverdError if outputs cannot be written, if two of them would have one name, or if another run writes there.
    """
    files = NamedFiles(named, how.selection, out)
    try:
        hidden = out / HIDDEN
        hidden.mkdir(parents=True, exist_ok=True)
        with Journal(hidden, how.settings) as journal:
            for part in hidden.glob("part-*"):  # of a run that was killed
                part.unlink()
            with Spool(hidden) as spool, FileWarnings() as warnings, shared(tagger) as scorer:
                run = _Run(out, scorer, options, how, journal, spool, warnings)
                spool.fill(files)
                run.work()
            journal.finish()
            report = run.report(files)
            write_report(out, report)
            for form in how.formats:
                if form.finish:
                    form.finish(out)
            return report
    except OSError as error:
        raise OutputError(out, error) from error


class _InterruptedError(Exception):
    """The run ends early: another thread has failed, or the user wants it."""


class _Run:
    """One run: its workers, and what they share."""

    def __init__(
        self,
        out: Path,
        scorer: ManyFilesScorer,
        options: TagOptions,
        how: FolderOptions,
        journal: Journal,
        spool: Spool,
        warnings: FileWarnings,
    ) -> None:
        self.out, self.options, self.how, self.journal, self.spool = out, options, how, journal, spool
        self.warnings, self.scorer = warnings, scorer
        self.tally = Tally([Current() for _ in range(how.jobs)])
        self.stopping = threading.Event()
        self._fault: BaseException | None = None
        self._began_s = time.monotonic()

    def work(self) -> None:
        """Tag all files. Raises what a worker has raised first."""
        workers = [_Worker(self, number) for number in range(self.how.jobs)]
        threads = [threading.Thread(target=worker.work, name=f"tag-{worker.number}") for worker in workers]
        with Bars(self.tally, self.spool) as bars:
            try:
                for thread in threads:
                    thread.start()
                # Not `Thread.join`: if Ctrl-C interrupts that, Python 3.11 takes the thread for ended (bpo-45274).
                while busy := [worker for worker in workers if not worker.ended.is_set()]:
                    busy[0].ended.wait(STEP_S)
                    bars.draw()
            finally:  # also after Ctrl-C
                self.stop()
                self.scorer.memory.end()  # nobody waits for memory any more
                for worker in workers:
                    worker.decoder.interrupt()
                for thread in threads:
                    if thread.ident is not None:
                        thread.join()  # at most a batch of windows
        if self._fault:
            raise self._fault

    def stop(self, fault: BaseException | None = None) -> None:
        """Let no worker begin another file, or continue with its own; the first `fault` is raised by `work`."""
        self._fault = self._fault or fault
        self.stopping.set()
        self.spool.stop()

    def report(self, files: NamedFiles) -> Report:
        """What this run has done."""
        tally = self.tally
        return Report.of(
            self.journal.done(),
            skipped=0 if self.journal.resumes else tally.skipped,
            resumed=tally.skipped if self.journal.resumes else 0,
            passed=files.passed,
            media_s=tally.media_s,
            wall_s=time.monotonic() - self._began_s,
        )


class _Worker:
    """Takes files from the list, one after the other, in a thread of its own."""

    def __init__(self, run: _Run, number: int) -> None:
        self._run, self.number = run, number
        self._current = run.tally.workers[number]
        self._outputs = Outputs(run.out, run.how.formats, run.how.kinds, f"part-{number}", run.how.embed_bytes)
        self.ended = threading.Event()
        self.decoder = Decoder(
            run.scorer.card.geometry.media_format, run.how.raw, jobs=run.how.jobs, video=run.how.video
        )
        self.decoder.on_length = self._current.state_length

    def work(self) -> None:
        """Tag files until there are no more."""
        try:
            with self.decoder:
                while (found := self._run.spool.take()) is not None:
                    self._do(found)
                    self._current.found = None
        except _InterruptedError:
            pass
        except BaseException as fault:  # raised again in the main thread
            self._run.stop(fault)
        finally:
            self._outputs.discard()
            self.ended.set()

    def _do(self, found: Found) -> None:
        run = self._run
        if self._was_done(found):
            run.tally.skip(found)
            return
        began_s = time.monotonic()
        self._current.begin(found)
        run.warnings.begin()
        windows, media_s, error = self._tagged(found)
        self._current.done_s = 0.0  # counted from now on in the tally
        done = FileDone(
            file=shown_name(found.name),
            key="",
            windows=windows,
            media_s=media_s,
            wall_s=round(time.monotonic() - began_s, 3),
            error=error,
            warnings=run.warnings.take(),
        )
        run.journal.add(found, done)
        run.tally.add(found, windows, media_s, failed=error is not None)

    def _was_done(self, found: Found) -> bool:
        match self._run.journal.was_done(found, in_any_run=self._run.how.skip_done):
            case "with outputs":
                return all(target.exists() for target in self._outputs.targets(found.name))
            case "without outputs":
                return True
            case "no":
                return False

    def _tagged(self, found: Found) -> tuple[int, float, str | None]:
        """Windows, seconds of media, and the error if there is one."""
        if found.fault:
            return 0, 0.0, f"{shown_name(found.address)}: {found.fault}"
        run, windows, media_s = self._run, 0, 0.0
        error: str | None = None
        try:
            for piece in pieces(found.address, run.scorer, run.options, self._current.advance, self.decoder):
                if run.stopping.is_set():
                    raise _InterruptedError
                self._outputs.write(found.name, piece)
                if isinstance(piece, FileSummary):
                    windows, media_s = piece.windows, piece.end_s
        except MediaError as fault:
            error = str(fault)
        if run.stopping.is_set():  # the error may be that the decoder was ended
            raise _InterruptedError
        try:
            self._outputs.commit(found.name)
        except MediaError as fault:
            return 0, 0.0, str(fault)
        return windows, media_s, error
