"""What a run keeps: inputs that led to something new, and failures with the command that repeats them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.target import ROOT, Outcome, Target

LONGEST_KEPT = 200_000
MOST_KEPT = 2_000


class Findings:
    """The folder of one target: `corpus`, `failures`, and `reports` of crashes that are not ours."""

    def __init__(self, target: Target, folder: Path) -> None:
        self._target = target
        self.corpus, self.failures, self.reports = (folder / name for name in ("corpus", "failures", "reports"))
        for each in (self.corpus, self.failures, self.reports):
            each.mkdir(parents=True, exist_ok=True)
        self._seen: set[tuple[str, str]] = set()
        self.failed: dict[str, Path] = {}
        """The files of this run's failures by their signature."""
        self.reported: dict[str, Path] = {}
        """The same for crashes that are not ours."""

    def earlier(self) -> Iterator[bytes]:
        """Inputs of earlier runs: failures first. Each comes once; a failure that is repeated is stored again."""
        for folder in (self.failures, self.reports):
            for path in sorted(folder.glob("*.input")):
                data = path.read_bytes()
                path.unlink()
                path.with_suffix(".txt").unlink(missing_ok=True)
                yield data
        for path in sorted(self.corpus.iterdir()):
            yield path.read_bytes()

    def add(self, data: bytes, outcome: Outcome) -> bool:
        """Record an outcome. Returns whether the input led to something new, so that it is worth more changes."""
        if outcome.is_failure:
            self._add_failure(data, outcome)
            return False
        known = (outcome.kind, outcome.signature)
        if known in self._seen or len(data) > LONGEST_KEPT or len(self._seen) >= MOST_KEPT:
            return False
        self._seen.add(known)
        _replace(self.corpus / hashlib.sha1(data).hexdigest()[:16], data)
        return True

    def _add_failure(self, data: bytes, outcome: Outcome) -> None:
        foreign = outcome.kind == "crash" and self._target.foreign_crashes
        folder, known = (self.reports, self.reported) if foreign else (self.failures, self.failed)
        number = hashlib.sha1(outcome.signature.encode()).hexdigest()[:10]
        path = folder / f"{outcome.kind}-{number}.input"
        known[outcome.signature] = path
        if path.exists() and path.stat().st_size <= len(data):
            return  # the shortest input says most
        _replace(path, data)
        text = f"{outcome.kind}: {outcome.signature}\nrepeat it: {command(self._target, path)}\n\n{outcome.detail}"
        _replace(path.with_suffix(".txt"), text.encode(errors="backslashreplace"))


def command(target: Target, path: Path) -> str:
    """The command that repeats the input in this file, in the root folder of the project."""
    shown = path.resolve()
    shown = shown.relative_to(ROOT) if shown.is_relative_to(ROOT) else shown
    return f".venv/bin/python -m tests.fuzz repeat {target.name} {shown}"


def _replace(path: Path, data: bytes) -> None:
    unfinished = path.with_name(f".{path.name}")
    unfinished.write_bytes(data)
    os.replace(unfinished, path)
