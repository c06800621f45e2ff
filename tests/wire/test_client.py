"""The client, against a real publisher."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

import msgspec
import pytest
import zmq

from perceiverd.core.errors import WireError
from perceiverd.wire import messages
from perceiverd.wire.client import Gap, Restarted, Stale, Subscription, subscribe
from perceiverd.wire.messages import Hello, Message, Model, Scores, Status, Tag
from perceiverd.wire.publisher import Publisher
from tests.support.messages import until

NOW = datetime.now(UTC)
DEADLINE_S = 20


def scores(stream: str = "a") -> Scores:
    return Scores(stream, NOW, NOW, 0, 1, 1, ("audio",), Model("tiny", "0" * 64), (), 0)


def hear(publisher: Publisher, subscription: Subscription) -> Scores:
    """Publish until the subscription hears: it may still be on its way to the publisher."""
    for _ in range(DEADLINE_S * 20):
        publisher.send(scores())
        publisher.attend()
        if isinstance(message := subscription.receive(0.05), Scores):
            return message
    raise AssertionError("nothing heard")


def test_messages_come_typed_and_in_order() -> None:
    """Iterating gives what was sent."""
    with Publisher("tcp://127.0.0.1:*") as publisher, subscribe(publisher.endpoint, timeout_s=DEADLINE_S) as heard:
        first = hear(publisher, heard)
        publisher.send(scores("b"))
        last = next(item for item in heard if isinstance(item, Scores) and item.stream == "b")
        assert first.boot_id == last.boot_id == publisher.boot_id


def test_only_what_was_subscribed_to_comes() -> None:
    """A topic is a prefix that ends in a slash: `a` is not `ab`."""
    topics = (messages.scores_topic("a"),)
    with Publisher("tcp://127.0.0.1:*") as publisher, subscribe(publisher.endpoint, topics) as heard:
        hear(publisher, heard)
        while heard.receive(0.2):
            pass
        publisher.send(scores("ab"))
        publisher.send(scores("a"))
        message = heard.receive(DEADLINE_S)
        assert isinstance(message, Scores)
        assert message.stream == "a"


def test_silence_is_an_error_with_advice() -> None:
    """Iteration ends after the time-out with the line a user needs; receive says None."""
    with subscribe("tcp://127.0.0.1:1", timeout_s=0.2) as heard:
        assert heard.receive(0.05) is None
        with pytest.raises(WireError, match=r"nothing heard from \S+:1 for 0\.2 s: is perceiverd running\?"):
            next(iter(heard))


def test_a_daemon_that_comes_back_is_heard_again() -> None:
    """The client connects again by itself, and sees a new boot_id, without counting a loss."""
    with Publisher("tcp://127.0.0.1:*") as publisher:
        endpoint = publisher.endpoint
        heard = subscribe(endpoint)
        first = hear(publisher, heard)
    with heard, Publisher(endpoint) as publisher:
        missed = heard.missed
        again = hear(publisher, heard)
        while again.boot_id == first.boot_id:
            again = hear(publisher, heard)
        assert again.boot_id == publisher.boot_id
        assert heard.missed == missed == 0


@contextmanager
def sending() -> Iterator[tuple[Subscription, Callable[..., None]]]:
    """A subscription that hears, and how to send to it, whatever it is."""
    with zmq.Context() as context, context.socket(zmq.PUB) as sender:
        port = sender.bind_to_random_port("tcp://127.0.0.1")
        with subscribe(f"tcp://127.0.0.1:{port}") as heard:

            def send(*said: Message) -> None:
                for message in said:
                    sender.send_multipart(messages.encode(message))

            end_s = time.monotonic() + DEADLINE_S
            while not heard.receive(0.05):
                send(numbered(0))
                assert time.monotonic() < end_s
            while heard.receive(0.3):  # those of seq 0 that came after the first are no news
                pass
            yield heard, send


def numbered(seq: int, boot_id: str = "one") -> Scores:
    return msgspec.structs.replace(scores(), seq=seq, boot_id=boot_id)


def test_losses_are_told_where_they_were() -> None:
    """Holes in seq are messages that never came: a gap before what follows, and a count; what is old is no news."""
    with sending() as (heard, send):
        send(*(numbered(seq) for seq in (1, 2, 5, 5, 6, 10)))
        items = [heard.hear(DEADLINE_S) for _ in range(7)]
        assert [item.seq for item in items if isinstance(item, Scores)] == [1, 2, 5, 6, 10]
        assert [(i, item) for i, item in enumerate(items) if isinstance(item, Gap)] == [
            (2, Gap("scores/a/", 2, "one")),
            (5, Gap("scores/a/", 3, "one")),
        ]
        assert heard.missed == 2 + 3


def test_who_wants_messages_alone_gets_messages_alone() -> None:
    """`receive` leaves out what is told of the line, and counts it."""
    with sending() as (heard, send):
        send(numbered(4), numbered(0, "two"))
        assert [heard.receive(DEADLINE_S), heard.receive(DEADLINE_S)] == [numbered(4), numbered(0, "two")]
        assert heard.missed == 3


def test_another_daemon_is_told() -> None:
    """Before its first message."""
    with sending() as (heard, send):
        send(numbered(7, "two"), numbered(8, "two"))
        items = [heard.hear(DEADLINE_S) for _ in range(3)]
        assert items == [Restarted("two", "one"), numbered(7, "two"), numbered(8, "two")]


def hello(status_interval_s: float = 1.0) -> Hello:
    return Hello("1", ("a", "b"), Model("tiny", "0" * 64), 1, status_interval_s, NOW)


def status(stream: str = "a") -> Status:
    return Status(stream, NOW, "up", (), None, 0, 0, 0, 0, 0, NOW, Model("tiny", "0" * 64))


def test_silence_is_told_again_and_again() -> None:
    """After three intervals of the daemon's heartbeat without a word, and after each three more."""
    with sending() as (heard, send):
        send(msgspec.structs.replace(hello(status_interval_s=0.1), boot_id="one"))
        items = iter(heard)
        assert isinstance(next(items), Hello)
        first, second = next(items), next(items)
        assert isinstance(first, Stale)
        assert isinstance(second, Stale)
        assert 0.3 <= first.seconds < second.seconds
        send(numbered(1))
        assert next(item for item in items if not isinstance(item, Stale)) == numbered(1)


