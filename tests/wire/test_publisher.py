"""The publisher, on real sockets: numbering, new and frozen subscribers, and endpoints that are in use."""

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
    """Every topic is numbered from 0, with one boot_id for all."""
    with Publisher(LOOPBACK) as publisher, subscribed(publisher) as subscription:
        for stream in ("a", "b", "a", "a"):
            publisher.send(scores(stream))
        received = [subscription.receive_message(DEADLINE_S) for _ in range(4)]
    assert [(m.stream, m.seq) for m in received if isinstance(m, Scores)] == [("a", 0), ("b", 0), ("a", 1), ("a", 2)]
    assert {m.boot_id for m in received if m} == {publisher.boot_id}
    assert subscription.missed == 0


def test_a_plain_zeromq_subscriber_receives_two_parts() -> None:
    """A program needs only pyzmq, and two subscribers receive the same."""
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


def test_a_new_subscriber_receives_the_last_hello() -> None:
    """The hello is repeated for a new subscriber, and an earlier one yields it only once."""
    with Publisher(LOOPBACK) as publisher, subscribed(publisher) as early:
        publisher.send(hello())
        assert isinstance(early.receive_message(DEADLINE_S), Hello)
        with Subscription(publisher.endpoint, (messages.HELLO,)) as late:
            until(publisher, lambda: publisher.subscriptions == 3)  # to `hello/` and `status/`
            repeated = late.receive_message(DEADLINE_S)
            assert isinstance(repeated, Hello)
            assert repeated.repeated
        publisher.send(scores())
        assert isinstance(early.receive_message(DEADLINE_S), Scores)


def test_scores_are_not_repeated() -> None:
    """A new subscriber receives no scores from before its subscription."""
    with Publisher(LOOPBACK) as publisher:
        publisher.send(scores())
        with subscribed(publisher) as late:
            publisher.send(scores())
            message = late.receive_message(DEADLINE_S)
            assert message
            assert message.seq == 1


