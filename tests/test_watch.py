"""`perceiverd watch`: as a process, on a terminal and in a pipe, against a real publisher."""

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
import pytest
from rich.console import Console

from perceiverd.errors import WireError
from perceiverd.messages import Hello, Model, Scores, SourceStatus, Status, Tag
from perceiverd.publisher import Publisher
from perceiverd.watch import View, watch

NOW = datetime.now(UTC)
MODEL = Model("tiny", "0" * 64)
HELLO = Hello("9.9", ("door", "gate"), MODEL, 0.5, 1.0, NOW)
SCORES = Scores(
    "door", NOW, NOW, 0, 1, 140, ("audio",), MODEL, (Tag("/m/1", 74, "Dog", 0.88), Tag("/m/2", 75, "[b]Bark", 0.5)), 3
)
SOURCE = SourceStatus("cam", "up", 0.1, {"stalled": 2}, 0)
STATUS = Status("door", NOW, "up", (SOURCE,), 0.1, 8, 3, 0, 0, 1, NOW, MODEL)
DEADLINE_S = 40


def shown(view: View) -> str:
    console = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115 - closed below
    with console.file:
        console.print(view.render(5))
        return console.export_text()


def test_the_table_shows_what_was_heard() -> None:
    """State, restarts, labels with bars, latency and drops of each stream; text from the wire is not markup."""
    view = View("ipc://x")
    for message in (HELLO, SCORES, STATUS, msgspec.structs.replace(STATUS, stream="gate", state="stalled")):
        view.take(message)
    view.missed = 7
    text = shown(view)
    for piece in ("perceiverd 9.9, model tiny at ipc://x, 7 messages missed", "door", "gate", "stalled", "2 restarts"):
        assert piece in text
    for piece in ("███████████  0.88 Dog", "0.50 [b]Bark", "140 ms", "no window yet", "audio"):
        assert piece in text
    assert "nothing heard" not in text


def test_silence_is_told_in_the_table() -> None:
    """A table that no longer moves says why."""
    view = View("ipc://x", heard_s=time.monotonic() - 61)
    assert "nothing heard from ipc://x for 61 s: is perceiverd running?" in shown(view)


def test_a_wrong_endpoint_is_one_line() -> None:
    """The error is the client's."""
    with pytest.raises(WireError, match="cannot connect to door"):
        watch("door")


def start(endpoint: str, stdout: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "perceiverd", "watch", endpoint],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.STDOUT,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "100", "LINES": "30"},
    )


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


def test_a_pipe_gets_a_line_for_each_message_and_silence_is_told() -> None:
    """Without a terminal: plain lines, a state only when it changes; Ctrl-C ends it with status 0."""
    with Publisher("tcp://127.0.0.1:*") as publisher:
        heard, deaf = start(publisher.endpoint, subprocess.PIPE), start("tcp://127.0.0.1:1", subprocess.PIPE)
        assert heard.stdout
        assert deaf.stdout
        publisher.send(HELLO)

        def publish() -> None:
            publisher.attend()
            publisher.send(STATUS)
            publisher.send(SCORES)

        try:
            pieces = [b"perceiverd 9.9, model tiny, streams: door, gate", b"door: Dog 0.88  [b]Bark 0.50", b"door: up"]
            text = read_until(heard.stdout.fileno(), pieces, publish)
            assert text.count(b"door: up") == 1
            silent = b"nothing heard from tcp://127.0.0.1:1 for 5 s: is perceiverd running?\n"
            read_until(deaf.stdout.fileno(), [silent], lambda: None)
            for process in (heard, deaf):
                process.send_signal(signal.SIGINT)
            assert [process.wait(DEADLINE_S) for process in (heard, deaf)] == [0, 0]
        finally:
            for process in (heard, deaf):
                process.kill()
                process.wait()
                assert process.stdout
                process.stdout.close()


def test_a_terminal_gets_a_live_table() -> None:
    """On a terminal the table is drawn; Ctrl-C ends it with status 0."""
    ours, theirs = pty.openpty()
    with Publisher("tcp://127.0.0.1:*") as publisher:
        process = start(publisher.endpoint, theirs)
        os.close(theirs)
        publisher.send(HELLO)

        def publish() -> None:
            publisher.attend()
            publisher.send(SCORES)

        try:
            read_until(ours, [b"perceiverd 9.9", b"Dog", "█".encode(), b"140 ms"], publish)
            process.send_signal(signal.SIGINT)
            assert process.wait(DEADLINE_S) == 0
        finally:
            process.kill()
            process.wait()
            os.close(ours)
