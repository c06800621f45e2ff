"""Our own driver: seeded, and guided by outcomes. An input with a new outcome is changed further."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from tests.fuzz.findings import Findings
from tests.fuzz.target import Outcome, Target
from tests.fuzz.worker import Worker

TAG_EVERY = 8
"""One of so many media files also goes through `perceiverd tag`."""
RECENT = 50
TAG_FILES = 30
"""How many of them one run of `perceiverd tag` gets."""


@dataclass
class Report:
    """What a run of one target did."""

    target: str
    seconds: float = 0.0
    kinds: Counter[str] = field(default_factory=Counter)
    tagged: int = 0
    """Inputs that also went through `perceiverd tag`."""
    corpus: int = 0
    """Inputs with outcomes of their own."""
    failures: list[str] = field(default_factory=list)
    """Where the failures of this run are."""
    foreign: list[str] = field(default_factory=list)
    """Where the inputs are that crash a library."""

    def lines(self) -> Iterator[str]:
        """The report for a person."""
        total = sum(self.kinds.values())
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(self.kinds.items()))
        tagged = f", {self.tagged} of them tagged" if self.tagged else ""
        yield f"{self.target}: {total} inputs in {self.seconds:.0f} s ({counts}{tagged}), {self.corpus} in the corpus"
        for path in self.foreign:
            yield f"{self.target}: crashes FFmpeg: {path} (the text beside it has the command)"
        for path in self.failures:
            yield f"{self.target}: FAILED: {path} (the text beside it has the command)"


def fuzz(target: Target, folder: Path, seconds: float, seed: int, most: int | None = None) -> Report:
    """Give changed inputs to the target for this time, or `most` of them; continues what `folder` has."""
    findings, report = Findings(target, folder), Report(target.name)
    state = folder / "next"
    number = int(state.read_text()) if state.exists() else 0
    with TemporaryDirectory() as scratch, Worker(target, _made(Path(scratch) / "worker")) as worker:
        checks = _TagChecks(target, Path(scratch), findings, report)
        pool, fresh = _first(target, findings, Path(scratch)), 0
        base = list(pool)
        start_s = time.monotonic()
        while time.monotonic() - start_s < seconds and (most is None or sum(report.kinds.values()) < most):
            if fresh < len(base):
                data, fresh = base[fresh], fresh + 1
            else:
                rng = Random(f"{seed}/{target.name}/{number}")
                number += 1
                data = target.mutate(_chosen(pool, rng), rng, pool)
            outcome = worker.judge(data)
            report.kinds[outcome.kind] += 1
            if findings.add(data, outcome):
                pool.append(data)
            if not outcome.is_failure:
                checks.offer(data, number)
        checks.finish()
        report.corpus = len(pool)
    state.write_text(str(number))
    report.seconds = time.monotonic() - start_s
    report.failures = [str(path) for path in sorted(set(findings.failed.values()))]
    report.foreign = [str(path) for path in sorted(set(findings.reported.values()))]
    return report


def repeat(target: Target, path: Path) -> Outcome:
    """The outcome of the input in this file; for media, of `perceiverd tag` too."""
    with TemporaryDirectory() as scratch, Worker(target, _made(Path(scratch) / "worker")) as worker:
        outcome = worker.judge(path.read_bytes())
        if outcome.is_failure or target.name != "media":
            return outcome
        from tests.fuzz import tag_check

        faults = tag_check.check([path.read_bytes()], Path(scratch))
        return faults[0][1] if faults else outcome


def _first(target: Target, findings: Findings, scratch: Path) -> list[bytes]:
    """The inputs with which a run begins: those of earlier runs and the seeds, each once."""
    return list(dict.fromkeys([*findings.earlier(), *target.make_seeds(_made(scratch / "seeds"))]))


def _chosen(pool: Sequence[bytes], rng: Random) -> bytes:
    """An input to change: often a recent one, and rather a short one, because short ones are fast."""
    among = pool if rng.random() < 0.7 else pool[-RECENT:]
    return min(rng.choice(among), rng.choice(among), key=len)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


class _TagChecks:
    """Sends some media files through `perceiverd tag`, many at a time."""

    def __init__(self, target: Target, scratch: Path, findings: Findings, report: Report) -> None:
        self._wanted = target.name == "media"
        self._scratch, self._findings, self._report = scratch, findings, report
        self._waiting: list[bytes] = []

    def offer(self, data: bytes, number: int) -> None:
        if self._wanted and number % TAG_EVERY == 0:
            self._waiting.append(data)
            if len(self._waiting) == TAG_FILES:
                self.finish()

    def finish(self) -> None:
        if self._waiting:
            from tests.fuzz import tag_check  # loads torch

            for data, outcome in tag_check.check(self._waiting, self._scratch):
                self._report.kinds[f"{outcome.kind} of tag"] += 1
                self._findings.add(data, outcome)
            self._report.tagged += len(self._waiting)
            self._waiting = []
