"""Which clients may connect: listed and unlisted keys, foreign programs and a changing list, on real sockets."""

import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq
from zmq.utils import z85

from perceiverd.core.errors import ConfigError
from perceiverd.wire import auth, client, keys
from perceiverd.wire.auth import DOMAIN, Authenticator, reply_to
from perceiverd.wire.client import Subscription
from perceiverd.wire.gaps import Restarted
from perceiverd.wire.keys import Curve, read_curve
from perceiverd.wire.messages import Scores
from perceiverd.wire.publisher import Publisher
from tests.support.messages import DEADLINE_S, LOOPBACK, hello, scores, until

KEY = bytes(range(32))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The keys of a daemon and of two clients, of which one is on the list."""
    (tmp_path / "clients").mkdir()
    keys.create_pair("daemon", tmp_path)
    for name in ("listed", "unlisted"):
        keys.create_pair(name, tmp_path)
    (tmp_path / "clients" / "listed.key").write_bytes((tmp_path / "listed.key").read_bytes())
    return tmp_path


def authenticator(folder: Path) -> Authenticator:
    return Authenticator(folder / "daemon.key_secret", folder / "clients")


def curve(folder: Path, name: str) -> Curve:
    return Curve.read(folder / "daemon.key", folder / f"{name}.key_secret")


def receives(publisher: Publisher, subscription: Subscription) -> None:
    """Publish until the subscription receives scores."""
    end_s = time.monotonic() + DEADLINE_S
    while not isinstance(subscription.receive_message(0.02), Scores):
        assert time.monotonic() < end_s, "nothing was received"
        publisher.handle_subscribers()
        publisher.send(scores())


def is_locked_out(publisher: Publisher, reader: zmq.Socket[bytes]) -> None:
    for _ in range(20):
        publisher.handle_subscribers()
        publisher.send(scores())
        assert not reader.poll(20)


def test_a_listed_key_is_admitted(folder: Path) -> None:
    """A client whose key is listed receives messages, and nobody is refused."""
    with (
        Publisher(LOOPBACK, authenticator=authenticator(folder)) as publisher,
        Subscription(publisher.endpoint, curve=curve(folder, "listed")) as listed,
    ):
        receives(publisher, listed)
        assert publisher.refused == 0


def test_other_clients_receive_nothing(folder: Path) -> None:
    """An unlisted key, a key for another daemon, no key and no ZeroMQ are refused; an admitted client is unaffected."""
    keys.create_pair("other", folder)
    pair, server = keys.read_pair(folder / "unlisted.key_secret"), keys.read_public(folder / "daemon.key")
    listed_pair, other = keys.read_pair(folder / "listed.key_secret"), keys.read_public(folder / "other.key")
    with (
        Publisher(LOOPBACK, authenticator=authenticator(folder)) as publisher,
        Subscription(publisher.endpoint, curve=curve(folder, "listed")) as listed,
        zmq.Context() as context,
    ):
        receives(publisher, listed)
        strangers = [context.socket(zmq.SUB) for _ in range(3)]
        for stranger, mine, theirs in zip(strangers, (pair, listed_pair, None), (server, other, None), strict=True):
            if mine and theirs:
                stranger.set(zmq.CURVE_PUBLICKEY, mine.public)
                stranger.set(zmq.CURVE_SECRETKEY, mine.secret)
                stranger.set(zmq.CURVE_SERVERKEY, theirs)
            stranger.subscribe(b"")
            stranger.connect(publisher.endpoint)
        with socket.create_connection(("127.0.0.1", int(publisher.endpoint.rpartition(":")[2]))) as raw:
            raw.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(range(256)) * 8)
            until(publisher, lambda: publisher.refused > 0)
            for stranger in strangers:
                is_locked_out(publisher, stranger)
        receives(publisher, listed)
        for stranger in strangers:
            stranger.close(linger=0)


def test_a_key_added_to_the_list_is_admitted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither daemon nor client is restarted, although ZeroMQ itself gives up after a refusal."""
    monkeypatch.setattr(auth, "REFRESH_EVERY_S", 0.1)
    monkeypatch.setattr(client, "RENEW_S", 0.5)
    monkeypatch.setattr(client, "STALE_LEAST_S", 0.5)
    with (
        Publisher(LOOPBACK, authenticator=authenticator(folder)) as publisher,
        Subscription(publisher.endpoint, curve=curve(folder, "unlisted")) as late,
    ):
        until(publisher, lambda: publisher.refused > 0)
        (folder / "clients" / "late.key").write_bytes((folder / "unlisted.key").read_bytes())
        receives(publisher, late)


