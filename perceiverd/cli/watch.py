"""`perceiverd watch`: the streams in a terminal, or a line for each thing that happens where there is none.

It is a client like any other and knows only what comes over the socket.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from itertools import zip_longest

import msgspec
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from perceiverd.cli.activity import Activity, ActivityEntry, StreamView, lasting, why
from perceiverd.cli.terminal import STATES, Glyphs, console, is_live
from perceiverd.wire import Curve, Event, Gap, Item, Restarted, Scores, Stale, Subscription, Tag, messages, subscribe
from perceiverd.wire.client import nothing_received

REFRESH_S = 0.25
JSON_TYPES = {Stale: "silence", Gap: "gap", Restarted: "restarted"}
"""The `type` in the JSON of what is not a message."""
BAR = 14
"""Characters of the bar of a score of 1."""
SIDE_BY_SIDE = 90
"""From so many columns on, open events stand beside the labels, not above them."""
RECENT = 8
"""Lines of what happened lately, where there is room."""


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """What is to be shown, and how."""

    stream: str | None = None
    """This one alone."""
    top: int = 5
    """Labels of a stream, best first."""
    scores: bool = False
    """Lines, and every window's scores among them."""
    json: bool = False
    """Lines for programs: the messages as they came."""


def watch(endpoint: str, wish: WatchOptions = WatchOptions(), curve: Curve | None = None) -> int:
    """Show what the daemon at this endpoint says until Ctrl-C; returns the exit status.

    Raises WireError where the endpoint is none, or others than perceiverd speak there.
    """
    screen = console()
    with subscribe(endpoint, _topics(wish), curve=curve) as subscription:
        try:
            if is_live(screen) and not (wish.json or wish.scores):
                _watch_live(subscription, screen, wish.top)
            else:
                _watch_lines(subscription, wish)
        except KeyboardInterrupt:
            return 0
    return 0


def _topics(wish: WatchOptions) -> tuple[str, ...]:
    """What to subscribe to; never to `explain/`, which the daemon makes for those who ask."""
    streams = "" if wish.stream is None else f"{wish.stream}/"
    return messages.HELLO, f"status/{streams}", f"events/{streams}", f"scores/{streams}"


# Lines.


def _watch_lines(subscription: Subscription, wish: WatchOptions) -> None:
    chronicle = Activity(subscription.endpoint)
    for item in subscription:
        told = _told(chronicle, item)
        if isinstance(item, Scores) and wish.scores:
            told = ActivityEntry(item.end, f"{item.stream}: {_best(item, wish.top)}")
        if told:
            print(_json(item) if wish.json else f"{told.time.astimezone():%Y-%m-%d %H:%M:%S} {told.text}", flush=True)


def _told(chronicle: Activity, item: Item) -> ActivityEntry | None:
    """What has happened by what came."""
    now = datetime.now(UTC)
    match item:
        case Stale(over=True):
            return chronicle.heard_again(now)
        case Stale(seconds=seconds):
            since = now - timedelta(seconds=seconds)
            return chronicle.silent(since, now, nothing_received(chronicle.endpoint, round(seconds)))
        case Gap(topic=topic, missed=missed):
            return chronicle.lost(topic, missed, now)
        case Restarted():
            return chronicle.restarted(now)
        case _:
            return chronicle.take(item, now)


def _json(item: Item) -> str:
    """The item as JSON, with its `type`, which messages have of themselves."""
    if isinstance(item, Stale | Gap | Restarted):
        return msgspec.json.encode({"type": JSON_TYPES[type(item)]} | asdict(item)).decode()
    return msgspec.json.encode(item).decode()


def _best(scores: Scores, top: int) -> str:
    return "  ".join(f"{tag.name} {tag.score:.2f}" for tag in scores.labels[:top])


# A picture of how all is.


def _watch_live(subscription: Subscription, screen: Console, top: int) -> None:
    chronicle = Activity(subscription.endpoint)
    picture = Picture(chronicle, Glyphs.of(screen.encoding), top)
    drawn_s = 0.0
    with Live(picture, console=screen, auto_refresh=False) as live:
        while True:
            if (item := subscription.receive(REFRESH_S)) is not None:
                _told(chronicle, item)
            if time.monotonic() - drawn_s >= REFRESH_S:
                drawn_s = time.monotonic()
                live.refresh()


