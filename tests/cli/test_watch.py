"""`perceiverd watch` as a process, on a terminal and in a pipe, with a real publisher."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from rich.console import Console

from perceiverd.cli.activity import Activity
from perceiverd.cli.terminal import Glyphs
from perceiverd.cli.watch import LiveView, WatchOptions, watch
from perceiverd.core.errors import WireError
from perceiverd.wire import Stale, Subscription
from perceiverd.wire.publisher import Publisher
from tests.support.program import DEADLINE_S, read_until
from tests.support.watched import BEGIN, HELLO, SCORES, STATUS, end, status

LONG = msgspec.structs.replace(SCORES.labels[0], name="Livestock, farm animals, working animals", score=0.7)


def drawn(activity: Activity, width: int, height: int = 30, glyphs: Glyphs = Glyphs()) -> list[str]:  # noqa: B008 - frozen
    """The lines that are drawn in a terminal of this size."""
    console = Console(width=width, height=height, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115 - closed below
    with console.file:
        console.print(LiveView(activity, glyphs, 5))
        return console.export_text().splitlines()


@pytest.fixture
def activity() -> Activity:
    """Two streams: one with an open event, and one that is lost."""
    known, now = Activity("ipc://x"), datetime.now(UTC)
    scores = msgspec.structs.replace(SCORES, labels=(*SCORES.labels, LONG))
    lost = msgspec.structs.replace(status("backing off", stalled=2), stream="gate")
    event = msgspec.structs.replace(BEGIN, start=now - timedelta(seconds=75.2))
    for message in (HELLO, status("up"), status("up", dropped=12), scores, event, lost):
        known.update(message, now)
    known.missed_messages("scores/door/", 7, now)
    return known


def test_the_view_shows_all_streams(activity: Activity) -> None:
    """It shows state, age, latency, drops, labels, events and recent activity; text from the wire is not markup."""
    lines = drawn(activity, 100)
    assert lines[0].rstrip() == "perceiverd 9.9  tiny  ipc://x  7 messages missed"
    assert "door  up  dropped 12  data 0.1 s ago  latency 140 ms  audio" in map(str.rstrip, lines)
    assert "gate  backing off (stalled 2x)" in [line.rstrip()[:30] for line in lines]
    (dog,) = [line for line in lines if "0.88" in line]
    assert dog.startswith("  0.88 ████████████▍  Dog  ")
    assert "●   75 s, peak 0.93 Dog" in dog
    assert any("0.50 ███████        [b]Bark" in line for line in lines)
    assert any("missed 7 messages of scores/door/" in line for line in lines)
    assert not any("no message" in line for line in lines)


def test_what_a_window_lacks_is_shown(activity: Activity) -> None:
    """Behind the modalities of the last window are the reason for a missing one, and what was filled."""
    lacking = msgspec.structs.replace(SCORES, filled_ms={"audio": 42.7}, missing={"video": "hole"})
    activity.update(lacking, datetime.now(UTC))
    assert any(
        line.rstrip().endswith("audio  (no video: hole, 43 ms of audio filled)") for line in drawn(activity, 120)
    )


@pytest.mark.parametrize("width", [60, 40])
def test_a_narrow_terminal_shows_all_too(activity: Activity, width: int) -> None:
    """No line wraps; events are above the labels."""
    lines = [line.rstrip() for line in drawn(activity, width)]
    assert max(map(len, lines)) <= width
    event, label = (next(i for i, line in enumerate(lines) if piece in line) for piece in ("● ", "0.88"))
    assert event < label
    assert len(lines) == len(drawn(activity, 80))


@pytest.mark.parametrize("height", [24, 12, 5, 2])
def test_a_low_terminal_shows_what_it_can(activity: Activity, height: int) -> None:
    """The view is never higher than the terminal; the daemon and the first stream come first."""
    lines = drawn(activity, 80, height)
    assert len(lines) < height
    assert lines[0].startswith("perceiverd 9.9")
    assert height < 12 or any("gate" in line for line in lines)


def test_an_ascii_terminal_gets_ascii(activity: Activity) -> None:
    """All characters are ASCII if the terminal's encoding is."""
    lines = drawn(activity, 80, glyphs=Glyphs.of("ascii"))
    assert all(line.isascii() for line in lines)
    assert any("0.88 ############" in line for line in lines)


def test_silence_is_shown(activity: Activity) -> None:
    """If no message comes, the first line shows for how long."""
    now = datetime.now(UTC)
    activity.silence_began(now - timedelta(seconds=61), now, "nothing received")
    assert "no message for 61 s: is it running?" in drawn(activity, 120)[0]


