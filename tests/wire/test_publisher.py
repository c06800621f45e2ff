"""The publisher, on real sockets: numbering, late subscribers, frozen ones, and places that are taken."""

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import zmq

from perceiverd.core.errors import WireError
from perceiverd.wire import messages
from perceiverd.wire.client import Subscription
from perceiverd.wire.loss_reports import LossReport
from perceiverd.wire.messages import Delivery, Event, Hello, Scores, Status
from perceiverd.wire.publisher import Publisher
from tests.support.messages import DEADLINE_S, LOOPBACK, event, hello, scores, status, subscribed, until


def test_seq_counts_each_topic_without_a_gap() -> None:
    """Every topic has numbers of its own, from 0, under one boot_id."""
    with Publisher(LOOPBACK) as publisher, subscribed(publisher) as subscription:
        for stream in ("a", "b", "a", "a"):
            publisher.send(scores(stream))
        heard = [subscription.receive(DEADLINE_S) for _ in range(4)]
    assert [(m.stream, m.seq) for m in heard if isinstance(m, Scores)] == [("a", 0), ("b", 0), ("a", 1), ("a", 2)]
    assert {m.boot_id for m in heard if m} == {publisher.boot_id}
    assert subscription.missed == 0


def test_a_plain_zmq_subscriber_reads_two_parts() -> None:
    """Nothing but pyzmq is needed; two subscribers read the same."""
    with Publisher(LOOPBACK) as publisher, zmq.Context() as context:
        readers = [context.socket(zmq.SUB) for _ in range(2)]
        for reader in readers:
            reader.connect(publisher.endpoint)
            reader.subscribe(b"scores/a/")
        until(publisher, lambda: publisher.subscriptions == 2)
        publisher.send(scores("ab"))
        publisher.send(scores("a"))
        first, second = (reader.recv_multipart() for reader in readers if reader.poll(DEADLINE_S * 1000))
        assert first == second
        assert first[0] == b"scores/a/"
        for reader in readers:
            reader.close(linger=0)


def test_a_late_subscriber_hears_the_last_hello_and_the_others_not_twice() -> None:
    """What was said before is repeated to who comes late; who has heard it already is told nothing new."""
    with Publisher(LOOPBACK) as publisher, subscribed(publisher) as early:
        publisher.send(hello())
        assert isinstance(early.receive(DEADLINE_S), Hello)
        with Subscription(publisher.endpoint, (messages.HELLO,)) as late:
            until(publisher, lambda: publisher.subscriptions == 3)  # to greetings and heartbeats
            repeated = late.receive(DEADLINE_S)
            assert isinstance(repeated, Hello)
            assert repeated.repeated
        publisher.send(scores())
        assert isinstance(early.receive(DEADLINE_S), Scores)


def test_scores_are_not_repeated() -> None:
    """An old window is no news for a late subscriber."""
    with Publisher(LOOPBACK) as publisher:
        publisher.send(scores())
        with subscribed(publisher) as late:
            publisher.send(scores())
            message = late.receive(DEADLINE_S)
            assert message
            assert message.seq == 1


def test_a_late_subscriber_is_told_what_is_open_now() -> None:
    """Of each event that goes on it hears the latest message; of one that has ended, and of other streams, nothing."""
    with Publisher(LOOPBACK) as publisher:
        said = (
            hello(),
            event("begin", 1),
            event("begin", 2),
            event("update", 1),
            event("begin", 3),
            event("end", 2),
            event("begin", 1, "b"),
            status(),
            scores(),
        )
        for message in said:
            publisher.send(message)
        with subscribed(publisher, "events/a/", "status/a/", "hello/") as late:
            until(publisher, lambda: publisher.subscriptions == 3)
            heard = [late.receive(DEADLINE_S) for _ in range(4)]
            assert {(m.kind, m.id, m.seq) for m in heard if isinstance(m, Event)} == {
                ("update", "1", 2),
                ("begin", "3", 3),
            }
            assert {type(m) for m in heard} == {Hello, Event, Status}
            assert all(m.repeated for m in heard if isinstance(m, Hello | Event | Status))
            publisher.send(event("end", 3))
            ended = late.receive(DEADLINE_S)
            assert isinstance(ended, Event)
            assert (ended.seq, ended.repeated, late.missed) == (5, False, 0)


