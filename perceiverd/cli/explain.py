"""`perceiverd explain`: why a label of a stream has an event or has none, for each window as it comes.

It is a client like any other: the daemon publishes its decisions and their reasons while somebody subscribes to them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime

import msgspec
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from perceiverd.cli.activity import duration, restarts
from perceiverd.cli.terminal import Glyphs, console, is_live
from perceiverd.core.errors import PerceiverdError, did_you_mean, nearest_few
from perceiverd.core.labels import Label, ontology
from perceiverd.wire import Curve, Explain, Gap, Hello, Item, Restarted, Stale, Status, holes, messages, subscribe
from perceiverd.wire.client import nothing_received

GAUGE, GAUGE_LEAST = 40, 16
"""Characters of the gauge from 0 to 1, in a wide and in a narrow terminal."""
INDENT, VERDICT = 9, 5
"""Characters of the time and of the longest verdict."""
SUGGESTIONS = 3
"""Most labels that are suggested in place of an unknown one."""
SIMILARITY = 0.65
"""Least similarity of a suggested word. It is high, because there are 527 labels with many short words."""
VERDICTS = {
    "open": ("event", "bold green"),
    "fading": ("event", "green"),
    "holding": ("soon", "yellow"),
    "subsumed": ("no", "yellow"),
    "cool-down": ("no", "yellow"),
    "denied": ("no", "yellow"),
    "not allowed": ("no", "yellow"),
}
"""Whether there is an event, by state, with its style. In every other state the score is too low."""


def explain(endpoint: str, stream: str, label: str, *, json: bool = False, curve: Curve | None = None) -> int:
    """Explain each window of the stream until Ctrl-C; returns the exit status.

    Raises PerceiverdError if there is no such label or stream, WireError if the endpoint is invalid.
    """
    wanted = find(label)
    screen = console()
    topics = (messages.HELLO, messages.status_topic(stream), messages.explain_topic(stream))
    with subscribe(endpoint, topics, curve=curve) as subscription:
        try:
            printer = ExplanationPrinter(screen, stream, wanted, json=json, live=is_live(screen))
            for item in subscription:
                if isinstance(item, Stale):
                    again = f"messages arrive again after {duration(item.seconds)}"
                    printer.note(again if item.over else nothing_received(endpoint, round(item.seconds)))
                else:
                    printer.update(item)
        except KeyboardInterrupt:
            return 0
    return 0


def find(name: str) -> Label:
    """The label with this name or mid, ignoring case. Raises PerceiverdError with suggestions."""
    labels = ontology().labels
    for label in labels:
        if name == label.mid or name.casefold() == label.name.casefold():
            return label
    # Many names consist of several words, such as "Chicken, rooster", and people remember one of them.
    words = {word.strip(): label.name for label in reversed(labels) for word in [label.name, *label.name.split(",")]}
    near = nearest_few(name, words, SUGGESTIONS, SIMILARITY)
    near += [word for word in words if name.casefold() in word.casefold()][: SUGGESTIONS - len(near)]
    suggested = dict.fromkeys(f"'{words[word]}'" for word in near)
    hint = f"did you mean {' or '.join(suggested)}?" if suggested else "the model's labels.tsv lists the names"
    raise PerceiverdError(f"unknown label {name!r}; {hint}")


@dataclass(frozen=True, slots=True)
class LabelView:
    """The label after one window."""

    end: datetime
    """Time of the window's end."""
    score: float | None
    """Score in this window alone; None if the daemon did not list the label among the candidates."""
    smoothed: float | None
    on: float | None
    off: float | None
    state: str
    reason: str
    reused_frames: int = 0
    """As in `Explain`."""
    filled_ms: dict[str, float] = field(default_factory=dict)
    """As in `Scores`."""
    missing: dict[str, str] = field(default_factory=dict)
    """As in `Scores`."""

    @classmethod
    def of(cls, label: Label, message: Explain) -> LabelView:
        """The label in this message, and what its window lacks."""
        return replace(
            cls._of(label, message),
            reused_frames=message.reused_frames,
            filled_ms=message.filled_ms,
            missing=message.missing,
        )

    @classmethod
    def _of(cls, label: Label, message: Explain) -> LabelView:
        for each in message.candidates:
            if each.mid == label.mid:
                reason = each.reason
                if each.windows and each.state != "quiet":
                    reason += f", {each.windows} window{'s' * (each.windows != 1)}"
                if each.surest:
                    reason += f"; scored as {_name(each.surest)}"
                return cls(message.end, each.score, each.smoothed, each.on, each.off, each.state, reason)
        if len(message.smoothed) != len(ontology().labels):  # a model with other labels, in its own order
            return cls(message.end, None, None, None, None, "quiet", "not among the model's best labels")
        smoothed, on = message.smoothed[label.index], message.on[label.index]
        return cls(
            message.end, None, smoothed, on, None, "quiet", f"score {smoothed:.2g} far below the on threshold {on:.3g}"
        )


