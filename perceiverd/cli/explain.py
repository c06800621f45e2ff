"""`perceiverd explain`: why a label of a stream has an event, or why it has none, window by window as they come.

It is a client like any other: the daemon says what it decides, and on what grounds, while somebody asks.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from datetime import datetime

import msgspec
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from perceiverd.cli.activity import lasting, why
from perceiverd.cli.terminal import Glyphs, console, is_live
from perceiverd.core.errors import PerceiverdError
from perceiverd.core.labels import Label, ontology
from perceiverd.wire import Curve, Explain, Gap, Hello, Item, Restarted, Stale, Status, messages, subscribe
from perceiverd.wire.client import nothing_received

GAUGE, GAUGE_LEAST = 40, 16
"""Characters of the gauge from 0 to 1, where the terminal is wide, and where it is narrow."""
INDENT, VERDICT = 9, 5
"""Characters of the time, and of the longest verdict."""
WORDS = {
    "open": ("event", "bold green"),
    "fading": ("event", "green"),
    "holding": ("soon", "yellow"),
    "subsumed": ("no", "yellow"),
    "cool-down": ("no", "yellow"),
    "denied": ("no", "yellow"),
    "not allowed": ("no", "yellow"),
}
"""Whether there is an event, by state, and how that looks; where it is none of these the score is too low."""


def explain(endpoint: str, stream: str, label: str, *, json: bool = False, curve: Curve | None = None) -> int:
    """Explain each window of the stream as it comes until Ctrl-C; returns the exit status.

    Raises PerceiverdError where there is no such label or stream, WireError where the endpoint is none.
    """
    asked = find(label)
    screen = console()
    topics = (messages.HELLO, messages.status_topic(stream), messages.explain_topic(stream))
    with subscribe(endpoint, topics, curve=curve) as subscription:
        try:
            teller = Teller(screen, stream, asked, json=json, live=is_live(screen))
            for item in subscription:
                if isinstance(item, Stale):
                    heard = f"heard again after {lasting(item.seconds)}"
                    teller.note(heard if item.over else nothing_received(endpoint, round(item.seconds)))
                else:
                    teller.take(item)
        except KeyboardInterrupt:
            return 0
    return 0


def find(name: str) -> Label:
    """The label of this name or mid, whatever its case. Raises PerceiverdError with what may have been meant."""
    labels = ontology().labels
    for label in labels:
        if name == label.mid or name.casefold() == label.name.casefold():
            return label
    # Many names list several words, of which people remember one.
    words = {word.strip(): label.name for label in reversed(labels) for word in [label.name, *label.name.split(",")]}
    by_case = {word.casefold(): known for word, known in words.items()}
    near = difflib.get_close_matches(name.casefold(), by_case, n=3, cutoff=0.65)
    near += [word for word in by_case if name.casefold() in word and word not in near][: 3 - len(near)]
    meant = list(dict.fromkeys(f"`{by_case[word]}`" for word in near))
    hint = f"did you mean {' or '.join(meant)}?" if meant else "the names are in the model's labels.tsv"
    raise PerceiverdError(f"there is no label {name!r}; {hint}")


@dataclass(frozen=True, slots=True)
class Look:
    """How the label stands after one window."""

    end: datetime
    """Of the window."""
    score: float | None
    """In this window alone; None where the daemon told of it only that it is quiet."""
    smoothed: float | None
    on: float | None
    off: float | None
    state: str
    reason: str

    @classmethod
    def at(cls, label: Label, message: Explain) -> Look:
        for each in message.candidates:
            if each.mid == label.mid:
                reason = each.reason
                if each.windows and each.state != "quiet":
                    reason += f", {each.windows} window{'s' * (each.windows != 1)}"
                if each.surest:
                    reason += f"; heard as {_name(each.surest)}"
                return cls(message.end, each.score, each.smoothed, each.on, each.off, each.state, reason)
        if len(message.smoothed) != len(ontology().labels):  # a model with labels of its own choice, in its own order
            return cls(message.end, None, None, None, None, "quiet", "not among the labels that the model is sure of")
        smoothed, on = message.smoothed[label.index], message.on[label.index]
        return cls(message.end, None, smoothed, on, None, "quiet", f"{smoothed:.2g} is far below {on:.3g}")


def _name(mid: str) -> str:
    return next((label.name for label in ontology().labels if label.mid == mid), mid)


class Teller:
    """Prints what the messages say of one label."""

    def __init__(self, screen: Console, stream: str, label: Label, *, json: bool, live: bool) -> None:
        """`live` is whether lines are to fit into the screen's width."""
        self._screen, self._stream, self._label, self._json = screen, stream, label, json
        self._signs = Glyphs.of(screen.encoding)
        self._width = screen.width if live else None
        self._state = "up"
        self._on: float | None = None
        self._off: float | None = None

    def take(self, message: Item) -> None:
        """Print what a message says. Raises PerceiverdError where the daemon has no such stream."""
        match message:
            case Hello() if self._stream not in message.streams:
                near = difflib.get_close_matches(self._stream, message.streams, n=1)
                hint = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(message.streams)}"
                raise PerceiverdError(f"no stream {self._stream!r} is watched there; {hint}")
            case Status() if message.state != self._state:
                self._state = message.state
                self.note(f"{message.stream} is {message.state}{why(message)}")
            case Gap(missed=missed):
                self.note("1 window was missed" if missed == 1 else f"{missed} windows were missed")
            case Restarted():
                self.note("the daemon was restarted")
            case Explain() if self._json:
                look = msgspec.to_builtins(Look.at(self._label, message))
                told = {"stream": self._stream, "mid": self._label.mid, "name": self._label.name} | look
                self.say(msgspec.json.encode(told).decode())
            case Explain():
                look = Look.at(self._label, message)
                self._legend(look)
                for line in self._lines(look):
                    self.say(line)

    def note(self, line: str) -> None:
        """Print what is for people alone."""
        if not self._json:
            self.say(line)

    def say(self, line: str | Text) -> None:
        """Print a line, at once, and as long as it is where no terminal limits it."""
        self._screen.print(line, soft_wrap=True)
        self._screen.file.flush()

    def _legend(self, look: Look) -> None:
        """Say what the signs mean, as soon as there is something of it, and when a threshold has changed."""
        signs = self._signs
        if look.on is not None and look.on != self._on:
            self.say(f"{self._label.name} ({self._label.mid}) of stream {self._stream}")
            self.say(f"{signs.full} smoothed score    {signs.now} score of the window alone")
            self.say(f"{signs.on} on, {look.on:.3g}: from here an event may begin")
        if look.off is not None and look.off != self._off:
            self.say(f"{signs.off} off, {look.off:.3g}: below this it fades")
        self._on, self._off = look.on or self._on, look.off or self._off

    def _lines(self, look: Look) -> list[Text]:
        width = GAUGE if self._width is None else max(GAUGE_LEAST, min(GAUGE, self._width - INDENT - VERDICT - 7))
        verdict, style = WORDS.get(look.state, ("no", "dim"))
        line = Text(f"{look.end.astimezone():%H:%M:%S} ", style="dim")
        if look.smoothed is not None and look.on is not None:
            gauge = self._signs.gauge(look.smoothed, look.score, look.off, look.on, width)
            line.append(f"{look.smoothed:.2f} ", style="not dim").append(gauge, style="not dim cyan").append(" ")
        line.append(f"{verdict:{VERDICT}}", style=f"not dim {style}")
        if self._width is None or line.cell_len + 1 + cell_len(look.reason) <= self._width:
            return [line.append(f" {look.reason}", style="not dim")]
        # Below, in lines of its own: broken across the edge it would be hard to read.
        below = Text(look.reason, style="dim").wrap(self._screen, max(20, self._width - INDENT))
        return [line, *(Text(" " * INDENT).append_text(each) for each in below)]
