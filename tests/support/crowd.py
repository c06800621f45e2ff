"""One publisher and a crowd: readers, frozen ones, and some that come and go. `python tests/crowd.py` runs it in full.

The crowd's processes are clients like any other. At the end each subscriber tells what it heard and what gaps it was
given; this program, which alone sends, knows what each should have heard.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from perceiverd.wire.client import Gap, Subscription
from perceiverd.wire.messages import Model, Scores, Status, Tag, topic
from perceiverd.wire.publisher import Publisher

NOW = datetime.now(UTC)
MODEL = Model("tiny", "0" * 64)
LABELS = tuple(Tag("/m/0bt9lr", number, "A label of usual length", 0.123456) for number in range(10))
DEADLINE_S = 100.0


@dataclass(frozen=True)
class Crowd:
    """How many of which."""

    reading: int
    frozen: int
    """Half of them stopped by SIGSTOP, half that just don't read; all are woken at the end."""
    coming: int
    """At a time; each hears something, leaves, and another comes."""
    messages: int
    high_water_mark: int
    padding: int = 0
    """Bytes that a message is larger than usual."""


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    took_s: float
    deliveries: int
    expected_missed: int
    """Of those who stayed: what was sent from the first that each heard to the last, without what it heard."""
    gaps: int
    """What they were told by their clients."""
    reported: int
    """What the publisher says at the end."""
    readers_missed: int
    overflows: int
    came: int
    slowest_send_s: float
    memory: tuple[tuple[int, float], ...]
    """Resident megabytes of the publisher after so many messages."""


def scores(padding: int) -> Scores:
    labels = (*LABELS, Tag("", 0, "-" * padding, 0)) if padding else LABELS
    return Scores("a", NOW, NOW, 0, 1, 1, ("audio", "video"), MODEL, labels, 0)


def status() -> Status:
    return Status("a", NOW, "up", (), 0.1, 0, 0, 0, 0, 0, NOW, MODEL)


