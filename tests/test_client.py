"""The client, against a real publisher."""

import subprocess
import sys
import time
from datetime import UTC, datetime

import msgspec
import pytest
import zmq

from perceiverd import messages
from perceiverd.client import Subscription, subscribe
from perceiverd.errors import WireError
from perceiverd.messages import Model, Scores
from perceiverd.publisher import Publisher

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
        for message in heard:
            if isinstance(message, Scores) and message.stream == "b":
                break
        assert first.boot_id == message.boot_id == publisher.boot_id


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


def test_losses_are_counted() -> None:
    """Holes in seq are messages that never came."""
    with zmq.Context() as context, context.socket(zmq.PUB) as sender:
        port = sender.bind_to_random_port("tcp://127.0.0.1")
        with subscribe(f"tcp://127.0.0.1:{port}") as heard:
            end_s = time.monotonic() + DEADLINE_S
            while not heard.receive(0.05):
                sender.send_multipart(messages.encode(scores()))
                assert time.monotonic() < end_s
            for seq in (1, 2, 5, 5, 6, 10):
                sender.send_multipart(messages.encode(msgspec.structs.replace(scores(), seq=seq)))
            seen = []
            while message := heard.receive(1):
                seen.append(message.seq)
        assert [seq for seq in seen if seq] == [1, 2, 5, 6, 10]
        assert heard.missed == 2 + 3


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
    code = "import perceiverd.client, sys; print(*{'torch', 'av', 'numpy', 'rich'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == ""