class Picture:
    """All of it as far as the terminal has room: who speaks, the streams, and what happened lately."""

    def __init__(self, chronicle: Activity, signs: Glyphs, top: int) -> None:
        self._chronicle, self._signs, self._top = chronicle, signs, top

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lines that are cut, never wrapped: one that wrapped would push the last one out of the terminal."""
        width, height = options.max_width, max(1, console.size.height - 1)
        lines = [self._header()]
        streams = self._chronicle.streams
        top = max(1, min(self._top, (height - 1) // max(1, len(streams)) - 2))
        for name in sorted(streams):
            lines += [Text(""), *self._stream(name, streams[name], width, top)]
        if (room := min(RECENT, height - len(lines) - 1)) > 0 and self._chronicle.recent:
            lines.append(Text(self._signs.rule * width, style="dim"))
            lines += [_line(each) for each in list(self._chronicle.recent)[-room:]]
        for line in lines[:height]:
            line.truncate(width, overflow="crop")
            yield line

    def _header(self) -> Text:
        chronicle, hello = self._chronicle, self._chronicle.hello
        line = Text(f"perceiverd {hello.version}" if hello else "perceiverd", style="bold")
        about = f"  {hello.model.name}  {chronicle.endpoint}" if hello else f"  {chronicle.endpoint}"
        line.append(about, style="not bold")
        if chronicle.missed:
            line.append(f"  {chronicle.missed} messages missed", style="red")
        if chronicle.silent_since:
            seconds = (datetime.now(UTC) - chronicle.silent_since).total_seconds()
            line.append(f"  nothing heard for {lasting(seconds)}: is it running?", style="red")
        return line

    def _stream(self, name: str, seen: StreamView, width: int, top: int) -> list[Text]:
        labels = [self._label(tag) for tag in seen.scores.labels[:top]] if seen.scores else []
        events = [self._event(event) for event in list(seen.events.values())[-top:]]
        if width < SIDE_BY_SIDE:
            return [_title(name, seen), *events, *labels]
        lines, column = [_title(name, seen)], width // 2
        for left, right in zip_longest(labels, events, fillvalue=Text("")):
            beside = left.copy()
            beside.truncate(column - 1, overflow="crop")
            beside.pad_right(column - beside.cell_len)
            lines.append(beside.append_text(right))
        return lines

    def _label(self, tag: Tag) -> Text:
        return Text(f"  {tag.score:.2f} ").append(self._signs.bar(tag.score, BAR), style="cyan").append(f" {tag.name}")

    def _event(self, event: Event) -> Text:
        seconds = max(0.0, (datetime.now(UTC) - event.start).total_seconds())
        # The name last: it may be long, and the line is cut at the edge.
        line = (
            Text("  ").append(self._signs.dot, style="green").append(f" {lasting(seconds):>6}, peak {event.peak:.2f} ")
        )
        return line.append(event.name, style="bold")


def _title(name: str, seen: StreamView) -> Text:
    status, scores = seen.status, seen.scores
    line = Text(name, style="bold")
    if status is None:
        return line.append("  not heard of yet", style="not bold dim")
    line.append(f"  {status.state}{why(status)}", style=f"not bold {STATES.get(status.state, 'red')}")
    for stall in (stall for source in status.sources for stall in source.stalls):
        line.append(f"  {stall}", style="not bold red")
    facts = [f"dropped {status.dropped}"] if status.dropped else []
    facts += [] if status.data_age_s is None else [f"data {lasting(status.data_age_s)} ago"]
    if scores:
        late_ms = scores.latency_ms
        facts.append(f"latency {late_ms:.0f} ms" if late_ms < 1000 else f"latency {lasting(late_ms / 1000)}")
        facts.append(" + ".join(scores.modalities))
        facts += [] if scores.skew_ms is None else [f"skew {scores.skew_ms:+.0f} ms"]
    return line.append("".join(f"  {fact}" for fact in facts), style="not bold dim")


def _line(happening: ActivityEntry) -> Text:
    line = Text(f"{happening.time.astimezone():%H:%M:%S} ", style="dim")
    return line.append(happening.text, style="not dim red" if happening.grave else "not dim")