def test_a_new_subscriber_receives_open_events() -> None:
    """It receives the latest message of each open event, and none of ended events or other streams."""
    with Publisher(LOOPBACK) as publisher:
        sent = (
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
        for message in sent:
            publisher.send(message)
        with subscribed(publisher, "events/a/", "status/a/", "hello/") as late:
            until(publisher, lambda: publisher.subscriptions == 3)
            received = [late.receive_message(DEADLINE_S) for _ in range(4)]
            assert {(m.kind, m.id, m.seq) for m in received if isinstance(m, Event)} == {
                ("update", "1", 2),
                ("begin", "3", 3),
            }
            assert {type(m) for m in received} == {Hello, Event, Status}
            assert all(m.repeated for m in received if isinstance(m, Hello | Event | Status))
            publisher.send(event("end", 3))
            ended = late.receive_message(DEADLINE_S)
            assert isinstance(ended, Event)
            assert (ended.seq, ended.repeated, late.missed) == (5, False, 0)


def test_a_status_describes_the_delivery() -> None:
    """It counts the messages of its stream's topics, the subscribers and the missed messages."""
    with Publisher(LOOPBACK) as publisher, zmq.Context() as context, context.socket(zmq.SUB) as reader:
        reader.connect(publisher.endpoint)
        for report in (LossReport(publisher.boot_id, "kitchen", 7), LossReport("0" * 32, "kitchen", 900)):
            reader.subscribe(report.subscription)
        until(publisher, lambda: len(publisher.registry) > 0)
        publisher.send(scores("ab"))
        for _ in range(3):
            publisher.send(scores())
        publisher.send(status())
        sent = publisher.send(status())
        assert isinstance(sent, Status)
        assert sent.delivery == Delivery(
            subscribers=1, missed=7, losing={"kitchen": 7}, overflows=0, sent={"scores": 3, "status": 1}
        )
        reader.close(linger=0)
        until(publisher, lambda: len(publisher.registry) == 0)
        assert publisher.registry.missed == 7


def test_a_topic_is_requested_by_a_subscription_to_its_kind() -> None:
    """A subscription to everything does not request it."""
    with Publisher(LOOPBACK) as publisher, subscribed(publisher):
        assert not publisher.is_requested("explain/a/")
        with subscribed(publisher, "explain/a/") as asking:
            until(publisher, lambda: publisher.is_requested("explain/a/"))
            assert not publisher.is_requested("explain/ab/")
            asking.close()
            until(publisher, lambda: not publisher.is_requested("explain/a/"))


def test_subscriptions_are_counted() -> None:
    """The count follows subscribers that come and leave. Each client also subscribes to `hello/` and `status/`."""
    with Publisher(LOOPBACK) as publisher:
        first, second = subscribed(publisher, "scores/a/", "scores/b/"), subscribed(publisher, "scores/a/")
        until(publisher, lambda: publisher.subscriptions == 5 + 3)
        first.close()
        until(publisher, lambda: publisher.subscriptions == 3)
        second.close()
        until(publisher, lambda: publisher.subscriptions == 0)


def test_garbage_is_ignored() -> None:
    """Random bytes, messages that are not subscriptions, and huge ones do not disturb the publisher."""
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
            publisher.handle_subscribers()
        publisher.send(scores())
        assert isinstance(subscription.receive_message(DEADLINE_S), Scores)
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


def test_a_frozen_subscriber_does_no_harm() -> None:
    """A stopped process makes no other subscriber lose a message, and takes a bounded amount of memory."""
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
                publisher.handle_subscribers()
                assert reader.receive_message(
                    DEADLINE_S
                )  # at the reader's pace, so that only the frozen one's queue fills
            grown = resident_bytes() - before
        finally:
            frozen.kill()
            frozen.wait()
            frozen.stdout.close()
    assert reader.missed == 0
    # ZeroMQ skips the frozen one from then on. The kernel may take some of its queue later, so that it fills again.
    assert 1 <= publisher.overflows < 10
    assert grown < 40e6, f"{grown / 1e6:.0f} MB"
    assert slowest_s < 5  # a blocked send would last until the frozen process was killed


def test_a_reader_loses_nothing_beside_a_frozen_subscriber() -> None:
    """It receives every message at the pace of a daemon, although another subscriber has stopped reading."""
    with (
        Publisher(LOOPBACK, high_water_mark=10) as publisher,
        subscribed(publisher) as reader,
        subscribed(publisher),  # never read from
    ):
        for number in range(300):
            publisher.send(scores(padding=200_000))
            message = reader.receive_message(DEADLINE_S)
            assert message
            assert message.seq == number


def test_an_ipc_socket_is_closed_to_others(tmp_path: Path) -> None:
    """Only owner and group may connect, and the umask of the process is restored."""
    before = os.umask(0o022)
    try:
        with Publisher(f"ipc://{tmp_path}/labels"):
            assert stat.S_IMODE((tmp_path / "labels").stat().st_mode) == 0o660
            assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


def test_the_publisher_removes_its_socket_file_only(tmp_path: Path) -> None:
    """It leaves no file behind, but keeps a file that another program has put there meanwhile."""
    endpoint, path = f"ipc://{tmp_path}/labels", tmp_path / "labels"
    with Publisher(endpoint):
        assert path.is_socket()
    assert not path.exists()
    with Publisher(endpoint):
        path.unlink()
        path.touch()
    assert path.exists()


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    """A socket that a killed daemon left behind does not keep the next one from starting."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "labels"))
    with Publisher(f"ipc://{tmp_path}/labels") as publisher, subscribed(publisher) as subscription:
        publisher.send(scores())
        assert subscription.receive_message(DEADLINE_S)


def test_the_socket_of_a_running_daemon_is_kept(tmp_path: Path) -> None:
    """A second daemon at the same path is refused, and the first one keeps publishing."""
    endpoint = f"ipc://{tmp_path}/labels"
    with Publisher(endpoint) as publisher:
        with pytest.raises(WireError, match="another program uses it"):
            Publisher(endpoint)
        with subscribed(publisher) as subscription:
            publisher.send(scores())
            assert subscription.receive_message(DEADLINE_S)


def test_a_file_at_the_path_is_kept(tmp_path: Path) -> None:
    """The publisher refuses the path; ZeroMQ would delete the file."""
    (tmp_path / "labels").write_text("mine")
    with pytest.raises(WireError, match="the file there is not a socket"):
        Publisher(f"ipc://{tmp_path}/labels")
    assert (tmp_path / "labels").read_text() == "mine"


def test_a_used_tcp_port_is_one_line() -> None:
    """The error names the endpoint and the reason."""
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
def test_an_unusable_endpoint_is_one_line(endpoint: str, why: str) -> None:
    """It is a WireError, not a traceback."""
    with pytest.raises(WireError, match=why):
        Publisher(endpoint)


def test_an_abstract_socket_works() -> None:
    """`ipc://@name` has no file."""
    with Publisher(f"ipc://@perceiverd-test-{os.getpid()}") as publisher, subscribed(publisher) as subscription:
        publisher.send(scores())
        assert subscription.receive_message(DEADLINE_S)


@pytest.mark.quiet
def test_closing_takes_a_bounded_time(tmp_path: Path) -> None:
    """Closing ends although a subscriber does not read and much is unsent."""
    publisher = Publisher(LOOPBACK)
    with subscribed(publisher):
        for _ in range(200):
            publisher.send(scores(padding=500_000))
        began_s = time.monotonic()
        publisher.close()
        publisher.close()
        assert time.monotonic() - began_s < 5
