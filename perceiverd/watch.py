"""`perceiverd watch`: the streams and their labels in a terminal, or a line for each message where there is none.

It is a client like any other and knows only what comes over the socket.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from perceiverd import messages
from perceiverd.client import Subscription, nothing_heard, subscribe
from perceiverd.messages import Hello, Message, Scores, Status

SILENCE_S = 5.0
REFRESH_S = 0.25
BAR = 12
"""Characters of the bar of a score of 1."""
COLOURS = {"up": "green", "ended": "dim", "starting": "yellow"}


def watch(endpoint: str, stream: str | None = None, top: int = 5) -> int:
    """Show what the daemon at this endpoint says until Ctrl-C; returns the exit status.

    Raises WireError where the endpoint is none, or others than perceiverd speak there.
    """
    topics = ("",) if stream is None else (messages.HELLO, messages.scores_topic(stream), messages.status_topic(stream))
    with subscribe(endpoint, topics) as subscription:
        try:
            if sys.stdout.isatty():
                _watch_live(subscription, top)
            else:
                _watch_lines(subscription, top)
        except KeyboardInterrupt:
            return 0
    return 0


@dataclass
class View:
    """The latest of everything that was heard."""

    endpoint: str
    hello: Hello | None = None
    status: dict[str, Status] = field(default_factory=dict)
    scores: dict[str, Scores] = field(default_factory=dict)
    heard_s: float = field(default_factory=time.monotonic)
    missed: int = 0

    def take(self, message: Message) -> None:
        self.heard_s = time.monotonic()
        match message:
            case Hello():
                self.hello = message
            case Status():
                self.status[message.stream] = message
            case Scores():
                self.scores[message.stream] = message

    @property
    def silence_s(self) -> float:
        return time.monotonic() - self.heard_s

    def render(self, top: int) -> RenderableType:
        table = Table(title=self._title(), title_justify="left", expand=False)
        for heading in ("stream", "state", "labels", "window ago", "latency", "dropped"):
            table.add_column(heading, justify="right" if heading in ("window ago", "latency", "dropped") else "left")
        for name in sorted({*self.status, *self.scores}):
            table.add_row(*self._row(name, top))
        if self.silence_s < SILENCE_S:
            return table
        return Group(table, Text(nothing_heard(self.endpoint, round(self.silence_s)), style="bold red"))

    def _title(self) -> Text:
        who = f"perceiverd {self.hello.version}, model {self.hello.model.name}" if self.hello else "perceiverd"
        lost = f", {self.missed} messages missed" if self.missed else ""
        return Text(f"{who} at {self.endpoint}{lost}")

    def _row(self, name: str, top: int) -> list[Text]:
        status, scores = self.status.get(name), self.scores.get(name)
        state = Text(status.state, style=COLOURS.get(status.state, "red")) if status else Text("?")
        if status and (restarts := sum(sum(source.restarts.values()) for source in status.sources)):
            state.append(f"\n{restarts} restarts")
        if scores is None:
            return [Text(name), state, Text("no window yet"), Text(""), Text(""), Text("")]
        return [
            Text(name),
            state,
            _labels(scores, top),
            Text(f"{max(0.0, time.time() - scores.end.timestamp()):.1f} s"),
            Text(f"{scores.latency_ms:.0f} ms"),
            Text(str(status.dropped if status else scores.dropped)),
        ]


def _labels(scores: Scores, top: int) -> Text:
    lines = Text()
    for tag in scores.labels[:top]:
        bar = "█" * round(tag.score * BAR)
        lines.append(f"{bar:{BAR}}", style="cyan").append(f" {tag.score:.2f} {tag.name}\n")
    lines.append(" + ".join(scores.modalities), style="dim")
    return lines


def _watch_live(subscription: Subscription, top: int) -> None:
    view = View(subscription.endpoint)
    with Live(view.render(top), console=Console(), auto_refresh=False) as live:
        while True:
            end_s = time.monotonic() + REFRESH_S
            while (left_s := end_s - time.monotonic()) > 0:
                if message := subscription.receive(left_s):
                    view.take(message)
            view.missed = subscription.missed
            live.update(view.render(top), refresh=True)


def _watch_lines(subscription: Subscription, top: int) -> None:
    states: dict[str, str] = {}
    while True:
        message = subscription.receive(SILENCE_S)
        match message:
            case None:
                line = nothing_heard(subscription.endpoint, SILENCE_S)
            case Hello():
                names = ", ".join(message.streams)
                line = f"perceiverd {message.version}, model {message.model.name}, streams: {names}"
            case Scores():
                labels = "  ".join(f"{tag.name} {tag.score:.2f}" for tag in message.labels[:top])
                line = f"{message.end.astimezone():%H:%M:%S} {message.stream}: {labels}"
            case Status():
                if states.get(message.stream) == message.state:
                    continue
                states[message.stream] = message.state
                line = f"{message.time.astimezone():%H:%M:%S} {message.stream}: {message.state}"
        print(line, flush=True)