def test_a_status_tells_how_the_wire_fares() -> None:
    """Its delivery says how far its stream's topics are, who is there, and what was missed."""
    with Publisher(LOOPBACK) as publisher, zmq.Context() as context, context.socket(zmq.SUB) as reader:
        reader.connect(publisher.endpoint)
        for report in (LossReport(publisher.boot_id, "kitchen", 7), LossReport("0" * 32, "kitchen", 900)):
            reader.subscribe(report.subscription)
        until(publisher, lambda: len(publisher.register) > 0)
        publisher.send(scores("ab"))
        for _ in range(3):
            publisher.send(scores())
        publisher.send(status())
        told = publisher.send(status())
        assert isinstance(told, Status)
        assert told.delivery == Delivery(
            subscribers=1, missed=7, losing={"kitchen": 7}, overflows=0, sent={"scores": 3, "status": 1}
        )
        reader.close(linger=0)
        until(publisher, lambda: len(publisher.register) == 0)
        assert publisher.register.missed == 7


def test_what_is_asked_for_is_heard() -> None:
    """A topic is heard by who asks for its kind, not by who takes everything."""
    with Publisher(LOOPBACK) as publisher, subscribed(publisher):
        assert not publisher.heard("explain/a/")
        with subscribed(publisher, "explain/a/") as asking:
            until(publisher, lambda: publisher.heard("explain/a/"))
            assert not publisher.heard("explain/ab/")
            asking.close()
            until(publisher, lambda: not publisher.heard("explain/a/"))


def test_subscriptions_are_counted() -> None:
    """Coming, coming again, leaving and vanishing all show; the client asks for greetings and heartbeats too."""
    with Publisher(LOOPBACK) as publisher:
        first, second = subscribed(publisher, "scores/a/", "scores/b/"), subscribed(publisher, "scores/a/")
        until(publisher, lambda: publisher.subscriptions == 5 + 3)
        first.close()
        until(publisher, lambda: publisher.subscriptions == 3)
        second.close()
        until(publisher, lambda: publisher.subscriptions == 0)


