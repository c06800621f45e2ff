"""One publisher and many subscribers: reading, frozen, and coming and going.

`python -m tests.support.crowd` runs it in full. The subscribers run in processes of their own. At the end each one
reports what it received and which gaps it saw; this program, the only publisher, knows what each should have received.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import msgspec

from perceiverd.wire import Gap, Scores, Status, Subscription, Tag
from perceiverd.wire.messages import topic
from perceiverd.wire.publisher import Publisher
from tests.support import messages
from tests.support.messages import LOOPBACK, status

LABELS = tuple(Tag("/m/0bt9lr", number, "A label of usual length", 0.123456) for number in range(10))
DEADLINE_S = 100.0


@dataclass(frozen=True)
class Crowd:
    """How many subscribers of each kind, and what is published."""

    reading: int
    frozen: int
    """Half of them are stopped by SIGSTOP, half only stop reading. All continue at the end."""
    coming: int
    """Subscribers at a time that receive a message, leave and are replaced by new ones."""
    messages: int
    high_water_mark: int
    padding: int = 0
    """Bytes by which a message is larger than usual."""


@dataclass(frozen=True)
class Outcome:
    """What the publisher and the lasting subscribers measured."""

    took_s: float
    deliveries: int
    expected_missed: int
    """For each lasting subscriber: the messages from its first to the last, without those that it received."""
    gaps: int
    """Missed messages according to the subscribers' gaps."""
    reported: int
    """Missed messages according to the publisher."""
    readers_missed: int
    overflows: int
    came: int
    """Subscribers that came and went."""
    slowest_send_s: float
    memory: tuple[tuple[int, float], ...]
    """Resident megabytes of the publisher after a number of messages."""


def scores(padding: int) -> Scores:
    labels = (*LABELS, Tag("", 0, "-" * padding, 0)) if padding else LABELS
    return msgspec.structs.replace(messages.scores(), labels=labels)


