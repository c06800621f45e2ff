"""`perceiverd demo`: plays the bundled clip through a real daemon and prints its labels beside the true ones.

The daemon is a process of its own, as in service; the demo is a subscriber like any other.
"""

from __future__ import annotations

import csv
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from perceiverd.cli.console import EXIT_FAILED, EXIT_INTERRUPTED
from perceiverd.core.errors import ConfigError, PerceiverdError
from perceiverd.core.paths import shipped_config
from perceiverd.daemon.spawn import SpawnedDaemon
from perceiverd.wire.client import subscribe
from perceiverd.wire.messages import Hello, Scores

TOP = 5
"""A window agrees with the truth if a true label is among its best labels, this many."""
STARTUP_S = 180.0
"""How long the daemon may take to start: reading Python, the engine and the model from a cold disk."""
SPARE_S = 30.0
"""How much longer than its length the clip may take."""
LONGEST_NAME = 22
"""Characters of a label's name; a longer one is cut."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the clip and its true labels."""

    start_s: float
    end_s: float
    heard: tuple[str, ...]
    """AudioSet's names of what can be heard."""
    seen: tuple[str, ...]
    """AudioSet's names of what can be seen."""

    @property
    def title(self) -> str:
        truth = {"heard": self.heard, "seen": self.seen}
        return "; ".join(f"{sense}: {' / '.join(names)}" for sense, names in truth.items() if names)

    def agrees(self, names: Sequence[str]) -> bool:
        """Whether a true label is among these."""
        return not {*self.heard, *self.seen}.isdisjoint(names)


def demo(config: Path | None = None, truth: Path | None = None) -> int:
    """Play the clip and print its labels; returns 0 if labels came, right or wrong, and 1 if none came.

    Raises PerceiverdError if the daemon does not start, ConfigError if the clip's configuration or truth is missing.
    """
    config, truth = config or _shipped("demo.toml"), truth or _shipped("demo/truth.tsv")
    segments = read_truth(truth)
    try:
        with SpawnedDaemon(config, STARTUP_S) as daemon:
            windows = _play(daemon, segments)
            status = daemon.stop()
            if status or not windows:
                sys.stdout.flush()
                why = f"ended with status {status}" if status else "published no labels"
                print(f"perceiverd: the daemon {why}; its last lines:\n{daemon.last_lines(15)}", file=sys.stderr)
                return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    _summarise(segments, windows)
    return 0


def read_truth(path: Path) -> tuple[Segment, ...]:
    """Read the clip's segments from a table with columns start_s, end_s, heard, seen. Raises ConfigError."""
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
        return tuple(
            Segment(float(row["start_s"]), float(row["end_s"]), _names(row["heard"]), _names(row["seen"]))
            for row in rows
        )
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise ConfigError(f"{path}: cannot read the true labels of the clip: {error}") from error


def _names(cell: str) -> tuple[str, ...]:
    return tuple(name for name in cell.split("|") if name)


def _shipped(name: str) -> Path:
    if path := shipped_config(name):
        return path
    raise ConfigError(f"configs/{name} is missing; it is part of perceiverd: reinstall the package")


def _play(daemon: SpawnedDaemon, segments: Sequence[Segment]) -> list[tuple[Scores, bool]]:
    """Print each window until the daemon ends; returns the windows, each with whether it agrees with the truth."""
    print("starting perceiverd (loading the model) ...", flush=True)
    endpoint, length_s = daemon.endpoint(), segments[-1].end_s
    windows: list[tuple[Scores, bool]] = []
    deadline_s = time.monotonic() + STARTUP_S + length_s + SPARE_S
    with subscribe(endpoint) as subscription:
        while True:
            running = daemon.is_running  # before the receive, so that its last messages are not missed
            message = subscription.receive_message(0.2)
            match message:
                case Hello():
                    print(f"perceiverd {message.version}, model {message.model.name}, publishes at {endpoint}")
                    print(f"the clip plays as a live stream for {length_s:g} s; * is a true label", flush=True)
                case Scores():
                    before = _segment(windows[-1][0], segments) if windows else None
                    windows.append((message, _show(message, segments, before)))
                case None if not running:
                    break
            if time.monotonic() > deadline_s:
                raise PerceiverdError("the demo's daemon did not end with the clip")
    if subscription.missed:
        print(f"{subscription.missed} messages were missed")
    return windows


def _segment(scores: Scores, segments: Sequence[Segment]) -> Segment:
    """The segment that contains the middle of the window."""
    middle_s = (scores.start_s + scores.end_s) / 2
    return next((segment for segment in segments if segment.start_s <= middle_s < segment.end_s), segments[-1])


def _show(scores: Scores, segments: Sequence[Segment], before: Segment | None) -> bool:
    """Print a window, below the segment's true labels if the segment is new; returns whether they agree."""
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
    print(f"\nBy segment (a window agrees if a true label is among its best {TOP}; the times are starts of windows):\n")
    for segment in segments:
        of = [(scores, agrees) for scores, agrees in windows if _segment(scores, segments) is segment]
        good = [f"{scores.start_s:.1f}" for scores, agrees in of if agrees]
        bad = [f"{scores.start_s:.1f}" for scores, agrees in of if not agrees]
        parts = [f"{_mark(ok)} {', '.join(at)} s" for ok, at in ((True, good), (False, bad)) if at]
        where = f"{segment.start_s:5.1f} to {segment.end_s:4.1f} s"
        print(f"{where}  {len(good)} of {len(of)}  {segment.title}")
        print(f"{'':24}{'   '.join(parts) or 'no window'}")
    latency_ms = sorted(scores.latency_ms for scores, _ in windows)[len(windows) // 2]
    dropped = sum(scores.dropped for scores, _ in windows)
    print(
        f"\n{sum(agrees for _, agrees in windows)} of {len(windows)} windows agree; {dropped} dropped; "
        f"median {latency_ms:.0f} ms from capture to label."
    )
    print("To see, hear and search this in a browser: perceiverd demo --web")


def _coloured(text: str, code: int) -> str:
    plain = not sys.stdout.isatty() or "NO_COLOR" in os.environ
    return text if plain else f"\x1b[{code}m{text}\x1b[0m"
