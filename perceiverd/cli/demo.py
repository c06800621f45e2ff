"""`perceiverd demo`: the bundled clip through the real daemon, and its labels beside the truth as they come.

The daemon is a process of its own, as it would be in service; this is a subscriber like any other.
"""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from perceiverd.core.errors import ConfigError, PerceiverdError
from perceiverd.core.paths import shipped_config
from perceiverd.wire.client import subscribe
from perceiverd.wire.messages import Hello, Scores

TOP = 5
"""A window agrees with the truth when one of its true labels is among so many."""
STARTUP_S = 180.0
"""What a cold disk may take to give Python, torch and the model."""
SPARE_S = 30.0
"""And what the clip may take beyond its length."""
STOP_S = 10.0
LONGEST_NAME = 22
LISTENING = re.compile(r" listening endpoint=(\S+)")


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of the clip and what is true of it."""

    start_s: float
    end_s: float
    heard: tuple[str, ...]
    seen: tuple[str, ...]
    """Names of AudioSet's labels."""

    @property
    def title(self) -> str:
        told = {"heard": self.heard, "seen": self.seen}
        return "; ".join(f"{sense}: {' / '.join(names)}" for sense, names in told.items() if names)

    def agrees(self, names: Sequence[str]) -> bool:
        """Whether a true label is among these."""
        return not {*self.heard, *self.seen}.isdisjoint(names)


def demo(config: Path | None = None, truth: Path | None = None) -> int:
    """Play, print, and end: 0 when labels came, whether they agree or not; 1 when the daemon failed or said nothing.

    Raises PerceiverdError where the clip's configuration or truth is missing.
    """
    config, truth = config or _shipped("demo.toml"), truth or _shipped("demo/truth.tsv")
    segments = read_truth(truth)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        try:
            with _daemon(config, log) as daemon:
                windows = _play(daemon, log, segments)
        except KeyboardInterrupt:
            return 130
        if daemon.returncode or not windows:
            sys.stdout.flush()
            why = f"ended with status {daemon.returncode}" if daemon.returncode else "published no labels"
            print(f"perceiverd: the daemon {why}; its last lines:\n{_tail(log)}", file=sys.stderr)
            return 1
    _summarise(segments, windows)
    return 0


def read_truth(path: Path) -> tuple[Segment, ...]:
    """The clip's segments from a table with columns start_s, end_s, heard, seen. Raises ConfigError."""
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
        return tuple(
            Segment(float(row["start_s"]), float(row["end_s"]), _names(row["heard"]), _names(row["seen"]))
            for row in rows
        )
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise ConfigError(f"{path}: cannot read the clip's truth: {error}") from error


def _names(cell: str) -> tuple[str, ...]:
    return tuple(name for name in cell.split("|") if name)


def _shipped(name: str) -> Path:
    if path := shipped_config(name):
        return path
    raise ConfigError(f"configs/{name} is missing: it comes with perceiverd, beside or inside the package")


@contextmanager
def _daemon(config: Path, log: IO[str]) -> Iterator[subprocess.Popen[bytes]]:
    """The daemon as a child, its log in a file; it has ended when the context is left."""
    command = [sys.executable, "-m", "perceiverd", "run", "--config", str(config)]
    # A file, not a pipe: it needs no thread to be read, and no daemon waits for its reader.
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT) as child:
        try:
            yield child
        finally:
            if child.poll() is None:
                child.terminate()
                try:
                    child.wait(STOP_S)
                except subprocess.TimeoutExpired:
                    child.kill()


