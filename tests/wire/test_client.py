"""The client, with a real publisher or a bare socket."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest
import zmq

from perceiverd.core.errors import WireError
from perceiverd.wire import (
    Gap,
    Hello,
    Message,
    Restarted,
    Scores,
    Stale,
    Status,
    Subscription,
    client,
    codec,
    messages,
    subscribe,
)
from perceiverd.wire.publisher import Publisher
from tests.support.messages import DEADLINE_S, LOOPBACK, hello, scores, status, until


@pytest.fixture
def soon_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon is stale after 0.3 s at the earliest."""
    monkeypatch.setattr(client, "STALE_LEAST_S", 0.3)


def first_received(publisher: Publisher, subscription: Subscription) -> Scores:
    """Publish scores until the subscription receives one: it may still be connecting."""
    for _ in range(DEADLINE_S * 20):
        publisher.send(scores())
        publisher.handle_subscribers()
        if isinstance(message := subscription.receive_message(0.05), Scores):
            return message
    raise AssertionError("nothing received")


def test_messages_are_typed_and_in_order() -> None:
    """Iterating yields the messages that were sent."""
    with Publisher(LOOPBACK) as publisher, subscribe(publisher.endpoint, timeout_s=DEADLINE_S) as subscription:
        first = first_received(publisher, subscription)
        publisher.send(scores("b"))
        last = next(item for item in subscription if isinstance(item, Scores) and item.stream == "b")
        assert first.boot_id == last.boot_id == publisher.boot_id


def test_only_subscribed_topics_are_received() -> None:
    """A topic is a prefix that ends in a slash: `a` does not match `ab`."""
    topics = (messages.scores_topic("a"),)
    with Publisher(LOOPBACK) as publisher, subscribe(publisher.endpoint, topics) as subscription:
        first_received(publisher, subscription)
        while subscription.receive_message(0.2):
            pass
        publisher.send(scores("ab"))
        publisher.send(scores("a"))
        message = subscription.receive_message(DEADLINE_S)
        assert isinstance(message, Scores)
        assert message.stream == "a"


def test_a_timeout_is_an_error_with_advice() -> None:
    """Iteration ends after `timeout_s` with a line for the user; `receive` returns None."""
    with subscribe("tcp://127.0.0.1:1", timeout_s=0.2) as subscription:
        assert subscription.receive(0.05) is None
        with pytest.raises(WireError, match=r"\S+:1: nothing received for 0\.2 s; is perceiverd running\?"):
            next(iter(subscription))


def test_the_client_reconnects_to_a_restarted_daemon() -> None:
    """It reconnects by itself and receives the new boot_id, without counting a loss."""
    with Publisher(LOOPBACK) as publisher:
        endpoint = publisher.endpoint
        subscription = subscribe(endpoint)
        first = first_received(publisher, subscription)
    with subscription, Publisher(endpoint) as publisher:
        missed = subscription.missed
        again = first_received(publisher, subscription)
        while again.boot_id == first.boot_id:
            again = first_received(publisher, subscription)
        assert again.boot_id == publisher.boot_id
        assert subscription.missed == missed == 0


@contextmanager
def sending(*topics: str) -> Iterator[tuple[Subscription, Callable[..., None]]]:
    """A connected subscription, and a function that sends it any messages."""
    with zmq.Context() as context, context.socket(zmq.PUB) as sender:
        port = sender.bind_to_random_port("tcp://127.0.0.1")
        with subscribe(f"tcp://127.0.0.1:{port}", topics or ("",)) as subscription:

            def send(*sent: Message) -> None:
                for message in sent:
                    sender.send_multipart(codec.encode(message))

            end_s = time.monotonic() + DEADLINE_S
            while not subscription.receive_message(0.05):
                send(numbered(0))
                assert time.monotonic() < end_s
            while subscription.receive_message(0.3):  # duplicates of seq 0 are dropped
                pass
            yield subscription, send


def numbered(seq: int, boot_id: str = "one") -> Scores:
    return scores(seq=seq, boot_id=boot_id)


def test_a_gap_stands_where_messages_were_lost() -> None:
    """Missing numbers become a gap before the next message, and a count; duplicates are dropped."""
    with sending() as (subscription, send):
        send(*(numbered(seq) for seq in (1, 2, 5, 5, 6, 10)))
        items = [subscription.receive(DEADLINE_S) for _ in range(7)]
        assert [item.seq for item in items if isinstance(item, Scores)] == [1, 2, 5, 6, 10]
        assert [(i, item) for i, item in enumerate(items) if isinstance(item, Gap)] == [
            (2, Gap("scores/a/", 2, "one")),
            (5, Gap("scores/a/", 3, "one")),
        ]
        assert subscription.missed == 2 + 3


def test_receive_message_returns_messages_only() -> None:
    """It leaves out gaps and restarts, and counts the losses."""
    with sending() as (subscription, send):
        send(numbered(4), numbered(0, "two"))
        received = [subscription.receive_message(DEADLINE_S) for _ in range(2)]
        assert received == [numbered(4), numbered(0, "two")]
        assert subscription.missed == 3


def test_a_restart_precedes_the_first_message() -> None:
    """`Restarted` comes once, before the first message of the new daemon."""
    with sending() as (subscription, send):
        send(numbered(7, "two"), numbered(8, "two"))
        items = [subscription.receive(DEADLINE_S) for _ in range(3)]
        assert items == [Restarted("two", "one"), numbered(7, "two"), numbered(8, "two")]


