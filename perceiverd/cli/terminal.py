"""What is drawn in a terminal: bars, marks, and what to draw them with where a terminal has no such signs."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass

from rich.console import Console

STATES = {"up": "green", "ended": "dim", "disabled": "dim", "starting": "yellow"}
"""Colours of a stream's states; what is not here is red."""


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The signs that an output can show."""

    full: str = "█"
    parts: str = "▏▎▍▌▋▊▉"
    """Eighths of it."""
    rest: str = "·"
    """Where there is no bar."""
    now: str = "◆"
    """Where one score stands."""
    on: str = "┃"
    off: str = "┊"
    """The thresholds."""
    dot: str = "●"
    rule: str = "─"

    @classmethod
    def of(cls, encoding: str) -> Glyphs:
        """Those that an output of this encoding can show."""
        try:
            "".join((cls().full, cls().parts, cls().now, cls().on, cls().off, cls().dot, "·─")).encode(encoding)
        except (UnicodeEncodeError, LookupError):
            return cls(full="#", parts="", rest=".", now="o", on="|", off=":", dot="*", rule="-")
        return cls()

    def bar(self, share: float, width: int) -> str:
        """A bar of this share of the width, 0..1, padded to all of it."""
        steps = len(self.parts) + 1
        filled = round(min(1.0, max(0.0, share)) * width * steps)
        drawn = self.full * (filled // steps) + (self.parts[filled % steps - 1] if filled % steps else "")
        return f"{drawn:{width}}"

    def gauge(self, filled: float, now: float | None, off: float | None, on: float, width: int) -> str:
        """A bar up to `filled` with marks for a score and for the thresholds, all 0..1."""
        cells = list(self.full * round(filled * width) + self.rest * (width - round(filled * width)))
        for share, sign in ((off, self.off), (on, self.on), (now, self.now)):
            if share is not None:
                cells[min(width - 1, round(share * width))] = sign
        return "".join(cells)


def console() -> Console:
    """Standard output as a terminal, to which nothing is lost that it can't encode: it is shown as a question mark."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    return Console(highlight=False, emoji=False, markup=False)


def is_live(screen: Console) -> bool:
    """Whether it can be drawn upon, not only written to."""
    return sys.stdout.isatty() and not screen.is_dumb_terminal
