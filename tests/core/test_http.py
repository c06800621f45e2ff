"""The HTTP server, on real sockets, with clients that are slow, broken or hostile."""

import http.client
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from perceiverd.core import http as http_server
from perceiverd.core.errors import WireError
from perceiverd.core.http import LONGEST_REQUEST, MOST_CONNECTIONS, Page, Reply, Server

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
    """A query is ignored, and HEAD gets no body."""
    assert get(server, "/a", Accept="b") == (200, b"accept=b")
    assert get(server, "/a?b=c") == (200, b"accept=")
    assert get(server, "/a", "HEAD") == (200, b"")


def test_unknown_paths_and_methods_get_a_hint(server: Server) -> None:
    """The answer lists the paths and methods that exist."""
    assert get(server, "/") == (404, b"unknown path; use one of /a /big /broken\n")
    assert get(server, "/a", "POST") == (405, b"only GET and HEAD\n")


def test_a_broken_page_harms_no_other(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """It answers 500, and the log has the traceback."""
    assert get(server, "/broken")[0] == 500
    assert get(server, "/a")[0] == 200
    assert [record.message for record in caplog.records] == ["page-failed path=/broken"]
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    "request_",
    [b"\0\xff\r\n\r\n", b"\r\n\r\n", b"GET /a", b"x" * 2 * LONGEST_REQUEST, b"GET " + b"/" * 10**6],
    ids=["bytes", "nothing", "half", "long", "endless"],
)
def test_garbage_gets_an_error(server: Server, request_: bytes) -> None:
    """An invalid or too long request gets an error or a closed connection; the next client is served."""
    with connect(server) as client:
        try:
            client.sendall(request_)
            client.shutdown(socket.SHUT_WR)
            answer = client.recv(100)
        except OSError:  # the server closed the connection earlier
            answer = b""
    assert answer == b"" or answer.startswith(b"HTTP/1.1 40")
    assert get(server, "/a")[0] == 200


def test_a_slow_client_is_disconnected(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that sends byte after byte gets no more time; nor does one that never reads."""
    monkeypatch.setattr(http_server, "ANSWER_S", 0.5)
    with connect(server) as trickling, connect(server) as never_reading:
        never_reading.sendall(b"GET /big HTTP/1.1\r\n\r\n")

        def cut() -> bool:
            try:
                trickling.sendall(b"x")
            except (BrokenPipeError, ConnectionResetError):
                return True
            return False

        until(cut)
        until(lambda: server._open == 0)
        assert get(server, "/a")[0] == 200


def test_too_many_clients_are_refused(server: Server) -> None:
    """A further connection is closed at once; when others have left there is room again."""
    clients = [connect(server) for _ in range(MOST_CONNECTIONS)]
    try:
        until(lambda: server._open == MOST_CONNECTIONS)
        with connect(server) as above:
            assert above.recv(1) == b""
    finally:
        for client in clients:
            client.close()
    until(lambda: server._open == 0)
    assert get(server, "/a")[0] == 200


def test_the_end_closes_everything() -> None:
    """Even with an open connection: afterwards the port is closed, and the thread has ended."""
    with Server("localhost", 0, PAGES) as server:
        client = connect(server)
    with client, pytest.raises(ConnectionRefusedError):
        connect(server)
    assert "httpd" not in {thread.name for thread in threading.enumerate()}


def test_a_dead_server_is_logged_and_stops_nothing(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """An unexpected fault ends the thread with a log line and a traceback, and the context still closes."""
    server._loop.call_soon_threadsafe(server._loop.stop)
    until(lambda: not server._thread.is_alive())
    assert f"http-server-died port={server.port}" in caplog.text


def test_ipv6_is_served() -> None:
    """The server answers at an IPv6 address, if the machine has IPv6."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    with Server("::1", 0, PAGES) as server, socket.create_connection(("::1", server.port), DEADLINE_S) as client:
        client.sendall(b"GET /a HTTP/1.0\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200 OK")


def test_an_address_in_use_is_one_line(server: Server) -> None:
    """The error names the option."""
    with pytest.raises(WireError, match=rf"127\.0\.0\.1:{server.port}: .* choose another metrics\.endpoint"):
        Server("127.0.0.1", server.port, PAGES)


def test_requests_are_not_logged(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """A scrape writes no line."""
    with caplog.at_level(logging.INFO):
        get(server, "/a")
    assert not caplog.records