def test_garbage_is_ignored() -> None:
    """Bytes that are no ZMTP, messages that are no subscription, and huge ones leave the service untouched."""
    with Publisher(LOOPBACK) as publisher, subscribed(publisher) as subscription, zmq.Context() as context:
        port = int(publisher.endpoint.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as raw:
            raw.sendall(os.urandom(4096))
        rogue = context.socket(zmq.XSUB)
        rogue.connect(publisher.endpoint)
        for parts in ([b""], [b"\x02x"], [b"\x00never"], [b"\x01a", b"b"], [b"\x01" + b"x" * 100_000], [b"\xff" * 50]):
            rogue.send_multipart(parts)
        rogue.send(b"\x01here")
        until(publisher, lambda: publisher.subscriptions >= 2 or not rogue.poll(1000, zmq.POLLIN))
        for _ in range(20):
            publisher.attend()
        publisher.send(scores())
        assert isinstance(subscription.receive(DEADLINE_S), Scores)
        rogue.close(linger=0)


FROZEN = """
import sys, zmq
reader = zmq.Context().socket(zmq.SUB)
reader.connect(sys.argv[1])
reader.subscribe(b"")
reader.recv()
print("reading", flush=True)
while True: reader.recv()
"""


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_frozen_subscriber_harms_nobody() -> None:
    """One stopped process costs no other subscriber a message, and the publisher a bounded amount of memory."""
    count, size = 4000, 20_000  # 80 MB in all
    with Publisher(LOOPBACK, high_water_mark=100) as publisher, subscribed(publisher) as reader:
        frozen = subprocess.Popen([sys.executable, "-c", FROZEN, publisher.endpoint], stdout=subprocess.PIPE, text=True)
        assert frozen.stdout
        try:
            until(publisher, lambda: publisher.subscriptions == 2)
            publisher.send(scores())
            assert frozen.stdout.readline() == "reading\n"
            frozen.send_signal(signal.SIGSTOP)
            before = resident_bytes()
            slowest_s = 0.0
            for _ in range(count):
                began_s = time.monotonic()
                publisher.send(scores(padding=size))
                slowest_s = max(slowest_s, time.monotonic() - began_s)
                publisher.attend()
                assert reader.receive(DEADLINE_S)  # at the reader's pace: only the other's messages pile up
            grown = resident_bytes() - before
        finally:
            frozen.kill()
            frozen.wait()
            frozen.stdout.close()
    assert reader.missed == 0
    assert publisher.overflows == 1
    assert grown < 40e6, f"{grown / 1e6:.0f} MB"
    assert slowest_s < 5  # a send that blocked would not have ended before the frozen one was killed


def test_who_reads_loses_nothing_beside_a_frozen_one() -> None:
    """At the pace of a daemon, a reader gets every message although another has stopped reading."""
    with (
        Publisher(LOOPBACK, high_water_mark=10) as publisher,
        subscribed(publisher) as reader,
        subscribed(publisher),  # never read from
    ):
        for number in range(300):
            publisher.send(scores(padding=200_000))
            message = reader.receive(DEADLINE_S)
            assert message
            assert message.seq == number


def test_an_ipc_socket_is_for_the_group_at_most(tmp_path: Path) -> None:
    """Others may not connect, and the umask of the process is put back."""
    before = os.umask(0o022)
    try:
        with Publisher(f"ipc://{tmp_path}/labels"):
            assert stat.S_IMODE((tmp_path / "labels").stat().st_mode) == 0o660
            assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


def test_the_socket_goes_with_the_publisher_and_only_its_own(tmp_path: Path) -> None:
    """No file is left behind; one that another daemon has put there in the meantime stays."""
    endpoint, path = f"ipc://{tmp_path}/labels", tmp_path / "labels"
    with Publisher(endpoint):
        assert path.is_socket()
    assert not path.exists()
    with Publisher(endpoint):
        path.unlink()
        path.touch()
    assert path.exists()


def test_a_socket_left_behind_is_replaced(tmp_path: Path) -> None:
    """After a SIGKILL the next daemon starts."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "labels"))
    with Publisher(f"ipc://{tmp_path}/labels") as publisher, subscribed(publisher) as subscription:
        publisher.send(scores())
        assert subscription.receive(DEADLINE_S)


def test_the_socket_of_a_daemon_at_work_is_left_alone(tmp_path: Path) -> None:
    """A second daemon on the same ipc path is refused, and the first goes on."""
    endpoint = f"ipc://{tmp_path}/labels"
    with Publisher(endpoint) as publisher:
        with pytest.raises(WireError, match="another program is bound"):
            Publisher(endpoint)
        with subscribed(publisher) as subscription:
            publisher.send(scores())
            assert subscription.receive(DEADLINE_S)


def test_a_file_in_the_place_is_left_alone(tmp_path: Path) -> None:
    """ZeroMQ would delete it."""
    (tmp_path / "labels").write_text("mine")
    with pytest.raises(WireError, match="a file that is no socket"):
        Publisher(f"ipc://{tmp_path}/labels")
    assert (tmp_path / "labels").read_text() == "mine"


def test_a_tcp_port_that_is_taken_is_one_line() -> None:
    """The endpoint and the reason stand in the error."""
    with Publisher(LOOPBACK) as publisher, pytest.raises(WireError, match=r"127\.0\.0\.1:\d+: another program"):
        Publisher(publisher.endpoint)


@pytest.mark.parametrize(
    ("endpoint", "why"),
    [
        ("ipc:///nowhere/labels", "its folder is missing"),
        ("ipc:///proc/labels", "cannot publish at ipc:///proc/labels: "),
        ("ipc:///tmp/" + "x" * 200, "107 bytes"),
        ("smoke://signal", "cannot publish at"),
    ],
)
def test_what_cannot_be_bound_is_one_line(endpoint: str, why: str) -> None:
    """A wrong endpoint is a WireError, not a traceback."""
    with pytest.raises(WireError, match=why):
        Publisher(endpoint)


def test_abstract_sockets_work() -> None:
    """ipc://@name leaves no file."""
    with Publisher(f"ipc://@perceiverd-test-{os.getpid()}") as publisher, subscribed(publisher) as subscription:
        publisher.send(scores())
        assert subscription.receive(DEADLINE_S)


def test_closing_is_bounded(tmp_path: Path) -> None:
    """With a subscriber that does not read, and much unsent, the end still comes."""
    publisher = Publisher(LOOPBACK)
    with subscribed(publisher):
        for _ in range(200):
            publisher.send(scores(padding=500_000))
        began_s = time.monotonic()
        publisher.close()
        publisher.close()
        assert time.monotonic() - began_s < 5