def test_a_wrong_endpoint_is_one_line() -> None:
    """An invalid endpoint is an error of the client, in one line."""
    with pytest.raises(WireError, match="cannot connect to door"):
        watch("door")


@contextmanager
def watching(*arguments: str, stdout: int = subprocess.PIPE, **environment: str) -> Iterator["subprocess.Popen[bytes]"]:
    """`perceiverd watch` as a process; Ctrl-C ends it with status 0."""
    process = subprocess.Popen(
        [sys.executable, "-m", "perceiverd", "watch", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.STDOUT,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "100", "LINES": "30"} | environment,
    )
    try:
        yield process
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_S) == 0
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def publishing(publisher: Publisher) -> Callable[[], None]:
    """A function that publishes a status and scores with every call; an event begins, and ends ten calls later."""
    publisher.send(HELLO)
    calls = 0

    def publish() -> None:
        nonlocal calls
        publisher.handle_subscribers()
        publisher.send(STATUS)
        publisher.send(SCORES)
        if calls % 20 == 0:
            publisher.send(BEGIN)
        elif calls % 20 == 10:
            publisher.send(end("faded"))
        calls += 1

    return publish


def test_a_pipe_gets_a_line_for_each_change() -> None:
    """Without a terminal the daemon, states and events are lines; scores only with `--scores`."""
    with Publisher("tcp://127.0.0.1:*") as publisher:
        publish = publishing(publisher)
        with watching(publisher.endpoint) as changes, watching(publisher.endpoint, "--scores") as scores:
            assert changes.stdout
            assert scores.stdout
            hello, up = b"perceiverd 9.9, model tiny, streams: door, gate\n", b" door: up\n"
            ended = b" door: Dog ended after 14 s, peak 0.97\n"
            text = read_until(changes.stdout.fileno(), [hello, up, ended], publish)
            assert text.count(up) == 1
            assert b"0.88" not in text
            read_until(scores.stdout.fileno(), [hello, b" door: Dog 0.88  [b]Bark 0.50\n", ended], publish)


def test_programs_get_json() -> None:
    """With `--json` each line is a message as published, or a gap if messages were lost."""
    with Publisher("tcp://127.0.0.1:*") as publisher:
        publish = publishing(publisher)
        with watching(publisher.endpoint, "--json", "--stream", "door") as process:
            assert process.stdout
            text = read_until(process.stdout.fileno(), [b'"kind":"end"'], publish)
            publisher._sent["scores/door/"] += 2  # as if two messages were lost
            text += read_until(process.stdout.fileno(), [b'"type":"gap"'], publish)
    items = [json.loads(line) for line in text.splitlines()]  # each is written at once
    assert {each["type"] for each in items} == {"hello", "status", "event", "gap"}
    assert next(each for each in items if each["type"] == "gap")["missed"] == 2
    assert next(each for each in items if each["type"] == "event")["name"] == "Dog"


def test_silence_is_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """If no message comes, a line names the endpoint; another line follows when messages arrive again."""
    items = [Stale(5.2, over=False), Stale(7, over=True), HELLO]
    monkeypatch.setattr(Subscription, "__iter__", lambda _: iter(items))
    for options in (WatchOptions(), WatchOptions(json=True)):
        assert watch("tcp://127.0.0.1:1", options) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 3
        if options.json:
            assert json.loads(lines[0]) == {"type": "silence", "seconds": 5.2, "over": False}
        else:
            assert lines[0].endswith(" tcp://127.0.0.1:1: nothing received for 5 s; is perceiverd running?")
            assert " messages arrive again after " in lines[1]


@pytest.mark.parametrize(
    ("environment", "pieces", "absent"),
    [
        ({}, ["Dog", "█", "140 ms", "●"], "\x1b[?1049h"),
        ({"NO_COLOR": "1"}, ["Dog", "█"], "\x1b[36m"),
        ({"PYTHONIOENCODING": "ascii"}, ["Dog", "####"], "█"),
    ],
    ids=["colours", "no colours", "ascii"],
)
def test_a_terminal_is_redrawn(environment: dict[str, str], pieces: list[str], absent: str) -> None:
    """On a terminal the view is redrawn, with the colours and characters that the terminal can show."""
    ours, theirs = pty.openpty()
    with Publisher("tcp://127.0.0.1:*") as publisher:
        publish = publishing(publisher)
        try:
            with watching(publisher.endpoint, stdout=theirs, **environment):
                os.close(theirs)
                text = read_until(ours, [b"perceiverd 9.9", *map(str.encode, pieces)], publish)
        finally:
            os.close(ours)
    assert absent not in text.decode()