def run(crowd: Crowd) -> Outcome:
    """Publish to the crowd as fast as the readers can receive, and compare the counts."""
    with (
        Publisher(LOOPBACK, crowd.high_water_mark) as publisher,
        _member(publisher, "read", crowd.reading) as reading,
        _member(publisher, "freeze", crowd.frozen // 2) as stopped,
        _member(publisher, "freeze", crowd.frozen - crowd.frozen // 2) as idle,
        _member(publisher, "come", crowd.coming) as coming,
    ):
        lasting = (reading, stopped, idle)
        _until(publisher, lambda: len(publisher.registry) >= crowd.reading + crowd.frozen)
        for member in (stopped, idle):
            _command(member, "freeze")
            assert _answer(publisher, member) == "frozen"
        stopped.send_signal(signal.SIGSTOP)
        began_s, slowest_s, memory = time.monotonic(), 0.0, []
        for number in range(crowd.messages):
            sent_s = time.monotonic()
            publisher.send(scores(crowd.padding))
            slowest_s = max(slowest_s, time.monotonic() - sent_s)
            if number % 10 == 0:
                publisher.send(status())
            publisher.handle_subscribers()
            if number % 20 == 19:  # at the readers' pace, so that only the queues of the others fill
                _command(reading, f"at {number}")
                _answer(publisher, reading)
            if number % max(1, crowd.messages // 10) == 0:
                memory.append((number, _resident_mb()))
        took_s = time.monotonic() - began_s
        memory.append((crowd.messages, _resident_mb()))
        stopped.send_signal(signal.SIGCONT)
        for member in (stopped, idle):
            _command(member, "thaw")
        last = publisher.send(scores(0)).seq
        _command(coming, "stop")
        came = int(_answer(publisher, coming))
        for member in lasting:
            _command(member, f"at {last}")
            _answer(publisher, member)
        by_member, each = _accounts(publisher, lasting)
        for _ in range(200):  # the clients report their last losses within a second, or later on a busy machine
            if sum(one["gaps"] for one in each) == publisher.registry.missed:
                break
            time.sleep(0.25)
            by_member, each = _accounts(publisher, lasting)
        for member in lasting:
            _command(member, "leave")
        return Outcome(
            took_s=took_s,
            deliveries=sum(one["received"] for one in each),
            expected_missed=sum(one["lost"] for one in each),
            gaps=sum(one["gaps"] for one in each),
            reported=publisher.registry.missed,
            readers_missed=sum(one["gaps"] for one in by_member[0]),
            overflows=publisher.overflows,
            came=came,
            slowest_send_s=slowest_s,
            memory=tuple(memory),
        )


def _accounts(
    publisher: Publisher, members: Sequence[subprocess.Popen[str]]
) -> tuple[list[list[dict[str, int]]], list[dict[str, int]]]:
    """What the members' subscribers have received so far, by member and all together."""
    by_member: list[list[dict[str, int]]] = []
    for member in members:
        _command(member, "account")
        by_member.append(json.loads(_answer(publisher, member)))
    return by_member, [one for member in by_member for one in member]


def _until(publisher: Publisher, done: Callable[[], bool]) -> None:
    """Publish heartbeats until `done`."""
    end_s = time.monotonic() + DEADLINE_S
    while not done():
        assert time.monotonic() < end_s, f"not done within {DEADLINE_S:g} s"
        publisher.handle_subscribers()
        publisher.send(status())
        time.sleep(0.02)


@contextmanager
def _member(publisher: Publisher, how: str, count: int) -> Iterator[subprocess.Popen[str]]:
    """A process with `count` subscribers."""
    command = [sys.executable, "-m", "tests.support.crowd", how, str(count), publisher.endpoint]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        try:
            yield process
            assert process.stdin
            process.stdin.close()
            process.wait(60)
        finally:
            process.kill()


def _command(process: subprocess.Popen[str], words: str) -> None:
    assert process.stdin
    process.stdin.write(words + "\n")
    process.stdin.flush()


def _answer(publisher: Publisher, process: subprocess.Popen[str]) -> str:
    """The process's next line. Meanwhile the publisher keeps running."""
    assert process.stdout
    os.set_blocking(process.stdout.fileno(), False)
    line, next_s, end_s = "", time.monotonic() + 0.1, time.monotonic() + DEADLINE_S
    while not line.endswith("\n"):
        assert time.monotonic() < end_s, f"no answer within {DEADLINE_S:g} s"
        publisher.handle_subscribers()
        line += process.stdout.readline()
        if not line:
            time.sleep(0.001)
        if time.monotonic() >= next_s:  # as a daemon does: its heartbeat reveals the loss of a last message
            next_s = time.monotonic() + 0.1
            publisher.send(status())
    return line.strip()


def _resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


# The processes with the subscribers.


class Subscriber:
    """One subscriber: what it has received, by topic, and which gaps it saw."""

    def __init__(self, endpoint: str) -> None:
        self.subscription = Subscription(endpoint)
        self.gaps = 0
        self.received: dict[str, set[int]] = {"scores/a/": set(), "status/a/": set()}
        self.first: dict[str, int] = {}
        """From this `seq` on, a message that does not arrive is lost."""
        self.last = -1
        """The last `seq` of the scores that was received or reported as lost."""
        self.settled = True
        """Whether the message after the last gap was received."""

    def poll(self) -> bool:
        """Process one item; False if there is none."""
        match item := self.subscription.receive(0):
            case None:
                return False
            case Gap():
                self.settled = False
                self.gaps += item.missed
                self.last += item.missed if item.topic == "scores/a/" else 0
            case Scores() | Status():
                self.settled = True
                self.received[topic(item)].add(item.seq)
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
        """Counts: scores received, messages missed by the gaps, and messages lost between the first and the last."""
        ends = {"scores/a/": self.last, "status/a/": max(self.received["status/a/"])}
        came = {
            name: [seq for seq in seqs if self.first[name] <= seq <= ends[name]] for name, seqs in self.received.items()
        }
        lost = sum(ends[name] + 1 - self.first[name] - len(seqs) for name, seqs in came.items())
        return {"received": len(self.received["scores/a/"]), "gaps": self.gaps, "lost": lost}


def _commands() -> list[str]:
    """The parent's commands as they come. A thread reads them, because a pipe cannot be polled."""
    commands: list[str] = []

    def read(stream: IO[str]) -> None:
        commands.extend(line.strip() for line in stream)  # one by one, as they come
        commands.append("leave")

    threading.Thread(target=read, args=(sys.stdin,), daemon=True).start()
    return commands


def _stay(subscribers: list[Subscriber]) -> None:
    commands, freezing, frozen, until, asked = _commands(), False, False, -1, False
    while True:
        moved = not frozen and sum(each.poll() for each in subscribers) > 0
        command = commands.pop(0) if commands else ""
        match command.split():
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
        if freezing and all(each.first for each in subscribers):  # only then is it known what each should receive
            freezing, frozen = False, True
            print("frozen", flush=True)
        if until >= 0 and all(each.last >= until for each in subscribers):
            until = -1
            print("there", flush=True)
        if asked and all(each.settled for each in subscribers):
            asked = False
            print(json.dumps([each.account() for each in subscribers]), flush=True)
        if not moved:
            time.sleep(0.005)


def _come_and_go(count: int, endpoint: str) -> None:
    commands, came = _commands(), 0
    while "stop" not in commands:
        subscribers = [Subscriber(endpoint) for _ in range(count)]
        came += count
        end_s = time.monotonic() + 5
        while any(each.last < 0 for each in subscribers) and time.monotonic() < end_s and "stop" not in commands:
            if sum(each.poll() for each in subscribers) == 0:
                time.sleep(0.005)
        for each in subscribers:
            each.subscription.close()
    print(came, flush=True)


def _print(crowd: Crowd, outcome: Outcome) -> None:
    print(f"{crowd.reading} reading, {crowd.frozen} frozen, {crowd.coming} at a time coming and going ({outcome.came})")
    rate = crowd.messages / outcome.took_s
    print(f"{crowd.messages} messages in {outcome.took_s:.1f} s: {rate:.0f}/s, {rate * crowd.reading:.0f} deliveries/s")
    print(f"slowest send {outcome.slowest_send_s * 1000:.1f} ms; queues found full {outcome.overflows} times")
    print(f"missed: {outcome.expected_missed} by what was sent and received, {outcome.gaps} by gaps, ", end="")
    print(f"{outcome.reported} by the publisher; {outcome.readers_missed} of them by readers")
    print("publisher's memory in MB after so many messages:")
    print("  ".join(f"{number}: {megabytes:.0f}" for number, megabytes in outcome.memory))


if __name__ == "__main__":
    if len(sys.argv) == 1:
        full = Crowd(reading=160, frozen=20, coming=20, messages=10_000, high_water_mark=1000)
        _print(full, run(full))
    elif sys.argv[1] == "come":
        _come_and_go(int(sys.argv[2]), sys.argv[3])
    else:
        _stay([Subscriber(sys.argv[3]) for _ in range(int(sys.argv[2]))])
