"""`perceiverd watch`: as a process, on a terminal and in a pipe, against a real publisher."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from rich.console import Console

from perceiverd.cli.activity import Activity
from perceiverd.cli.terminal import Glyphs
from perceiverd.cli.watch import Picture, WatchOptions, watch
from perceiverd.core.errors import WireError
from perceiverd.wire import Stale, Subscription
from perceiverd.wire.publisher import Publisher
from tests.cli.test_activity import BEGIN, HELLO, SCORES, STATUS, end, status

DEADLINE_S = 40
LONG = msgspec.structs.replace(SCORES.labels[0], name="Livestock, farm animals, working animals", score=0.7)


def drawn(chronicle: Activity, width: int, height: int = 30, signs: Glyphs = Glyphs()) -> list[str]:  # noqa: B008 - frozen
    """The lines of the picture in a terminal of this size."""
    console = Console(width=width, height=height, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115 - closed below
    with console.file:
        console.print(Picture(chronicle, signs, 5))
        return console.export_text().splitlines()


@pytest.fixture
def chronicle() -> Activity:
    """What there is to see of two streams, one of them with an open event, the other lost."""
    known, now = Activity("ipc://x"), datetime.now(UTC)
    scores = msgspec.structs.replace(SCORES, labels=(*SCORES.labels, LONG))
    lost = msgspec.structs.replace(status("backing off", stalled=2), stream="gate")
    event = msgspec.structs.replace(BEGIN, start=now - timedelta(seconds=75.2))
    for message in (HELLO, status("up"), status("up", dropped=12), scores, event, lost):
        known.take(message, now)
    known.lost("scores/door/", 7, now)
    return known


def test_the_picture_shows_how_all_is(chronicle: Activity) -> None:
    """State, age, latency, drops, labels with bars, open events and what happened; text from the wire is no markup."""
    lines = drawn(chronicle, 100)
    assert lines[0].rstrip() == "perceiverd 9.9  tiny  ipc://x  7 messages missed"
    assert "door  up  dropped 12  data 0.1 s ago  latency 140 ms  audio" in map(str.rstrip, lines)
    assert "gate  backing off (stalled 2x)" in [line.rstrip()[:30] for line in lines]
    (dog,) = [line for line in lines if "0.88" in line]
    assert dog.startswith("  0.88 ████████████▍  Dog  ")
    assert "●   75 s, peak 0.93 Dog" in dog
    assert any("0.50 ███████        [b]Bark" in line for line in lines)
    assert any("missed 7 messages of scores/door/" in line for line in lines)
    assert not any("nothing heard" in line for line in lines)


@pytest.mark.parametrize("width", [60, 40])
def test_a_narrow_terminal_shows_it_too(chronicle: Activity, width: int) -> None:
    """Nothing wraps; events stand above the labels."""
    lines = [line.rstrip() for line in drawn(chronicle, width)]
    assert max(map(len, lines)) <= width
    event, label = (next(i for i, line in enumerate(lines) if piece in line) for piece in ("● ", "0.88"))
    assert event < label
    assert len(lines) == len(drawn(chronicle, 80))


@pytest.mark.parametrize("height", [24, 12, 5, 2])
def test_a_low_terminal_shows_what_it_can(chronicle: Activity, height: int) -> None:
    """It never is higher than the terminal, and shows who speaks and the first stream as long as it can."""
    lines = drawn(chronicle, 80, height)
    assert len(lines) < height
    assert lines[0].startswith("perceiverd 9.9")
    assert height < 12 or any("gate" in line for line in lines)


def test_a_terminal_without_blocks_gets_plain_signs(chronicle: Activity) -> None:
    """Everything is ASCII where the terminal's encoding is."""
    lines = drawn(chronicle, 80, signs=Glyphs.of("ascii"))
    assert all(line.isascii() for line in lines)
    assert any("0.88 ############" in line for line in lines)


def test_silence_is_told_in_the_picture(chronicle: Activity) -> None:
    """A picture that no longer moves says why."""
    now = datetime.now(UTC)
    chronicle.silent(now - timedelta(seconds=61), now, "nothing heard")
    assert "nothing heard for 61 s: is it running?" in drawn(chronicle, 120)[0]


