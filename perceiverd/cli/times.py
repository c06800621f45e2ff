"""Times that people write on the command line, and times as they read them. In the time zone of this machine."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from perceiverd.core.errors import ConfigError

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
AGO = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
TIME_HELP = "2026-01-31, 2026-01-31T18:00, today, yesterday, or how long ago: 90m, 12h, 7d"


def parse_time(text: str, option: str, now: datetime) -> datetime:
    """The time that this text means, in this machine's zone if it has none. Raises ConfigError, naming the option."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if text in ("now", "today", "yesterday"):
        return {"now": now, "today": midnight, "yesterday": midnight - timedelta(days=1)}[text]
    try:
        if ago := AGO.fullmatch(text):
            return now - timedelta(seconds=float(ago[1]) * UNITS_S[ago[2]])
        time = datetime.fromisoformat(text)
        return time if time.tzinfo else time.astimezone()
    except (ValueError, OverflowError):
        raise ConfigError(f"{option}: cannot read the time {text!r}; write {TIME_HELP}") from None


def written(time: datetime) -> str:
    """`2026-01-31 18:05:09` in the time zone of this machine."""
    return f"{time.astimezone():%Y-%m-%d %H:%M:%S}"


def lasted(seconds: float) -> str:
    """`0.4 s`, `59 s`, `2 min 5 s`, `3 h 20 min`, `2 d 4 h`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, name, smaller, lesser in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {name}" + (f" {rest} {lesser}" if rest else "")
    return f"{whole} s"
