"""`perceiverd teach`: marks a sound in a live stream, with its label, as examples for `train fit --corrections`.

The daemon keeps the recent sound on its own machine; this program only marks times and copies the sound of them.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from perceiverd.cli.holding import HeldKey
from perceiverd.cli.terminal import Glyphs
from perceiverd.cli.times import parse_time
from perceiverd.core.errors import ConfigError, PerceiverdError, did_you_mean
from perceiverd.core.labels import Label, ontology
from perceiverd.corrections import Correction, Corrections
from perceiverd.corrections.sound import AWAITED_S, is_awaited
from perceiverd.evaluation.label_lookup import LabelLookup
from perceiverd.history.settings import LOCAL
from perceiverd.sources.snapshots import recent
from perceiverd.wire import Curve, Hello, Status, Subscription, messages, subscribe
from perceiverd.wire.client import nothing_received

ANSWER_S = 10.0
"""How long the daemon may take until its first status."""
KEY_S = 0.1
"""How often the level is shown, and a key looked for."""
QUIET_DBFS = -60.0
"""An example below this is hardly to be heard."""
LONGEST_S = 60.0
LEVEL_CELLS, LOWEST_DBFS = 30, -80.0
MARK, UNDO, QUIT = " ", "u", "q"


@dataclass(frozen=True, slots=True)
class Teaching:
    """What the operator wants to teach."""

    stream: str
    label: str
    folder: Path
    """Of the corrections."""
    times: int
    """How many examples are wanted."""
    begins: Sequence[str]
    """Times of examples, instead of a key."""
    ends: Sequence[str]


def default_folder() -> Path:
    """The folder of this user's corrections."""
    try:
        data = Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser()
    except RuntimeError as error:
        raise ConfigError("no home folder for corrections; give --corrections DIR") from error
    return data / "perceiverd" / "corrections"


def teach(endpoint: str, teaching: Teaching, curve: Curve | None = None) -> int:
    """Mark examples and fetch their sound; returns 0 if each example has sound, otherwise 1. Raises PerceiverdError."""
    label, spans = label_of(teaching.label), spans_of(teaching, datetime.now().astimezone())
    if not spans and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError("this is no terminal, so no key can be held; give --from TIME --to TIME for each example")
    topics = (messages.HELLO, messages.status_topic(teaching.stream))
    with subscribe(endpoint, topics, curve=curve) as subscription:
        folder = folder_of(teaching.stream, first_status(subscription, endpoint, teaching.stream))
        corrections = Corrections(teaching.folder, {LOCAL: folder})
        print(f"Teaching '{label.name}' ({label.mid}) from stream {teaching.stream}; examples go to {teaching.folder}")
        if not spans:
            spans = Keyboard(subscription, teaching.times).marks()
    made = [
        corrections.add("example", LOCAL, teaching.stream, label.mid, label.name, start, end) for start, end in spans
    ]
    if not made:
        print("No example was marked.")
        return 1
    return reported(corrections, fetched(corrections, {each.id for each in made}), teaching)


def label_of(text: str) -> Label:
    """The label of AudioSet, or a new one of the operator's own. Raises ConfigError for a spelling mistake."""
    lookup = LabelLookup(ontology().labels)
    try:
        mid = lookup.mid_of(text, may_add=True)
    except ValueError as error:
        raise ConfigError(f"--label: {error}") from error
    return next(each for each in (*lookup.new, *ontology().labels) if each.mid == mid)


def spans_of(teaching: Teaching, now: datetime) -> list[tuple[datetime, datetime]]:
    """The times of --from and --to. Raises ConfigError."""
    if len(teaching.begins) != len(teaching.ends):
        raise ConfigError(f"--from is given {len(teaching.begins)} times, --to {len(teaching.ends)} times; give pairs")
    found = []
    for begin, end in zip(teaching.begins, teaching.ends, strict=True):
        start, stop = parse_time(begin, "--from", now), parse_time(end, "--to", now)
        if not timedelta(0) < stop - start <= timedelta(seconds=LONGEST_S):
            raise ConfigError(f"--to {end}: must be after --from {begin}, by at most {LONGEST_S:g} s")
        if stop > now:
            raise ConfigError(f"--to {end}: is in the future; mark sounds that were heard")
        found.append((start, stop))
    return found


def first_status(subscription: Subscription, endpoint: str, stream: str) -> Status:
    """The stream's status. Raises PerceiverdError if the daemon is silent, or does not have the stream."""
    deadline_s = time.monotonic() + ANSWER_S
    while (left_s := deadline_s - time.monotonic()) > 0:
        match subscription.receive_message(left_s):
            case Hello() as hello if stream not in (*hello.streams, *hello.disabled):
                raise PerceiverdError(f"unknown stream {stream!r}; {did_you_mean(stream, hello.streams)}")
            case Status() as status:
                return status
    raise PerceiverdError(nothing_received(endpoint, ANSWER_S))