def test_a_stream_without_news_is_not_silent() -> None:
    """Heartbeats are heard though nobody asked for them, and not given; they end when the daemon does."""
    with Publisher("tcp://127.0.0.1:*") as publisher, subscribe(publisher.endpoint, ["events/a/"]) as heard:
        publisher.send(hello(status_interval_s=0.3))
        until(publisher, lambda: publisher.subscriptions == 3)
        items: list[object] = []
        reader = threading.Thread(target=lambda: items.append(next(iter(heard))))
        reader.start()
        for _ in range(15):
            publisher.attend()
            publisher.send(status())
            time.sleep(0.1)
        assert not items
        reader.join(DEADLINE_S)
        assert isinstance(items[0], Stale)


def test_losses_are_told_to_the_publisher() -> None:
    """What the gaps sum up to is in the publisher's next status, beside the subscriber's name."""
    with Publisher("tcp://127.0.0.1:*", high_water_mark=5) as publisher, subscribe(publisher.endpoint) as heard:
        hear(publisher, heard)
        for _ in range(300):
            publisher.send(msgspec.structs.replace(scores(), labels=(Tag("", 0, "-" * 200_000, 0),)))
        hear(publisher, heard)
        while heard.receive(0.1):
            publisher.attend()
        publisher.send(status())
        end_s = time.monotonic() + DEADLINE_S
        while not publisher.register.missed or publisher.register.missed < heard.missed:
            assert time.monotonic() < end_s
            heard.receive(0.05)
            publisher.attend()
        told = publisher.send(status())
        assert isinstance(told, Status)
        assert told.delivery.missed == heard.missed > 0
        assert told.delivery.losing == {heard.name: heard.missed}
        assert told.delivery.subscribers == 1
        assert told.delivery.overflows >= 1


def test_asyncio_is_not_held_up() -> None:
    """`async for` gives the same items, while other tasks go on, and ends when its task is cancelled."""

    async def main() -> None:
        with Publisher("tcp://127.0.0.1:*") as publisher, subscribe(publisher.endpoint) as heard:
            items: list[object] = []

            async def listen() -> None:
                async for item in heard:
                    items.append(item)  # noqa: PERF401 - one by one, as they come

            listener = asyncio.create_task(listen())
            publisher.send(hello(status_interval_s=0.1))
            end_s = time.monotonic() + DEADLINE_S
            while sum(isinstance(item, Scores) for item in items) < 5:
                publisher.attend()
                publisher.send(scores())
                await asyncio.sleep(0.01)
                assert time.monotonic() < end_s
            while not isinstance(items[-1], Stale):
                await asyncio.sleep(0.01)
                assert time.monotonic() < end_s
            listener.cancel()
            with suppress(asyncio.CancelledError):
                await listener
            assert not any(isinstance(item, Gap | Restarted) for item in items)

    asyncio.run(main())


def test_a_stranger_on_the_endpoint_is_told() -> None:
    """What is not perceiverd's is a WireError."""
    with zmq.Context() as context, context.socket(zmq.PUB) as stranger:
        port = stranger.bind_to_random_port("tcp://127.0.0.1")
        with subscribe(f"tcp://127.0.0.1:{port}") as heard:
            end_s = time.monotonic() + DEADLINE_S
            while not heard._socket.poll(50):
                stranger.send_multipart([b"weather/", b"sunny"])
                assert time.monotonic() < end_s
            with pytest.raises(WireError, match="not perceiverd's"):
                heard.receive(DEADLINE_S)


@pytest.mark.parametrize("endpoint", ["", "door", "tcp://nowhere", "smoke://signal", "ipc:///" + "x" * 200])
def test_a_wrong_endpoint_is_one_line(endpoint: str) -> None:
    """What can't be an endpoint is told at once."""
    with pytest.raises(WireError, match="cannot connect to"):
        subscribe(endpoint)


def test_the_client_is_light() -> None:
    """It loads neither torch nor FFmpeg nor numpy."""
    code = "import perceiverd.wire, sys; print(*{'torch', 'av', 'numpy', 'rich'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == ""
