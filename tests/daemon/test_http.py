"""The little HTTP server, on real sockets, among peers that mean it no good."""

import http.client
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from perceiverd.core.errors import WireError
from perceiverd.daemon.http import LONGEST_REQUEST, MOST_CONNECTIONS, Page, Reply, Server

DEADLINE_S = 30


def broken(accept: str) -> Reply:
    raise ZeroDivisionError


PAGES: dict[str, Page] = {
    "/a": lambda accept: Reply(f"accept={accept}".encode(), "text/x"),
    "/big": lambda accept: Reply(bytes(20_000_000)),
    "/broken": broken,
}


@pytest.fixture
def server() -> Iterator[Server]:
    with Server("127.0.0.1", 0, PAGES) as running:
        yield running


def get(server: Server, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE_S)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), DEADLINE_S)


def until(done: Callable[[], bool]) -> None:
    end_s = time.monotonic() + DEADLINE_S
    while not done():
        assert time.monotonic() < end_s
        time.sleep(0.02)


def test_pages_are_answered(server: Server) -> None:
    """By path, whatever the query; HEAD without the body."""
    assert get(server, "/a", Accept="b") == (200, b"accept=b")
    assert get(server, "/a?b=c") == (200, b"accept=")
    assert get(server, "/a", "HEAD") == (200, b"")


def test_what_is_not_there_is_told(server: Server) -> None:
    """Other paths and methods are answered with what there is."""
    assert get(server, "/") == (404, b"not here; there are /a /big /broken\n")
    assert get(server, "/a", "POST") == (405, b"only GET and HEAD\n")


def test_a_broken_page_harms_no_other(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """It is a 500, with the traceback in the log."""
    assert get(server, "/broken")[0] == 500
    assert get(server, "/a")[0] == 200
    assert [record.message for record in caplog.records] == ["page-failed path=/broken"]


@pytest.mark.parametrize(
    "request_",
    [b"\0\xff\r\n\r\n", b"\r\n\r\n", b"GET /a", b"x" * 2 * LONGEST_REQUEST, b"GET " + b"/" * 10**6],
    ids=["bytes", "nothing", "half", "long", "endless"],
)
def test_garbage_is_nothing(server: Server, request_: bytes) -> None:
    """What is no request, or too long, gets an error or a closed connection; the next peer is served."""
    with connect(server) as peer:
        try:
            peer.sendall(request_)
            peer.shutdown(socket.SHUT_WR)
            answer = peer.recv(100)
        except OSError:  # cut off amid it
            answer = b""
    assert answer == b"" or answer.startswith(b"HTTP/1.1 40")
    assert get(server, "/a")[0] == 200


def test_a_slow_peer_is_let_go(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that sends byte after byte, each in time, does not get more time for it; nor does one that never reads."""
    monkeypatch.setattr(http, "ANSWER_S", 0.5)
    with connect(server) as trickling, connect(server) as deaf:
        deaf.sendall(b"GET /big HTTP/1.1\r\n\r\n")

        def cut() -> bool:
            try:
                trickling.sendall(b"x")
            except (BrokenPipeError, ConnectionResetError):
                return True
            return False

        until(cut)
        until(lambda: server._open == 0)
        assert get(server, "/a")[0] == 200


def test_too_many_peers_are_turned_away(server: Server) -> None:
    """What comes on top is closed at once; when others leave there is room again."""
    peers = [connect(server) for _ in range(MOST_CONNECTIONS)]
    try:
        until(lambda: server._open == MOST_CONNECTIONS)
        with connect(server) as above:
            assert above.recv(1) == b""
    finally:
        for peer in peers:
            peer.close()
    until(lambda: server._open == 0)
    assert get(server, "/a")[0] == 200


def test_the_end_is_an_end() -> None:
    """Also with a peer that hangs on: afterwards nobody listens, and the thread is gone."""
    with Server("localhost", 0, PAGES) as server:
        peer = connect(server)
    with peer, pytest.raises(ConnectionRefusedError):
        connect(server)
    assert "httpd" not in {thread.name for thread in threading.enumerate()}


def test_its_death_is_told_and_hurts_nobody(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """A fault that nobody foresaw ends the thread with a line and a traceback, and the context still closes."""
    server._loop.call_soon_threadsafe(server._loop.stop)
    until(lambda: not server._thread.is_alive())
    assert f"httpd-died port={server.port}" in caplog.text


def test_ipv6_is_served() -> None:
    """Where the machine has it."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    with Server("::1", 0, PAGES) as server, socket.create_connection(("::1", server.port), DEADLINE_S) as peer:
        peer.sendall(b"GET /a HTTP/1.0\r\n\r\n")
        assert peer.recv(100).startswith(b"HTTP/1.1 200 OK")


def test_an_address_that_is_taken_is_one_line(server: Server) -> None:
    """It names the option."""
    with pytest.raises(WireError, match=rf"127\.0\.0\.1:{server.port}: .* choose another metrics\.endpoint"):
        Server("127.0.0.1", server.port, PAGES)


def test_the_log_is_quiet(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """A scrape leaves no line."""
    with caplog.at_level(logging.INFO):
        get(server, "/a")
    assert not caplog.records