def folder_of(stream: str, status: Status) -> Path:
    """The folder of recent sound. Raises PerceiverdError with what is missing."""
    if status.recent_sound is None:
        raise PerceiverdError(
            f"the daemon keeps no recent sound of {stream}; set recent_hours = 1.0 under [snapshots] in its "
            "configuration, then reload it (systemctl reload perceiverd)"
        )
    folder = Path(status.recent_sound)
    try:
        recent.segments(folder, stream)
        if not folder.is_dir():
            raise FileNotFoundError(folder)
    except PermissionError as error:
        raise PerceiverdError(
            f"{folder}: this user may not read the recent sound; run this as the daemon's user or as root"
        ) from error
    except OSError as error:
        raise PerceiverdError(f"{folder}: is not here; run this on the machine of the daemon") from error
    return folder


class Keyboard:
    """Marks by a key that is held while the sound lasts."""

    def __init__(self, subscription: Subscription, times: int) -> None:
        self._subscription, self._times = subscription, times
        self._key, self._level_dbfs = HeldKey(), None  # type: HeldKey, float | None
        self._glyphs = Glyphs.of(sys.stdout.encoding)

    def marks(self) -> list[tuple[datetime, datetime]]:
        """The marked times in UTC, once there are enough or the operator quits."""
        print(f"Hold the space bar while it sounds, {self._times} times. u: undo the last one. q: stop.")
        found: list[tuple[datetime, datetime]] = []
        with _keys() as descriptor:
            while len(found) < self._times:
                key = _read(descriptor)
                if key == QUIT:
                    break
                if key == UNDO and found:
                    found.pop()
                    self._say(f"{len(found)} of {self._times}: the last one is gone")
                if key == MARK:
                    self._key.press(time.time())
                if (mark := self._key.released(time.time())) is not None:
                    found.append((_utc(mark.start_s), _utc(min(mark.end_s, mark.start_s + LONGEST_S))))
                    self._say(f"{len(found)} of {self._times}: {mark.end_s - mark.start_s:.1f} s")
                self._show(len(found))
        print("\r\x1b[K", end="")
        return found

    def _show(self, count: int) -> None:
        """One line that is drawn again: the level, and whether the key is held."""
        while (item := self._subscription.receive_message(0)) is not None:
            if isinstance(item, Status):
                self._level_dbfs = item.level_dbfs
        share = 0.0 if self._level_dbfs is None else 1 - self._level_dbfs / LOWEST_DBFS
        level = "no sound" if self._level_dbfs is None else f"{self._level_dbfs:.0f} dBFS"
        state = "MARKING" if self._key.is_held else f"{count} of {self._times}"
        print(f"\r\x1b[K{self._glyphs.bar(share, LEVEL_CELLS)} {level:>9}  {state}", end="", flush=True)

    def _say(self, text: str) -> None:
        print(f"\r\x1b[K{text}", flush=True)


@contextlib.contextmanager
def _keys() -> Iterator[int]:
    """Standard input, key by key and without echo; afterwards as before."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield descriptor
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _read(descriptor: int) -> str:
    """The next key; empty if none comes within KEY_S. The end of the input counts as QUIT."""
    if not select.select([descriptor], [], [], KEY_S)[0]:
        return ""
    return os.read(descriptor, 1).decode("ascii", "replace") or QUIT


def _utc(time_s: float) -> datetime:
    return datetime.fromtimestamp(time_s, UTC)


def fetched(corrections: Corrections, wanted: set[str]) -> list[Correction]:
    """The examples, once the daemon has written their sound, or it is clear that it will not."""
    deadline_s, told = time.monotonic() + AWAITED_S + 5, False
    while True:
        found = [each for each in corrections.every() if each.id in wanted]
        if not any(is_awaited(each) for each in found) or time.monotonic() > deadline_s:
            return found
        if not told:
            print("Waiting until the daemon has written the sound; this takes up to half a minute ...", flush=True)
            told = True
        time.sleep(1)


def reported(corrections: Corrections, examples: Sequence[Correction], teaching: Teaching) -> int:
    """Print what was kept and what is missing; the exit status."""
    good = 0
    for number, each in enumerate(examples, 1):
        path = corrections.path(each)
        if path is None:
            print(f"{number}: no sound: {each.why}")
            continue
        samples, rate_hz = recent.read(path)
        level = 10 * np.log10(max(1e-12, float(np.square(samples).mean())))
        clipped = float((np.abs(samples) > 0.999).mean())
        notes = [
            *(["very quiet: move the microphone closer"] if level < QUIET_DBFS else []),
            *(["distorted: lower the microphone's gain"] if clipped > 0.001 else []),
        ]
        print(f"{number}: {len(samples) / rate_hz:.1f} s at {level:.0f} dBFS{'; ' if notes else ''}{'; '.join(notes)}")
        good += 1
    total = sum(
        each.sound is not None and each.verdict != "wrong" and each.mid == examples[0].mid
        for each in corrections.every()
    )
    print(f"There are {total} examples of '{examples[0].name}' now.")
    if total < teaching.times:
        print(f"Teach {teaching.times - total} more; five or more, at different times of the day, work best.")
    print(f"Then: perceiverd train fit --corrections {teaching.folder} --out my-model")
    return 0 if good == len(examples) else 1