def run(crowd: Crowd) -> Outcome:
    """Publish to the crowd as fast as the readers can take it, and compare."""
    with (
        Publisher("tcp://127.0.0.1:*", crowd.high_water_mark) as publisher,
        _member(publisher, "read", crowd.reading) as reading,
        _member(publisher, "freeze", crowd.frozen // 2) as stopped,
        _member(publisher, "freeze", crowd.frozen - crowd.frozen // 2) as idle,
        _member(publisher, "come", crowd.coming) as coming,
    ):
        lasting = (reading, stopped, idle)
        _until(publisher, lambda: len(publisher.register) >= crowd.reading + crowd.frozen, tell=True)
        for member in (stopped, idle):
            _say(member, "freeze")
            assert _answer(publisher, member) == "frozen"
        stopped.send_signal(signal.SIGSTOP)
        began_s, slowest_s, memory = time.monotonic(), 0.0, []
        for number in range(crowd.messages):
            sent_s = time.monotonic()
            publisher.send(scores(crowd.padding))
            slowest_s = max(slowest_s, time.monotonic() - sent_s)
            if number % 10 == 0:
                publisher.send(status())
            publisher.attend()
            if number % 20 == 19:  # at the readers' pace: what piles up is what the others don't read
                _say(reading, f"at {number}")
                _answer(publisher, reading)
            if number % max(1, crowd.messages // 10) == 0:
                memory.append((number, _resident_mb()))
        took_s = time.monotonic() - began_s
        memory.append((crowd.messages, _resident_mb()))
        stopped.send_signal(signal.SIGCONT)
        for member in (stopped, idle):
            _say(member, "thaw")
        last = publisher.send(scores(0)).seq
        _say(coming, "stop")
        came = int(_answer(publisher, coming))
        for member in lasting:
            _say(member, f"at {last}")
            _answer(publisher, member)
        told, each = _accounts(publisher, lasting)
        for _ in range(20):  # what the clients say of their last losses comes within a second
            if sum(one["gaps"] for one in each) == publisher.register.missed:
                break
            time.sleep(0.25)
            told, each = _accounts(publisher, lasting)
        for member in lasting:
            _say(member, "leave")
        return Outcome(
            took_s=took_s,
            deliveries=sum(one["heard"] for one in each),
            expected_missed=sum(one["lost"] for one in each),
            gaps=sum(one["gaps"] for one in each),
            reported=publisher.register.missed,
            readers_missed=sum(one["gaps"] for one in told[0]),
            overflows=publisher.overflows,
            came=came,
            slowest_send_s=slowest_s,
            memory=tuple(memory),
        )


def _accounts(
    publisher: Publisher, members: Sequence[subprocess.Popen[str]]
) -> tuple[list[list[dict[str, int]]], list[dict[str, int]]]:
    """What the members' subscribers have heard by now, by member and of all."""
    told: list[list[dict[str, int]]] = []
    for member in members:
        _say(member, "account")
        told.append(json.loads(_answer(publisher, member)))
    return told, [one for member in told for one in member]


def _until(publisher: Publisher, done: object, tell: bool = False) -> None:
    end_s = time.monotonic() + DEADLINE_S
    while not done():  # type: ignore[operator]  # a function without arguments
        assert time.monotonic() < end_s, "not within the time"
        publisher.attend()
        if tell:
            publisher.send(status())
        time.sleep(0.02)


@contextmanager
def _member(publisher: Publisher, how: str, count: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, __file__, how, str(count), publisher.endpoint]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
            assert process.stdin
            process.stdin.close()
            process.wait(30)
        finally:
            process.kill()


def _say(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdin
    process.stdin.write(word + "\n")
    process.stdin.flush()


def _answer(publisher: Publisher, process: subprocess.Popen[str]) -> str:
    """The process's next line; meanwhile the publisher attends to its socket."""
    assert process.stdout
    os.set_blocking(process.stdout.fileno(), False)
    line, next_s, end_s = "", time.monotonic() + 0.1, time.monotonic() + DEADLINE_S
    while not line.endswith("\n"):
        assert time.monotonic() < end_s, "no answer"
        publisher.attend()
        line += process.stdout.readline()
        if not line:
            time.sleep(0.001)
        if time.monotonic() >= next_s:  # as a daemon would, whose heartbeat tells of a loss with nothing after it
            next_s = time.monotonic() + 0.1
            publisher.send(status())
    return line.strip()


def _resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


# What the crowd's processes do.


class Listener:
    """One subscriber: what it has heard, by topic, and what gaps it was told of."""

    def __init__(self, endpoint: str) -> None:
        self.subscription = Subscription(endpoint)
        self.gaps = 0
        self.heard: dict[str, set[int]] = {"scores/a/": set(), "status/a/": set()}
        self.first: dict[str, int] = {}
        """From here on, what does not come is lost."""
        self.last = -1
        """Of the scores, heard or told as lost."""
        self.settled = True
        """Whether what a gap was told of has been heard, too."""

    def listen(self) -> bool:
        """Take one item; False where there is none."""
        match item := self.subscription.hear(0):
            case None:
                return False
            case Gap():
                self.settled = False
                self.gaps += item.missed
                self.last += item.missed if item.topic == "scores/a/" else 0
            case Scores() | Status():
                self.settled = True
                self.heard[topic(item)].add(item.seq)
                if isinstance(item, Scores) or not item.repeated:
                    self.first.setdefault(topic(item), item.seq)
                if isinstance(item, Scores):
                    self.last = item.seq
                elif not item.repeated:
                    sent = item.delivery.sent.get("scores", 0)
                    self.first.setdefault("scores/a/", sent)
                    self.last = max(self.last, sent - 1)
        return True

    def account(self) -> dict[str, int]:
        """What came, what gaps were told, and what was lost: all between the first and the last, but what came."""
        ends = {"scores/a/": self.last, "status/a/": max(self.heard["status/a/"])}
        came = {
            name: [seq for seq in seqs if self.first[name] <= seq <= ends[name]] for name, seqs in self.heard.items()
        }
        lost = sum(ends[name] + 1 - self.first[name] - len(seqs) for name, seqs in came.items())
        return {"heard": len(self.heard["scores/a/"]), "gaps": self.gaps, "lost": lost}


def _words() -> list[str]:
    """What the parent says, as it comes; a thread reads it, because a pipe can't be asked."""
    words: list[str] = []

    def read(stream: IO[str]) -> None:
        words.extend(line.strip() for line in stream)  # one by one, as they come
        words.append("leave")

    threading.Thread(target=read, args=(sys.stdin,), daemon=True).start()
    return words


def _stay(listeners: list[Listener]) -> None:
    words, freezing, frozen, until, asked = _words(), False, False, -1, False
    while True:
        moved = not frozen and sum(each.listen() for each in listeners) > 0
        word = words.pop(0) if words else ""
        match word.split():
            case ["freeze"]:
                freezing = True
            case ["thaw"]:
                frozen = False
            case ["at", last]:
                until = int(last)
            case ["account"]:
                asked = True
            case ["leave"]:
                return
            case _:
                pass
        if freezing and all(each.first for each in listeners):  # only from then on is it known what each should hear
            freezing, frozen = False, True
            print("frozen", flush=True)
        if until >= 0 and all(each.last >= until for each in listeners):
            until = -1
            print("there", flush=True)
        if asked and all(each.settled for each in listeners):
            asked = False
            print(json.dumps([each.account() for each in listeners]), flush=True)
        if not moved:
            time.sleep(0.005)


def _come_and_go(count: int, endpoint: str) -> None:
    words, came = _words(), 0
    while "stop" not in words:
        listeners = [Listener(endpoint) for _ in range(count)]
        came += count
        end_s = time.monotonic() + 5
        while any(each.last < 0 for each in listeners) and time.monotonic() < end_s and "stop" not in words:
            if sum(each.listen() for each in listeners) == 0:
                time.sleep(0.005)
        for each in listeners:
            each.subscription.close()
    print(came, flush=True)


def _report(crowd: Crowd, outcome: Outcome) -> None:
    print(f"{crowd.reading} reading, {crowd.frozen} frozen, {crowd.coming} at a time coming and going ({outcome.came})")
    rate = crowd.messages / outcome.took_s
    print(f"{crowd.messages} messages in {outcome.took_s:.1f} s: {rate:.0f}/s, {rate * crowd.reading:.0f} deliveries/s")
    print(f"slowest send {outcome.slowest_send_s * 1000:.1f} ms; queues found full {outcome.overflows} times")
    print(f"missed: {outcome.expected_missed} by what was sent and heard, {outcome.gaps} by gaps, ", end="")
    print(f"{outcome.reported} by the publisher; {outcome.readers_missed} of them by readers")
    print("publisher's memory in MB after so many messages:")
    print("  ".join(f"{number}: {megabytes:.0f}" for number, megabytes in outcome.memory))


if __name__ == "__main__":
    if len(sys.argv) == 1:
        full = Crowd(reading=160, frozen=20, coming=20, messages=10_000, high_water_mark=1000)
        _report(full, run(full))
    elif sys.argv[1] == "come":
        _come_and_go(int(sys.argv[2]), sys.argv[3])
    else:
        _stay([Listener(sys.argv[3]) for _ in range(int(sys.argv[2]))])