def _play(daemon: subprocess.Popen[bytes], log: IO[str], segments: Sequence[Segment]) -> list[tuple[Scores, bool]]:
    """Print each window as it comes, until the daemon ends; the windows, and whether they agree."""
    print("starting perceiverd (loading torch and the model) ...", flush=True)
    endpoint = _endpoint(daemon, log)
    if endpoint is None:
        return []
    windows: list[tuple[Scores, bool]] = []
    deadline_s = time.monotonic() + STARTUP_S + segments[-1].end_s + SPARE_S
    with subscribe(endpoint) as subscription:
        while True:
            over = daemon.poll() is not None  # asked before, so that what it said last is still heard
            message = subscription.receive(0.2)
            match message:
                case Hello():
                    print(f"perceiverd {message.version}, model {message.model.name}, publishes at {endpoint}")
                    print(
                        f"the clip plays as a live stream for {segments[-1].end_s:g} s; * is a true label", flush=True
                    )
                case Scores():
                    before = _segment(windows[-1][0], segments) if windows else None
                    windows.append((message, _show(message, segments, before)))
                case None if over:
                    break
            if time.monotonic() > deadline_s:
                raise PerceiverdError("the demo's daemon did not end with the clip")
    if subscription.missed:
        print(f"{subscription.missed} messages were missed")
    return windows


def _endpoint(daemon: subprocess.Popen[bytes], log: IO[str]) -> str | None:
    """Where the daemon is bound, from its log; None where it has ended before."""
    deadline_s = time.monotonic() + STARTUP_S
    while time.monotonic() < deadline_s:
        over = daemon.poll() is not None
        log.seek(0)
        if found := LISTENING.search(log.read()):
            return found[1]
        if over:
            return None
        time.sleep(0.05)
    raise PerceiverdError(f"the daemon did not start within {STARTUP_S:g} s; its last lines: {_tail(log)}")


def _segment(scores: Scores, segments: Sequence[Segment]) -> Segment:
    """The segment in which the window's middle lies."""
    middle_s = (scores.start_s + scores.end_s) / 2
    return next((segment for segment in segments if segment.start_s <= middle_s < segment.end_s), segments[-1])


def _show(scores: Scores, segments: Sequence[Segment], before: Segment | None) -> bool:
    """Print a window, under its segment's truth where that is new; whether they agree."""
    segment = _segment(scores, segments)
    if segment is not before:
        print(f"\n{segment.start_s:6.2f} to {segment.end_s:5.2f} s  {segment.title}")
    top = scores.labels[:TOP]
    agrees = segment.agrees([tag.name for tag in top])
    labels = "  ".join(f"{_name(tag.name, segment)} {tag.score:.2f}" for tag in top)
    print(f"{scores.start_s:6.2f} to {scores.end_s:5.2f} s  {_mark(agrees)}  {labels}", flush=True)
    return agrees


def _name(name: str, segment: Segment) -> str:
    short = name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
    return _coloured(f"{short}*", 32) if segment.agrees([name]) else short


def _mark(agrees: bool) -> str:
    return _coloured("✓", 32) if agrees else _coloured("✗", 31)


def _summarise(segments: Sequence[Segment], windows: Sequence[tuple[Scores, bool]]) -> None:
    print(f"\nBy segment (a window agrees when a true label is among its top {TOP}; times are where windows begin):\n")
    for segment in segments:
        of = [(scores, agrees) for scores, agrees in windows if _segment(scores, segments) is segment]
        good = [f"{scores.start_s:.1f}" for scores, agrees in of if agrees]
        bad = [f"{scores.start_s:.1f}" for scores, agrees in of if not agrees]
        told = [f"{_mark(ok)} {', '.join(at)} s" for ok, at in ((True, good), (False, bad)) if at]
        where = f"{segment.start_s:5.1f} to {segment.end_s:4.1f} s"
        print(f"{where}  {len(good)} of {len(of)}  {segment.title}")
        print(f"{'':24}{'   '.join(told) or 'no window'}")
    latency_ms = sorted(scores.latency_ms for scores, _ in windows)[len(windows) // 2]
    dropped = sum(scores.dropped for scores, _ in windows)
    print(
        f"\n{sum(agrees for _, agrees in windows)} of {len(windows)} windows agree; {dropped} dropped; "
        f"median {latency_ms:.0f} ms from capture to label."
    )


def _coloured(text: str, code: int) -> str:
    plain = not sys.stdout.isatty() or "NO_COLOR" in os.environ
    return text if plain else f"\x1b[{code}m{text}\x1b[0m"


def _tail(log: IO[str], lines: int = 15) -> str:
    log.seek(0)
    return "\n".join(log.read().splitlines()[-lines:])