@pytest.mark.parametrize("endpoint", [LOOPBACK, "ipc://{folder}/labels"])
def test_a_key_removed_from_the_list_is_disconnected(
    endpoint: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its client receives nothing more; the others reconnect by themselves, to the same daemon."""
    monkeypatch.setattr(auth, "REFRESH_EVERY_S", 0.1)
    (folder / "clients" / "second.key").write_bytes((folder / "unlisted.key").read_bytes())
    with (
        Publisher(endpoint.format(folder=folder), authenticator=authenticator(folder)) as publisher,
        Subscription(publisher.endpoint, curve=curve(folder, "listed")) as stays,
        Subscription(publisher.endpoint, curve=curve(folder, "unlisted")) as goes,
    ):
        publisher.send(hello())
        receives(publisher, stays)
        receives(publisher, goes)
        where = publisher.endpoint
        (folder / "clients" / "second.key").unlink()
        until(publisher, lambda: publisher.refused > 0)
        assert publisher.endpoint == where
        while goes.receive_message(0):  # sent before the key was removed
            pass
        for _ in range(10):
            receives(publisher, stays)
            assert not goes.receive_message(0.01)
        while item := stays.receive(0):
            assert not isinstance(item, Restarted)
        if where.startswith("ipc"):
            assert (folder / "labels").is_socket()
    assert not (folder / "labels").exists()


def test_nobody_is_admitted_while_nobody_answers(folder: Path) -> None:
    """Even a listed key waits until a busy daemon answers."""
    with (
        Publisher(LOOPBACK, authenticator=authenticator(folder)) as publisher,
        Subscription(publisher.endpoint, curve=curve(folder, "listed")) as listed,
    ):
        publisher.send(scores())
        assert not listed.receive_message(0.5)
        receives(publisher, listed)


def unknown(key: bytes) -> None:
    assert key == z85.encode(KEY)


@pytest.mark.parametrize(
    ("request_", "name_of", "status"),
    [
        ([b"1.0", b"7", DOMAIN, b"10.0.0.1", b"", b"CURVE", KEY], lambda key: "kitchen", b"200"),
        ([b"1.0", b"7", DOMAIN, b"10.0.0.1", b"", b"CURVE", KEY], unknown, b"400"),
        ([b"1.0", b"7", DOMAIN, b"10.0.0.1", b"", b"CURVE", KEY[:31]], lambda key: "kitchen", b"400"),
        ([b"1.0", b"7", DOMAIN, b"10.0.0.1", b"", b"CURVE"], lambda key: "kitchen", b"400"),
        ([b"1.0", b"7", b"other", b"10.0.0.1", b"", b"CURVE", KEY], lambda key: "kitchen", b"400"),
        ([b"1.0", b"7", DOMAIN, b"10.0.0.1", b"", b"NULL"], lambda key: "kitchen", b"400"),
        ([b"1.0", b"7", DOMAIN, b"10.0.0.1", b"", b"PLAIN", b"user", b"word"], lambda key: "kitchen", b"400"),
        ([b"2.0", b"7", DOMAIN, b"10.0.0.1", b"", b"CURVE", KEY], lambda key: "kitchen", b"400"),
        ([], lambda key: "kitchen", b"400"),
    ],
)
def test_only_a_listed_key_is_accepted(
    request_: list[bytes], name_of: Callable[[bytes], str | None], status: bytes
) -> None:
    """Every other request is refused. A reply has six parts and repeats the id of its request."""
    reply = reply_to(request_, name_of)
    assert len(reply) == 6
    assert (reply[0], reply[2]) == (b"1.0", status)
    assert reply[1] == (request_[1] if request_ else b"")


def test_one_key_file_without_the_other_is_one_line(folder: Path) -> None:
    """Both files are needed, or none."""
    assert read_curve(None, None) is None
    assert read_curve(folder / "daemon.key", folder / "listed.key_secret")
    with pytest.raises(ConfigError, match="needs two files"):
        read_curve(folder / "daemon.key", None)


def test_unreadable_keys_are_one_line(folder: Path) -> None:
    """An authenticator is not created if a file or folder is missing."""
    for secret, clients in (("missing.key_secret", "clients"), ("daemon.key_secret", "missing")):
        with pytest.raises(ConfigError, match=r"cannot read the (key|folder)"):
            Authenticator(folder / secret, folder / clients)


def test_a_secret_is_not_in_the_repr(folder: Path) -> None:
    """A traceback shows no secret key of either side."""
    pair = keys.read_pair(folder / "listed.key_secret")
    assert pair.secret.decode() not in repr(pair) + repr(curve(folder, "listed"))