@pytest.mark.usefixtures("soon_stale")
def test_a_stale_daemon_is_reported_once_and_so_is_its_end() -> None:
    """After that `receive` returns None until a message arrives."""
    with sending() as (subscription, send):
        send(numbered(1))
        assert subscription.receive_message(DEADLINE_S) == numbered(1)
        began = subscription.receive(DEADLINE_S)
        assert isinstance(began, Stale)
        assert (began.over, began.seconds >= 0.3) == (False, True)
        assert [subscription.receive(0.1) for _ in range(5)] == [None] * 5
        send(numbered(2))
        ended = subscription.receive(DEADLINE_S)
        assert isinstance(ended, Stale)
        assert (ended.over, ended.seconds > began.seconds) == (True, True)
        assert subscription.receive(DEADLINE_S) == numbered(2)


@pytest.mark.usefixtures("soon_stale")
def test_a_busy_program_does_not_make_a_daemon_stale() -> None:
    """Messages that wait in the queue count as received, however late the program reads them."""
    with sending() as (subscription, send):
        send(numbered(1), numbered(2))
        assert subscription.receive_message(DEADLINE_S) == numbered(1)
        time.sleep(0.5)
        assert subscription.receive(DEADLINE_S) == numbered(2)


@pytest.mark.usefixtures("soon_stale")
def test_a_heartbeat_keeps_a_daemon_from_being_stale() -> None:
    """The client receives heartbeats without being asked, and does not yield them; it is stale when they stop."""
    with Publisher(LOOPBACK) as publisher, subscribe(publisher.endpoint, ["events/a/"]) as subscription:
        publisher.send(hello(status_interval_s=0.3))
        until(publisher, lambda: publisher.subscriptions == 3)
        items: list[object] = []
        reader = threading.Thread(target=lambda: items.append(next(iter(subscription))))
        reader.start()
        for _ in range(15):
            publisher.handle_subscribers()
            publisher.send(status())
            time.sleep(0.1)
        assert not items
        reader.join(DEADLINE_S)
        assert isinstance(items[0], Stale)


def test_losses_are_reported_to_the_publisher() -> None:
    """The sum of the gaps appears in the publisher's next status, with the subscriber's name."""
    with Publisher(LOOPBACK, high_water_mark=5) as publisher, subscribe(publisher.endpoint) as subscription:
        first_received(publisher, subscription)
        for _ in range(300):
            publisher.send(scores(padding=200_000))
        first_received(publisher, subscription)
        while subscription.receive_message(0.1):
            publisher.handle_subscribers()
        publisher.send(status())
        end_s = time.monotonic() + DEADLINE_S
        while not publisher.registry.missed or publisher.registry.missed < subscription.missed:
            assert time.monotonic() < end_s
            subscription.receive_message(0.05)
            publisher.handle_subscribers()
        sent = publisher.send(status())
        assert isinstance(sent, Status)
        assert sent.delivery.missed == subscription.missed > 0
        assert sent.delivery.losing == {subscription.name: subscription.missed}
        assert sent.delivery.subscribers == 1
        assert sent.delivery.overflows >= 1


@pytest.mark.usefixtures("soon_stale")
def test_asyncio_is_not_blocked() -> None:
    """`async for` yields the same items while other tasks run, and ends when its task is cancelled."""

    async def main() -> None:
        with Publisher(LOOPBACK) as publisher, subscribe(publisher.endpoint) as subscription:
            items: list[object] = []

            async def collect() -> None:
                async for item in subscription:
                    items.append(item)  # noqa: PERF401 - one by one, as they come

            collector = asyncio.create_task(collect())
            publisher.send(hello(status_interval_s=0.1))
            end_s = time.monotonic() + DEADLINE_S
            while sum(isinstance(item, Scores) for item in items) < 5:
                publisher.handle_subscribers()
                publisher.send(scores())
                await asyncio.sleep(0.01)
                assert time.monotonic() < end_s
            while not isinstance(items[-1], Stale):
                await asyncio.sleep(0.01)
                assert time.monotonic() < end_s
            collector.cancel()
            with suppress(asyncio.CancelledError):
                await collector
            assert not any(isinstance(item, Gap | Restarted) for item in items)
            assert isinstance(next(item for item in items if not isinstance(item, Scores)), Hello | Stale)

    with ThreadPoolExecutor(1) as pool:  # in this thread a browser of other tests may have an event loop
        pool.submit(lambda: asyncio.run(main())).result()


def test_foreign_messages_are_an_error() -> None:
    """A message that is not perceiverd's is a WireError."""
    with zmq.Context() as context, context.socket(zmq.PUB) as stranger:
        port = stranger.bind_to_random_port("tcp://127.0.0.1")
        with subscribe(f"tcp://127.0.0.1:{port}") as subscription:
            end_s = time.monotonic() + DEADLINE_S
            while not subscription._socket.poll(50):
                stranger.send_multipart([b"weather/", b"sunny"])
                assert time.monotonic() < end_s
            with pytest.raises(WireError, match="not perceiverd's"):
                subscription.receive(DEADLINE_S)


@pytest.mark.parametrize("endpoint", ["", "door", "tcp://nowhere", "smoke://signal", "ipc:///" + "x" * 200])
def test_an_invalid_endpoint_is_one_line(endpoint: str) -> None:
    """An endpoint that cannot be connected to is reported at once."""
    with pytest.raises(WireError, match="cannot connect to"):
        subscribe(endpoint)
