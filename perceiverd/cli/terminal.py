"""What is drawn in a terminal: bars and marks, with plain characters if the terminal cannot show others."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass

from rich.console import Console

STATES = {"up": "green", "ended": "dim", "disabled": "dim", "starting": "yellow"}
"""Colours of a stream's states; other states are red."""


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The characters that an output can show."""

    full: str = "█"
    parts: str = "▏▎▍▌▋▊▉"
    """Eighths of a full cell."""
    rest: str = "·"
    """An empty cell of a gauge."""
    now: str = "◆"
    """The place of a score."""
    on: str = "┃"
    """The place of the threshold `on`."""
    off: str = "┊"
    """The place of the threshold `off`."""
    dot: str = "●"
    rule: str = "─"

    @classmethod
    def of(cls, encoding: str) -> Glyphs:
        """The characters for an output with this encoding."""
        try:
            "".join((cls().full, cls().parts, cls().now, cls().on, cls().off, cls().dot, "·─")).encode(encoding)
        except (UnicodeEncodeError, LookupError):
            return cls(full="#", parts="", rest=".", now="o", on="|", off=":", dot="*", rule="-")
        return cls()

    def bar(self, share: float, width: int) -> str:
        """A bar that fills this share of the width, 0..1, padded to the width."""
        steps = len(self.parts) + 1
        filled = round(min(1.0, max(0.0, share)) * width * steps)
        drawn = self.full * (filled // steps) + (self.parts[filled % steps - 1] if filled % steps else "")
        return f"{drawn:{width}}"

    def gauge(self, filled: float, now: float | None, off: float | None, on: float, width: int) -> str:
        """A bar up to `filled`, with marks for a score and both thresholds; all values are 0..1."""
        cells = list(self.full * round(filled * width) + self.rest * (width - round(filled * width)))
        for share, sign in ((off, self.off), (on, self.on), (now, self.now)):
            if share is not None:
                cells[min(width - 1, round(share * width))] = sign
        return "".join(cells)


def console() -> Console:
    """Standard output. Characters that its encoding lacks become question marks instead of errors."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    return Console(highlight=False, emoji=False, markup=False)


def is_live(screen: Console) -> bool:
    """Whether the output is a terminal that can be redrawn."""
    return sys.stdout.isatty() and not screen.is_dumb_terminal