def _name(mid: str) -> str:
    return next((label.name for label in ontology().labels if label.mid == mid), mid)


class ExplanationPrinter:
    """Prints what the messages say about one label."""

    def __init__(self, screen: Console, stream: str, label: Label, *, json: bool, live: bool) -> None:
        """`live`: whether lines must fit into the screen's width."""
        self._screen, self._stream, self._label, self._json = screen, stream, label, json
        self._glyphs = Glyphs.of(screen.encoding)
        self._width = screen.width if live else None
        self._state = "up"
        self._on: float | None = None
        self._off: float | None = None

    def update(self, item: Item) -> None:
        """Print what an item says. Raises PerceiverdError if the daemon has no such stream."""
        match item:
            case Hello() if self._stream not in item.streams:
                raise PerceiverdError(f"unknown stream {self._stream!r}; {did_you_mean(self._stream, item.streams)}")
            case Status() if item.state != self._state:
                self._state = item.state
                self.note(f"{item.stream} is {item.state}{restarts(item)}")
            case Gap(missed=missed):
                self.note("missed 1 window" if missed == 1 else f"missed {missed} windows")
            case Restarted():
                self.note("the daemon has restarted")
            case Explain():
                self._explain(LabelView.of(self._label, item))

    def note(self, line: str) -> None:
        """Print a line for people; programs that read JSON do not get it."""
        if not self._json:
            self._print(line)

    def _explain(self, view: LabelView) -> None:
        if self._json:
            label = {"stream": self._stream, "mid": self._label.mid, "name": self._label.name}
            self._print(msgspec.json.encode(label | msgspec.to_builtins(view)).decode())
            return
        self._legend(view)
        for line in self._lines(view):
            self._print(line)

    def _print(self, line: str | Text) -> None:
        """Print a line at once. Outside a terminal it may have any length."""
        self._screen.print(line, soft_wrap=True)
        self._screen.file.flush()

    def _legend(self, view: LabelView) -> None:
        """Explain the marks before the first gauge, and again if a threshold has changed."""
        glyphs = self._glyphs
        if view.on is not None and view.on != self._on:
            self._print(f"{self._label.name} ({self._label.mid}) of stream {self._stream}")
            self._print(f"{glyphs.full} smoothed score    {glyphs.now} score of this window")
            self._print(f"{glyphs.on} on, {view.on:.3g}: an event may begin at or above it")
        if view.off is not None and view.off != self._off:
            self._print(f"{glyphs.off} off, {view.off:.3g}: an event fades below it")
        self._on, self._off = view.on or self._on, view.off or self._off

    def _lines(self, view: LabelView) -> list[Text]:
        width = GAUGE if self._width is None else max(GAUGE_LEAST, min(GAUGE, self._width - INDENT - VERDICT - 7))
        verdict, style = VERDICTS.get(view.state, ("no", "dim"))
        line = Text(f"{view.end.astimezone():%H:%M:%S} ", style="dim")
        if view.smoothed is not None and view.on is not None:
            gauge = self._glyphs.gauge(view.smoothed, view.score, view.off, view.on, width)
            line.append(f"{view.smoothed:.2f} ", style="not dim").append(gauge, style="not dim cyan").append(" ")
        line.append(f"{verdict:{VERDICT}}", style=f"not dim {style}")
        reused = f"{view.reused_frames} frame{'s' * (view.reused_frames != 1)} reused" if view.reused_frames else ""
        lacks = holes.described(view.filled_ms, view.missing)
        reason = "; ".join(filter(None, (view.reason, lacks, reused)))
        if self._width is None or line.cell_len + 1 + cell_len(reason) <= self._width:
            return [line.append(f" {reason}", style="not dim")]
        # The reason gets lines of its own; broken at the terminal's edge it would be hard to read.
        below = Text(reason, style="dim").wrap(self._screen, max(20, self._width - INDENT))
        return [line, *(Text(" " * INDENT).append_text(each) for each in below)]