def test_a_wrong_endpoint_is_one_line() -> None:
    """The error is the client's."""
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


def read_until(fd: int, pieces: list[bytes], meanwhile: Callable[[], None]) -> bytes:
    """What comes from the descriptor until all pieces are in it."""
    os.set_blocking(fd, False)
    text, end_s = b"", time.monotonic() + DEADLINE_S
    while not all(piece in text for piece in pieces):
        assert time.monotonic() < end_s, text.decode(errors="replace")
        meanwhile()
        time.sleep(0.05)
        try:
            text += os.read(fd, 65536)
        except BlockingIOError:
            continue
    return text


def publishing(publisher: Publisher) -> Callable[[], None]:
    """Greets who has come, and says how the stream is with every call; an event begins, and ends ten calls later."""
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


def test_a_pipe_gets_a_line_for_each_thing_that_happens() -> None:
    """Without a terminal: who speaks, states, events; no scores, unless they are asked for."""
    with Publisher("tcp://127.0.0.1:*") as publisher:
        publish = publishing(publisher)
        with watching(publisher.endpoint) as happenings, watching(publisher.endpoint, "--scores") as scores:
            assert happenings.stdout
            assert scores.stdout
            hello, up = b"perceiverd 9.9, model tiny, streams: door, gate\n", b" door: up\n"
            ended = b" door: Dog ended after 14 s, peak 0.97\n"
            text = read_until(happenings.stdout.fileno(), [hello, up, ended], publish)
            assert text.count(up) == 1
            assert b"0.88" not in text
            read_until(scores.stdout.fileno(), [hello, b" door: Dog 0.88  [b]Bark 0.50\n", ended], publish)


def test_programs_get_json() -> None:
    """With --json each line is a message as it came, and one of one's own where messages were lost."""
    with Publisher("tcp://127.0.0.1:*") as publisher:
        publish = publishing(publisher)
        with watching(publisher.endpoint, "--json", "--stream", "door") as process:
            assert process.stdout
            text = read_until(process.stdout.fileno(), [b'"kind":"end"'], publish)
            publisher._sent["scores/door/"] += 2  # as if two had been lost on the way
            text += read_until(process.stdout.fileno(), [b'"type":"gap"'], publish)
    told = [json.loads(line) for line in text.splitlines()]  # each is written at once
    assert {each["type"] for each in told} == {"hello", "status", "event", "gap"}
    assert next(each for each in told if each["type"] == "gap")["missed"] == 2
    assert next(each for each in told if each["type"] == "event")["name"] == "Dog"


def test_silence_is_told_in_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nobody speaks, that is said in one line with the address, and in another that somebody does again."""
    items = [Stale(5.2, over=False), Stale(7, over=True), HELLO]
    monkeypatch.setattr(Subscription, "__iter__", lambda _: iter(items))
    for wish in (WatchOptions(), WatchOptions(json=True)):
        assert watch("tcp://127.0.0.1:1", wish) == 0
        told = capsys.readouterr().out.splitlines()
        assert len(told) == 3
        if wish.json:
            assert json.loads(told[0]) == {"type": "silence", "seconds": 5.2, "over": False}
        else:
            assert told[0].endswith(" tcp://127.0.0.1:1: nothing received for 5 s; is perceiverd running?")
            assert " heard again after " in told[1]


@pytest.mark.parametrize(
    ("environment", "pieces", "absent"),
    [
        ({}, ["Dog", "█", "140 ms", "●"], "\x1b[?1049h"),
        ({"NO_COLOR": "1"}, ["Dog", "█"], "\x1b[36m"),
        ({"PYTHONIOENCODING": "ascii"}, ["Dog", "####"], "█"),
    ],
    ids=["colours", "no colours", "ascii"],
)
def test_a_terminal_gets_a_live_picture(environment: dict[str, str], pieces: list[str], absent: str) -> None:
    """On a terminal it is drawn, with as much colour and as many signs as that can show."""
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
