"""Who is let in: keys on the list and off it, strangers, and a list that changes, on real sockets."""

import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq
from zmq.utils import z85

from perceiverd.core.errors import ConfigError
from perceiverd.wire import auth, client, keys
from perceiverd.wire.auth import DOMAIN, Authenticator, verdict
from perceiverd.wire.client import Curve, Restarted, Subscription, curve_of
from perceiverd.wire.messages import Scores
from perceiverd.wire.publisher import Publisher
from tests.support.messages import DEADLINE_S, LOOPBACK, hello, scores, until

KEY = bytes(range(32))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A daemon's keys, and those of two clients; only one is on the list."""
    (tmp_path / "clients").mkdir()
    keys.new("daemon", tmp_path)
    for name in ("listed", "unlisted"):
        keys.new(name, tmp_path)
    (tmp_path / "clients" / "listed.key").write_bytes((tmp_path / "listed.key").read_bytes())
    return tmp_path


def door(folder: Path) -> Authenticator:
    return Authenticator(folder / "daemon.key_secret", folder / "clients")


def curve(folder: Path, name: str) -> Curve:
    return Curve.read(folder / "daemon.key", folder / f"{name}.key_secret")


def hears(publisher: Publisher, subscription: Subscription) -> None:
    """Publish until the subscription hears."""
    end_s = time.monotonic() + DEADLINE_S
    while not isinstance(subscription.receive(0.02), Scores):
        assert time.monotonic() < end_s, "nothing was heard"
        publisher.attend()
        publisher.send(scores())


def is_left_out(publisher: Publisher, reader: zmq.Socket[bytes]) -> None:
    for _ in range(20):
        publisher.attend()
        publisher.send(scores())
        assert not reader.poll(20)


def test_a_listed_key_hears(folder: Path) -> None:
    """With keys on both sides messages come, and nobody is refused."""
    with (
        Publisher(LOOPBACK, door=door(folder)) as publisher,
        Subscription(publisher.endpoint, curve=curve(folder, "listed")) as listed,
    ):
        hears(publisher, listed)
        assert publisher.refused == 0


def test_others_hear_nothing_and_harm_nobody(folder: Path) -> None:
    """A key off the list, one for another daemon, no key, and no ZeroMQ at all: none gets in, who is in hears on."""
    keys.new("other", folder)
    pair, server = keys.read_pair(folder / "unlisted.key_secret"), keys.read_public(folder / "daemon.key")
    listed_pair, other = keys.read_pair(folder / "listed.key_secret"), keys.read_public(folder / "other.key")
    with (
        Publisher(LOOPBACK, door=door(folder)) as publisher,
        Subscription(publisher.endpoint, curve=curve(folder, "listed")) as listed,
        zmq.Context() as context,
    ):
        hears(publisher, listed)
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
                is_left_out(publisher, stranger)
        hears(publisher, listed)
        for stranger in strangers:
            stranger.close(linger=0)


def test_a_key_that_is_put_on_the_list_gets_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither daemon nor client is started again, though ZeroMQ itself gives up where it was refused."""
    monkeypatch.setattr(auth, "LOOK_EVERY_S", 0.1)
    monkeypatch.setattr(client, "RENEW_S", 0.5)
    with (
        Publisher(LOOPBACK, door=door(folder)) as publisher,
        Subscription(publisher.endpoint, curve=curve(folder, "unlisted")) as late,
    ):
        until(publisher, lambda: publisher.refused > 0)
        (folder / "clients" / "late.key").write_bytes((folder / "unlisted.key").read_bytes())
        hears(publisher, late)


@pytest.mark.parametrize("endpoint", [LOOPBACK, "ipc://{folder}/labels"])
def test_a_key_that_is_taken_off_the_list_is_cut_off(
    endpoint: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It hears nothing more; the others come back by themselves, to the same daemon."""
    monkeypatch.setattr(auth, "LOOK_EVERY_S", 0.1)
    (folder / "clients" / "second.key").write_bytes((folder / "unlisted.key").read_bytes())
    with (
        Publisher(endpoint.format(folder=folder), door=door(folder)) as publisher,
        Subscription(publisher.endpoint, curve=curve(folder, "listed")) as stays,
        Subscription(publisher.endpoint, curve=curve(folder, "unlisted")) as goes,
    ):
        publisher.send(hello())
        hears(publisher, stays)
        hears(publisher, goes)
        where = publisher.endpoint
        (folder / "clients" / "second.key").unlink()
        until(publisher, lambda: publisher.refused > 0)
        assert publisher.endpoint == where
        while goes.receive(0):  # what was on its way before
            pass
        for _ in range(10):
            hears(publisher, stays)
            assert not goes.receive(0.01)
        while item := stays.hear(0):
            assert not isinstance(item, Restarted)
        if where.startswith("ipc"):
            assert (folder / "labels").is_socket()
    assert not (folder / "labels").exists()


def test_nobody_gets_in_while_nobody_answers(folder: Path) -> None:
    """A daemon that is busy keeps even a listed key waiting, until it looks."""
    with (
        Publisher(LOOPBACK, door=door(folder)) as publisher,
        Subscription(publisher.endpoint, curve=curve(folder, "listed")) as listed,
    ):
        publisher.send(scores())
        assert not listed.receive(0.5)
        hears(publisher, listed)


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
def test_only_a_listed_key_is_let_in(
    request_: list[bytes], name_of: Callable[[bytes], str | None], status: bytes
) -> None:
    """Everything else is refused, and every answer has six parts and the number of its question."""
    reply = verdict(request_, name_of)
    assert len(reply) == 6
    assert (reply[0], reply[2]) == (b"1.0", status)
    assert reply[1] == (request_[1] if request_ else b"")


def test_half_a_pair_is_one_line(folder: Path) -> None:
    """Both keys or none."""
    assert curve_of(None, None) is None
    assert curve_of(folder / "daemon.key", folder / "listed.key_secret")
    with pytest.raises(ConfigError, match="one is missing"):
        curve_of(folder / "daemon.key", None)


def test_keys_that_cannot_be_read_are_one_line(folder: Path) -> None:
    """The door isn't built with anything missing."""
    for secret, clients in (("missing.key_secret", "clients"), ("daemon.key_secret", "missing")):
        with pytest.raises(ConfigError, match=r"cannot read the (key|folder)"):
            Authenticator(folder / secret, folder / clients)


def test_a_secret_is_not_printed(folder: Path) -> None:
    """Neither side's keys show theirs in a traceback."""
    pair = keys.read_pair(folder / "listed.key_secret")
    assert pair.secret.decode() not in repr(pair) + repr(curve(folder, "listed"))
