"""What a run into a folder has done, as lines for the user and as `report.json`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from perceiverd.offline.folders.bars import clock
from perceiverd.offline.folders.journal import FileDone, Utc
from perceiverd.offline.folders.outputs import HIDDEN
from perceiverd.offline.folders.walk import Passed

FILE = "report.json"
MOST_ERRORS = 10_000
"""Errors in the report. The journal has the others."""
SHOWN_ERRORS = 20
"""Errors that are printed."""


class FileError(msgspec.Struct, frozen=True):
    """Why a file failed."""

    file: str
    error: str


class FileWarning(msgspec.Struct, frozen=True):
    """What the log would say of a file."""

    file: str
    warnings: tuple[str, ...]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A run, with those that it has resumed."""

    time: Utc
    """When the run ended."""
    tagged: int
    """Files with outputs, also those that could not be read to their end."""
    failed: int
    """Files with an error."""
    skipped: int
    """Files that an earlier run had done (`--skip-done`)."""
    resumed: int
    """Files that were done when an interrupted run was resumed. They count in `tagged` and `failed` too."""
    windows: int
    media_s: float
    """Seconds of media that were tagged."""
    wall_s: float
    """Seconds that the last run took."""
    speed: float
    """Seconds of media per second in the last run."""
    empty: int
    """Files of no bytes, which were passed over."""
    other: int
    """Files that are no media, which were passed over."""
    unwanted: int
    """Files that the options leave out."""
    warned: int
    """Files that were read to their end, with something that the log would say: damage, holes, a choice of tracks."""
    errors: list[FileError]
    """At most MOST_ERRORS."""
    warnings: list[FileWarning]
    """At most MOST_ERRORS files."""

    @classmethod
    def of(
        cls, done: Iterable[FileDone], *, skipped: int, resumed: int, passed: Passed, media_s: float, wall_s: float
    ) -> Report:
        """The report of these files. `media_s` and `wall_s` are those of the last run, for its speed."""
        tagged = failed = warned = windows = 0
        all_s, errors, warnings = 0.0, list[FileError](), list[FileWarning]()
        for each in done:
            tagged += each.windows > 0
            failed += each.error is not None
            windows += each.windows
            all_s += each.media_s
            warned += each.error is None and bool(each.warnings)
            if each.error is not None and len(errors) < MOST_ERRORS:
                errors.append(FileError(each.file, each.error))
            if each.warnings and len(warnings) < MOST_ERRORS:
                warnings.append(FileWarning(each.file, each.warnings))
        return cls(
            time=datetime.now(UTC),
            tagged=tagged,
            failed=failed,
            skipped=skipped,
            resumed=resumed,
            windows=windows,
            media_s=round(all_s, 3),
            wall_s=round(wall_s, 3),
            speed=round(media_s / max(wall_s, 1e-3), 1),
            empty=passed.empty,
            other=passed.other,
            unwanted=passed.unwanted,
            warned=warned,
            errors=errors,
            warnings=warnings,
        )

    def summary(self) -> str:
        """One line for the user."""
        parts = [f"{_files(self.tagged)} tagged, {clock(self.media_s)} of media, {self.speed:.0f}x real time"]
        counts = {
            "done by the interrupted run": self.resumed,
            "done before": self.skipped,
            "failed": self.failed,
            f"with warnings (see {FILE})": self.warned,
            "empty": self.empty,
            "no media": self.other,
            "left out": self.unwanted,
        }
        parts += [f"{count} {name}" for name, count in counts.items() if count]
        return "; ".join(parts)

    def error_lines(self, out: Path) -> list[str]:
        """A line for each error, up to SHOWN_ERRORS, and one that says where the others are."""
        lines = [each.error for each in self.errors[:SHOWN_ERRORS]]
        if self.failed > SHOWN_ERRORS:
            lines.append(f"{self.failed - SHOWN_ERRORS} more files failed: see {out / FILE}")
        return lines


def write_report(out: Path, report: Report) -> None:
    """Replace the report in this folder. Raises OSError."""
    part = out / HIDDEN / FILE
    part.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    os.replace(part, out / FILE)


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"
