"""`perceiverd eval`: from options to `evaluation.evaluate`; prints the table and writes the files."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import typer

from perceiverd.cli.bars import file_bar
from perceiverd.config import Config, load
from perceiverd.core.errors import PerceiverdError
from perceiverd.core.media import NS_PER_S
from perceiverd.evaluation import text
from perceiverd.evaluation.evaluate import EvaluationOptions, NamedTagger, evaluate, read_manifest
from perceiverd.evaluation.manifest import ManifestFormat
from perceiverd.evaluation.page import page
from perceiverd.evaluation.truth import TruthKind
from perceiverd.model.card import DEFAULT, load_card
from perceiverd.model.engine import DEVICE_PATTERN, EngineName
from perceiverd.pipeline.tagger import Tagger


@dataclass(frozen=True, slots=True)
class EvalCommand:
    """The options of the command."""

    manifest: Path
    truth: TruthKind
    manifest_format: ManifestFormat
    media: Path | None
    models: tuple[str, ...]
    thresholds: tuple[float, ...]
    hop_s: float | None
    config: Path | None
    device: str
    engine: EngineName
    batch: int
    jobs: int | None
    """Files that are read at the same time; None: as many as are useful."""
    rounds: int
    skip: float
    """The share of the rows that may fail."""
    json: Path | None
    html: Path | None


def run(command: EvalCommand) -> int:
    """Measure; returns 1 if more rows failed than allowed. Raises PerceiverdError, and BadParameter for options."""
    if not DEVICE_PATTERN.fullmatch(command.device):
        raise typer.BadParameter(f"{command.device!r} is not auto, cpu, cuda or cuda:N", param_hint="'--device'")
    if len(command.models) > 2:
        raise typer.BadParameter("compares two models at most", param_hint="'--model'")
    logging.basicConfig(format="perceiverd: %(message)s", level=logging.WARNING)
    names = command.models or (DEFAULT,)
    cards = [load_card(name) for name in names]
    settings = load(command.config) if command.config else Config()
    hop_s = settings.window.hop_s if command.hop_s is None else command.hop_s
    options = EvaluationOptions(
        command.manifest,
        command.truth,
        command.manifest_format,
        command.media,
        tuple(dict.fromkeys(command.thresholds)),
        round(hop_s * NS_PER_S),
        command.batch,
        round(settings.window.conceal_s * NS_PER_S),
        settings.events,
        command.rounds,
        command.jobs,
    )
    manifest = read_manifest(options, [card.labels for card in cards])
    _check_writable(command)
    models = [
        NamedTagger(name, Tagger(card, command.device, engine=command.engine))
        for name, card in zip(names, cards, strict=True)
    ]
    files, done = len({row.file for row in manifest.rows}), Counter[Path]()
    try:
        with _bar(files, done) as progress:
            found = evaluate(manifest, models, options, progress)
    except KeyboardInterrupt:
        print(f"perceiverd: interrupted after {done.total()} of {files} files; nothing is reported", file=sys.stderr)
        raise
    for line in text.lines(found):
        print(line)
    if command.json:
        _write(command.json, found.json())
    if command.html:
        _write(command.html, page(found).encode())
    allowed = command.skip * (len(manifest.rows) + len(manifest.absent))
    return 1 if len(found.failures) > allowed else 0


def _check_writable(command: EvalCommand) -> None:
    """Raises PerceiverdError for an output in a folder that does not exist, before the hours of work."""
    for path in (command.json, command.html):
        if path and not path.parent.is_dir():
            raise PerceiverdError(f"{path}: cannot write the result: there is no folder {path.parent}; make it")


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise PerceiverdError(
            f"{path}: cannot write the result: {error.strerror}; check the folder and the permissions"
        ) from error


@contextmanager
def _bar(files: int, done: Counter[Path]) -> Iterator[Callable[[Path, int], None]]:
    """A progress bar on standard error, if it is a terminal: files, failures, time left. Counts files in `done`."""
    with file_bar() as bars:
        task = bars.add_task("files", total=files)

        def advance(file: Path, failures: int) -> None:
            done[file] += 1
            failed = f", {failures} rows failed" if failures else ""
            bars.update(task, advance=1, description=f"{file.name[-40:]}{failed}")

        yield advance
