"""Events, times without recording and statistics as lines of text, in the time zone of this machine."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo

from perceiverd.cli.terminal import Glyphs
from perceiverd.cli.times import lasted, written
from perceiverd.core.errors import did_you_mean
from perceiverd.history import SpanRow, Statistics, StoredEvent, TraceWindow

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
BAR = 30
SHORT_S = 2.0
"""A state of a stream that lasted less is not listed: every start passes through `starting`."""
LOCALTIME = Path("/etc/localtime")


def zone() -> tzinfo:
    """The time zone of this machine with its rules for summer time; UTC if it is unknown."""
    name = os.environ.get("TZ", "").lstrip(":")
    if not name and LOCALTIME.is_symlink():
        name = str(LOCALTIME.resolve()).partition("zoneinfo/")[2]
    try:
        return ZoneInfo(name) if name else UTC
    except (ValueError, OSError, KeyError):
        return datetime.now().astimezone().tzinfo or UTC


def unknown_stream(stream: str, known: Collection[str]) -> str:
    """The error for a stream that has no rows."""
    if not known:
        return f"unknown stream '{stream}'; the history is empty"
    return f"unknown stream '{stream}'; {did_you_mean(stream, sorted(known))}"


def listing(events: Sequence[StoredEvent], spans: Sequence[SpanRow]) -> Iterator[str]:
    """A line for each event and for each time in which nothing was recorded, the newest first."""
    notable = [each for each in spans if each.kind != "up" or each.what]
    lines = [(each.start, event_line(each)) for each in events]
    lines += [
        (each.start, span_line(each)) for each in notable if _lasted_s(each) >= SHORT_S or each.kind != "starting"
    ]
    if not lines:
        yield "no events"
    for _, line in sorted(lines, key=lambda each: each[0], reverse=True):
        yield line


def event_line(event: StoredEvent) -> str:
    """`   12  2026-01-31 18:05:09  local/door  Dog  4.5 s  0.93  faded`."""
    how = event.details.ended if event.state == "ended" else event.state
    name = f"{event.machine}/{event.stream}"
    place = f"{event.id:7}  {written(event.start)}  {name:20} {event.name:28}"
    return f"{place} {lasted(event.duration_s):>10}  {event.peak:.2f}  {how}"


def span_line(span: SpanRow) -> str:
    """`        2026-01-31 18:05:09  local  -- history off for 2 h 3 min`."""
    name = span.machine if span.stream is None else f"{span.machine}/{span.stream}"
    words = [span.kind]
    if span.missed:
        noun = "events" if span.kind == "not stored" else f"of {span.what}"
        words = [f"{span.kind}: {span.missed} {noun}"]
    if span.kind != "daemon restarted":
        words.append("since then" if span.end is None else f"for {lasted(_lasted_s(span))}")
    if span.what and not span.missed:
        words.append(f"({span.what})")
    return f"{'':7}  {written(span.start)}  {name:20} -- {' '.join(words)}"


def event(event: StoredEvent, trace: Sequence[TraceWindow], glyphs: Glyphs) -> Iterator[str]:
    """Everything about one event."""
    details = event.details
    yield f"{event.name} ({event.mid}) on {event.machine}/{event.stream}, event {event.id}"
    yield f"from       {written(event.start)}"
    yield f"to         {written(event.end)}, {lasted(event.duration_s)}, {event.state}"
    media = " and ".join(details.modalities) or "nothing"
    yield f"score      highest {event.peak:.3f}, mean {event.mean:.3f}, of {media}"
    yield f"began      {_began(event)}"
    yield f"ended      {_ended(event)}"
    if details.continues:
        yield f"continues  {details.continues}"
    if details.snapshot:
        yield f"picture    {details.snapshot}"
    if details.clip:
        yield f"clip       {details.clip}"
    if details.withheld:
        yield f"no media   {details.withheld}"
    yield f"message    id {event.key} of boot {event.boot_id[:12]}"
    if not trace:
        yield "scores     not stored, or removed"
        return
    yield ""
    yield f"{'window ended at':22} {event.name} (on {details.on:.2f}, off {details.off:.2f})"
    last = trace[0].end
    for window in trace:
        if window.end - last > timedelta(seconds=5):
            yield "..."
        last = window.end
        yield f"{_clock(window.end):22} {_scored(window, event.mid, glyphs)}"


def statistics(found: Statistics, glyphs: Glyphs, top: int) -> Iterator[str]:
    """Counts with bars."""
    if not found.events:
        yield "no events"
        return
    days = list(found.by_day)
    yield f"{found.events} events from {days[0]} to {days[-1]}"
    yield ""
    yield from _bars("label", [(each.name, each.events) for each in found.by_label], glyphs, top)
    yield from _bars("stream", list(found.by_stream.items()), glyphs, top)
    yield from _bars("hour", [(f"{hour:02}:00", count) for hour, count in enumerate(found.by_hour)], glyphs, 24)
    yield from _bars("weekday", list(zip(WEEKDAYS, found.by_weekday, strict=True)), glyphs, 7)
    last = _days(days[-1], 14)
    yield from _bars("day", [(str(day), found.by_day.get(day, 0)) for day in last if day >= days[0]], glyphs, 14)


def _bars(heading: str, rows: Sequence[tuple[str, int]], glyphs: Glyphs, top: int) -> Iterator[str]:
    shown = rows[:top]
    most = max((count for _, count in shown), default=0) or 1
    yield heading
    for name, count in shown:
        yield f"  {name:30} {count:8} {glyphs.bar(count / most, BAR)}".rstrip()
    if len(rows) > top:
        yield f"  ... and {len(rows) - top} more"
    yield ""


def _days(last: date, count: int) -> list[date]:
    return [last - timedelta(days=back) for back in reversed(range(count))]


def _began(event: StoredEvent) -> str:
    details = event.details
    if not details.began:
        return "not known: the history did not receive the beginning"
    score = "" if details.begin_score is None else f"the smoothed score was {details.begin_score:.3f}, "
    return f"{details.began}: {score}at or above {details.on:.3f} since {_clock(details.since)}"


def _ended(event: StoredEvent) -> str:
    if event.state != "ended":
        return "not yet" if event.state == "open" else "its end was not received: the daemon or the history stopped"
    details = event.details
    return f"{details.ended}: the smoothed score was {details.score:.3f}, {details.windows} windows confirmed it"


def _scored(window: TraceWindow, mid: str, glyphs: Glyphs) -> str:
    score = window.scores.get(mid)
    bar = glyphs.bar(score or 0.0, BAR)
    return f"{bar} {score:.3f}" if score is not None else f"{bar} not among the best"


def _clock(time: datetime) -> str:
    local = time.astimezone()
    return f"{local:%H:%M:%S}.{local.microsecond // 100_000}"


def _lasted_s(span: SpanRow) -> float:
    return ((span.end or datetime.now(UTC)) - span.start).total_seconds()
