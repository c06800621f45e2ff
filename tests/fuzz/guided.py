"""Drives a target with Atheris, which changes inputs so that they reach new lines of code.

    python -m tests.fuzz.guided TARGET SECONDS SEED FOLDER SCRATCH

It is a program of its own, because Atheris must instrument modules when they are imported, and never returns. The
targets are the same: their mutations, their judgement, their folders. It does not drive `media`: FFmpeg is not
instrumented, and its crashes would end the run.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from types import FrameType

import atheris

INSTRUMENTED = ["perceiverd", "tomllib"]

with atheris.instrument_imports(include=INSTRUMENTED):
    from tests.fuzz.findings import Findings
    from tests.fuzz.target import Outcome, judge
    from tests.fuzz.targets import load

HANG_S = 20
MEMORY_LIMIT_MB = 2_000
LONGEST = 400_000


class HangError(BaseException):
    """An input takes too long. It is no Exception, so that no code under test handles it."""


def main(name: str, seconds: int, seed: int, folder: Path, scratch: Path) -> None:
    """Fuzz for this time, then end the process."""
    logging.disable(logging.CRITICAL)
    with atheris.instrument_imports(include=INSTRUMENTED):
        target = load(name)
    findings = Findings(target, folder)
    inputs = [*findings.earlier(), *target.make_seeds(scratch)]

    def one(data: bytes) -> None:
        try:
            with _limited():
                outcome = judge(target, data, scratch)
        except HangError:
            outcome = Outcome("hang", "hang", f"no answer within {HANG_S} s\n")
        if outcome.is_failure:
            findings.add(data, outcome)

    def changed(data: bytes, longest: int, number: int) -> bytes:
        return target.mutate(data, Random(number), inputs)[:longest]

    for number, data in enumerate(inputs):
        (findings.corpus / f"seed-{number}").write_bytes(data)
    # libFuzzer ends a process that grows beyond the limit; its input is then among the failures.
    options = [
        f"-max_total_time={seconds}", f"-seed={seed + 1}", f"-artifact_prefix={findings.failures}/", "-timeout=0",
        f"-rss_limit_mb={MEMORY_LIMIT_MB}", f"-max_len={LONGEST}", "-print_final_stats=1",
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, str(findings.corpus)], one, custom_mutator=changed)
    atheris.Fuzz()


@contextmanager
def _limited() -> Iterator[None]:
    def stop(_: int, __: FrameType | None) -> None:
        raise HangError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, HANG_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]), Path(sys.argv[5]))
