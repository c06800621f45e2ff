"""`perceiverd watch`: the streams of a daemon in a terminal, or a line for each change if there is no terminal.

It is a client like any other, and knows only what the daemon publishes.
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

from perceiverd.cli.activity import Activity, ActivityEntry, StreamView, duration, restarts
from perceiverd.cli.terminal import STATES, Glyphs, console, is_live
from perceiverd.wire import (
    Curve,
    Event,
    Gap,
    Item,
    Restarted,
    Scores,
    Stale,
    Subscription,
    Tag,
    holes,
    messages,
    subscribe,
)
from perceiverd.wire.client import nothing_received

REFRESH_S = 0.25
JSON_TYPES = {Stale: "silence", Gap: "gap", Restarted: "restarted"}
"""The `type` in the JSON of an item that is not a message."""
BAR = 14
"""Characters of the bar of a score of 1."""
SIDE_BY_SIDE = 90
"""From this number of columns on, open events are beside the labels instead of above them."""
RECENT = 8
"""Lines of recent activity, if there is room."""


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """What to show, and how."""

    stream: str | None = None
    """Only this stream; None for all."""
    top: int = 5
    """Number of labels per stream, best first."""
    scores: bool = False
    """Print lines, with the scores of each window."""
    json: bool = False
    """Print each item as one line of JSON."""


def watch(endpoint: str, options: WatchOptions = WatchOptions(), curve: Curve | None = None) -> int:
    """Show what the daemon at this endpoint publishes until Ctrl-C; returns the exit status.

    Raises WireError if the endpoint is invalid or publishes other messages than perceiverd's.
    """
    screen = console()
    with subscribe(endpoint, _topics(options), curve=curve) as subscription:
        try:
            if is_live(screen) and not (options.json or options.scores):
                _watch_live(subscription, screen, options.top)
            else:
                _watch_lines(subscription, options)
        except KeyboardInterrupt:
            return 0
    return 0


def _topics(options: WatchOptions) -> tuple[str, ...]:
    """The topics to subscribe to. `explain/` is not among them: the daemon makes it only for its subscribers."""
    streams = "" if options.stream is None else f"{options.stream}/"
    return messages.HELLO, f"status/{streams}", f"events/{streams}", f"scores/{streams}"


def _watch_lines(subscription: Subscription, options: WatchOptions) -> None:
    activity = Activity(subscription.endpoint)
    for item in subscription:
        entry = _update(activity, item)
        if isinstance(item, Scores) and options.scores:
            entry = ActivityEntry(item.end, f"{item.stream}: {_best(item, options.top)}{_losses(item)}")
        if entry:
            line = f"{entry.time.astimezone():%Y-%m-%d %H:%M:%S} {entry.text}"
            print(_json(item) if options.json else line, flush=True)


def _update(activity: Activity, item: Item) -> ActivityEntry | None:
    """Update the activity; returns an entry if the item is a change."""
    now = datetime.now(UTC)
    match item:
        case Stale(over=True):
            return activity.silence_ended(now)
        case Stale(seconds=seconds):
            since = now - timedelta(seconds=seconds)
            return activity.silence_began(since, now, nothing_received(activity.endpoint, round(seconds)))
        case Gap(topic=topic, missed=missed):
            return activity.missed_messages(topic, missed, now)
        case Restarted():
            return activity.restarted(now)
        case _:
            return activity.update(item, now)


def _json(item: Item) -> str:
    """The item as one line of JSON with its `type`."""
    if isinstance(item, Stale | Gap | Restarted):
        return msgspec.json.encode({"type": JSON_TYPES[type(item)]} | asdict(item)).decode()
    return msgspec.json.encode(item).decode()


def _best(scores: Scores, top: int) -> str:
    return "  ".join(f"{tag.name} {tag.score:.2f}" for tag in scores.labels[:top])


def _losses(scores: Scores) -> str:
    losses = holes.described(scores.filled_ms, scores.missing)
    return f"  ({losses})" if losses else ""


def _watch_live(subscription: Subscription, screen: Console, top: int) -> None:
    activity = Activity(subscription.endpoint)
    view = LiveView(activity, Glyphs.of(screen.encoding), top)
    drawn_s = 0.0
    with Live(view, console=screen, auto_refresh=False) as live:
        while True:
            if (item := subscription.receive(REFRESH_S)) is not None:
                _update(activity, item)
            if time.monotonic() - drawn_s >= REFRESH_S:
                drawn_s = time.monotonic()
                live.refresh()


class LiveView:
    """The daemon, its streams and the recent activity, as much as fits into the terminal."""

    def __init__(self, activity: Activity, glyphs: Glyphs, top: int) -> None:
        self._activity, self._glyphs, self._top = activity, glyphs, top

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield lines. They are cut and never wrapped: a wrapped line would push the last one out of the terminal."""
        width, height = options.max_width, max(1, console.size.height - 1)
        lines = [self._header()]
        streams = self._activity.streams
        top = max(1, min(self._top, (height - 1) // max(1, len(streams)) - 2))
        for name in sorted(streams):
            lines += [Text(""), *self._stream(name, streams[name], width, top)]
        if (room := min(RECENT, height - len(lines) - 1)) > 0 and self._activity.recent:
            lines.append(Text(self._glyphs.rule * width, style="dim"))
            lines += [_line(entry) for entry in list(self._activity.recent)[-room:]]
        for line in lines[:height]:
            line.truncate(width, overflow="crop")
            yield line

    def _header(self) -> Text:
        activity, hello = self._activity, self._activity.hello
        line = Text(f"perceiverd {hello.version}" if hello else "perceiverd", style="bold")
        about = f"  {hello.model.name}  {activity.endpoint}" if hello else f"  {activity.endpoint}"
        line.append(about, style="not bold")
        if activity.missed:
            line.append(f"  {activity.missed} messages missed", style="red")
        if activity.silent_since:
            seconds = (datetime.now(UTC) - activity.silent_since).total_seconds()
            line.append(f"  no message for {duration(seconds)}: is it running?", style="red")
        return line

    def _stream(self, name: str, view: StreamView, width: int, top: int) -> list[Text]:
        labels = [self._label(tag) for tag in view.scores.labels[:top]] if view.scores else []
        events = [self._event(event) for event in list(view.events.values())[-top:]]
        if width < SIDE_BY_SIDE:
            return [_title(name, view), *events, *labels]
        lines, column = [_title(name, view)], width // 2
        for left, right in zip_longest(labels, events, fillvalue=Text("")):
            beside = left.copy()
            beside.truncate(column - 1, overflow="crop")
            beside.pad_right(column - beside.cell_len)
            lines.append(beside.append_text(right))
        return lines

    def _label(self, tag: Tag) -> Text:
        bar = self._glyphs.bar(tag.score, BAR)
        return Text(f"  {tag.score:.2f} ").append(bar, style="cyan").append(f" {tag.name}")

    def _event(self, event: Event) -> Text:
        seconds = max(0.0, (datetime.now(UTC) - event.start).total_seconds())
        line = Text("  ").append(self._glyphs.dot, style="green")
        # The name is last, because the line is cut at the edge and a name may be long.
        return line.append(f" {duration(seconds):>6}, peak {event.peak:.2f} ").append(event.name, style="bold")


def _title(name: str, view: StreamView) -> Text:
    status = view.status
    line = Text(name, style="bold")
    if status is None:
        return line.append("  no message yet", style="not bold dim")
    line.append(f"  {status.state}{restarts(status)}", style=f"not bold {STATES.get(status.state, 'red')}")
    for stall in (stall for source in status.sources for stall in source.stalls):
        line.append(f"  {stall}", style="not bold red")
    for what in {source.waiting_for for source in status.sources} - {""}:
        line.append(f"  waits for {what}", style="not bold yellow")
    facts = [f"dropped {status.dropped}"] if status.dropped else []
    facts += [] if status.data_age_s is None else [f"data {duration(status.data_age_s)} ago"]
    facts += _facts(view.scores) if view.scores else []
    return line.append("".join(f"  {fact}" for fact in facts), style="not bold dim")


def _facts(scores: Scores) -> list[str]:
    """Latency, modalities and the time offset of audio and video."""
    late_ms = scores.latency_ms
    facts = [f"latency {late_ms:.0f} ms" if late_ms < 1000 else f"latency {duration(late_ms / 1000)}"]
    facts.append(f"{' + '.join(scores.modalities)}{_losses(scores)}")
    return facts + ([] if scores.skew_ms is None else [f"skew {scores.skew_ms:+.0f} ms"])


def _line(entry: ActivityEntry) -> Text:
    line = Text(f"{entry.time.astimezone():%H:%M:%S} ", style="dim")
    return line.append(entry.text, style="not dim red" if entry.is_loss else "not dim")
