"""One test for each attack, on a real server."""

from __future__ import annotations

import http.client
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perceiverd.web import connections, feed, guard
from tests.support import messages
from tests.support.history import Store, event
from tests.support.pages import DEADLINE_S, Browser, Follower, PageProcess, served, until
from tests.support.running_daemon import RunningDaemon
from tests.web.conftest import PASSWORD

HOSTILE = "<img src=x onerror=alert(1)>\"'\r\n\r\nevent: x\ndata: \u2028../../\x1b[2J"


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    """A plain connection."""
    with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as client:
        yield client


def raw(port: int, request: bytes) -> bytes:
    """The whole answer to these bytes."""
    with connected(port) as client:
        client.sendall(request)
        answer = b""
        try:
            while data := client.recv(65_536):
                answer += data
        except ConnectionError:
            pass
        return answer


@pytest.mark.parametrize(
    "path",
    [
        "/api/1/events/../../../../etc/passwd/media/picture",
        "/api/1/events/%2e%2e%2f%2e%2e%2fetc%2fpasswd/media/picture",
        "/api/1/events/1/media/..%2f..%2fpicture",
        "/api/1/events/1/media/picture%00.jpg",
        "/api/1/events/-1/media/picture",
        "/api/1/events/1e3",
        "/api/1/events/99999999999999999999999999/media/clip",
        "/static/../service.py",
        "/static/%2e%2e/service.py",
        "/static//etc/passwd",
        "/api/1/corrections/..%2f..%2fcorrections.jsonl",
    ],
)
def test_paths_in_identifiers_lead_nowhere(page: PageProcess, path: str) -> None:
    """An id is a number, a kind is one of four words, and static files are those that were there at the start."""
    answer = page.browser().get(path)
    assert answer.status in (400, 404), answer.body
    assert b"root:" not in answer.body and b"uvicorn" not in answer.body


def test_media_is_never_read_outside_of_its_folder(tmp_path: Path, daemon: RunningDaemon) -> None:
    """Whatever a daemon names as its files: other paths, links, links in folders, pipes and folders are not served."""
    media = tmp_path / "snaps"
    (media / "sub").mkdir(parents=True)
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"secret")
    (media / "link.jpg").symlink_to(secret)
    (media / "out").symlink_to(tmp_path)
    (media / "folder.jpg").mkdir()
    os.mkfifo(media / "pipe.jpg")
    (media / "sub" / "good.jpg").write_bytes(b"good")
    paths = {
        secret: 404,
        media / ".." / "secret.jpg": 404,
        media / "sub" / ".." / ".." / "secret.jpg": 404,
        media / "link.jpg": 404,
        media / "out" / "secret.jpg": 404,
        media / "folder.jpg": 404,
        media / "pipe.jpg": 404,
        f"{media}/sub/good.jpg\0": 404,
        "secret.jpg": 404,
        "http://127.0.0.1/x.jpg": 404,
        "/etc/passwd": 404,
        media / "sub" / "good.jpg": 200,
    }
    store = Store(tmp_path)
    store.begin()
    for number, path in enumerate(paths):
        ended = msgspec.structs.replace(event("end", "Dog", 100 * number, 100 * number + 3), snapshot=str(path))
        store.receive(100 * number + 3, event("begin", "Dog", 100 * number, 100 * number + 1), ended)
    store.writer.connection.close()
    options = ("--endpoint", f"house={daemon.endpoint}", "--history", str(tmp_path), "--media", str(media))
    with served(tmp_path, *options) as page:
        browser = page.browser()
        listed = browser.get("/api/1/events?limit=500").json["events"]
        found = {each["start"]: each for each in listed}
        got = [browser.get(f"/api/1/events/{found[start]['id']}/media/picture").status for start in sorted(found)]
        assert got == list(paths.values())
        assert [found[start]["picture"] for start in sorted(found)] == [status == 200 for status in got]


def test_large_requests_are_refused(page: PageProcess) -> None:
    """A body that says its size is refused before it is sent; one that does not, as soon as it is too large."""
    browser = page.browser()
    browser.fetch_session()
    body = {"verdict": "right", "label": "x" * guard.MOST_BODY_BYTES}
    assert browser.post("/api/1/corrections", body).status == 413
    head = f"POST /api/1/corrections HTTP/1.1\r\nHost: localhost\r\nCookie: {browser.cookie}\r\n"
    head += f"X-CSRF-Token: {browser.csrf}\r\nContent-Type: application/json\r\n"
    chunk = b"%x\r\n%b\r\n" % (8192, b"x" * 8192)
    answer = raw(page.port, f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunk * 9 + b"0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413")
    answer = raw(page.port, f"{head}Content-Length: 99999999999999999999999\r\n\r\n".encode())
    assert answer.startswith((b"HTTP/1.1 413", b"HTTP/1.1 400"))
    headers = b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 64 * connections.MOST_HEAD_BYTES + b"\r\n\r\n"
    assert raw(page.port, headers)[:12] in (b"HTTP/1.1 400", b"")  # cut while it still sends
    nested = raw(page.port, f"{head}Content-Length: 60000\r\nConnection: close\r\n\r\n".encode() + b"[" * 60_000)
    assert nested.startswith(b"HTTP/1.1 400")
    assert page.browser().get("/api/1/about").status == 200


@pytest.mark.long
def test_slow_requests_are_cut(tmp_path: Path, daemon: RunningDaemon) -> None:
    """Connections that send nothing, half a head, a slow head or half a body end within a bound; others are served."""
    with served(tmp_path, "--endpoint", daemon.endpoint) as page, ExitStack() as stack:
        browser = page.browser()
        browser.fetch_session()
        post = f"POST /api/1/corrections HTTP/1.1\r\nHost: localhost\r\nCookie: {browser.cookie}\r\n"
        post += f"X-CSRF-Token: {browser.csrf}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"
        clients = [stack.enter_context(connected(page.port)) for _ in range(4)]
        half, dripping, body, _ = clients
        half.sendall(b"GET / HTTP/1.1\r\nHost: loc")
        body.sendall(post.encode())
        for client in clients:
            client.setblocking(False)
        open_, until_s = set(clients), time.monotonic() + DEADLINE_S
        while open_:
            assert time.monotonic() < until_s
            assert browser.get("/api/1/about").status == 200
            for client in list(open_):
                try:
                    if client is dripping:
                        client.sendall(b"G")
                    if not client.recv(1000):
                        open_.remove(client)
                except BlockingIOError:
                    pass
                except OSError:
                    open_.remove(client)
            time.sleep(0.2)


@pytest.mark.long
def test_a_thousand_followers(tmp_path: Path, daemon: RunningDaemon) -> None:
    """Those above the bound are refused with 503; the others, and other requests, are served as before."""
    with served(tmp_path, "--endpoint", daemon.endpoint) as page, ExitStack() as stack:
        first = Follower(page.port)
        stack.callback(first.close)
        first.next("streams")
        answers: dict[bytes, int] = {}
        clients = []
        for _ in range(1000):
            client = stack.enter_context(connected(page.port))
            client.sendall(b"GET /api/1/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            try:
                status = client.recv(12)
            except ConnectionError:
                status = b""
            answers[status] = answers.get(status, 0) + 1
            clients.append(client)
        assert answers[b"HTTP/1.1 200"] == feed.MOST_CLIENTS - 1
        assert answers[b"HTTP/1.1 503"] + answers.get(b"", 0) == 1000 - (feed.MOST_CLIENTS - 1)
        assert first.next("stream")["machine"] == "local"
        for client in clients:
            client.close()
        until(lambda: page.browser().get("/api/1/about").status == 200)

        def admitted() -> bool:
            follower = Follower(page.port)
            follower.close()
            return follower.response.status == 200

        until(admitted)  # as soon as others have left


def test_a_browser_that_does_not_read(page: PageProcess, daemon: RunningDaemon) -> None:
    """It keeps at most the bound of waiting events and delays no other browser."""
    with connected(page.port) as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.sendall(b"GET /api/1/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        other = Follower(page.port)
        for first in range(1, 1500, 50):  # in parts, which the other one reads in time
            for number in range(first, first + 50):
                daemon.send(messages.event("begin", number, "yard"), messages.event("end", number, "yard"))
            last: Any = {}
            while (last.get("key"), last.get("state")) != (str(first + 49), "ended"):
                last = other.next("event")
        other.close()


def test_wrong_passwords_are_limited(guarded: PageProcess) -> None:
    """Five from one address, then 429 with a time; another address, and whoever is signed in, are not affected."""
    attacker = guarded.browser(x_forwarded_for="203.0.113.9")
    attacker.fetch_session()
    answers = [attacker.post("/api/1/session", {"password": f"guess {i}"}) for i in range(8)]
    assert [each.status for each in answers] == [401] * 5 + [429] * 3
    assert answers[0].error == "the password is wrong"
    assert 0 < int(answers[-1].headers["retry-after"]) <= 30
    assert attacker.post("/api/1/session", {"password": PASSWORD}).status == 429
    forged = guarded.browser(x_forwarded_for="198.51.100.1, 203.0.113.9")  # the proxy appends what it saw
    forged.fetch_session()
    assert forged.post("/api/1/session", {"password": "guess"}).status == 429
    user = guarded.browser(x_forwarded_for="203.0.113.10")
    assert user.sign_in(PASSWORD).status == 204
    assert user.get("/api/1/events").status == 200
    assert attacker.get("/api/1/events").status == 401
    assert guarded.log.read_text().count("login-failed address=203.0.113.9") == 5


def test_nothing_is_answered_without_a_session(guarded: PageProcess) -> None:
    """Every path of the API but the session needs one, also after signing out and with a made-up cookie."""
    browser = guarded.browser()
    paths = ["about", "streams", "live", "events", "events/1", "day?date=2026-01-31", "labels", "statistics"]
    paths += ["corrections", "openapi.json", "nothing", "events/1/media/picture"]
    assert {browser.get(f"/api/1/{path}").status for path in paths} == {401}
    browser.cookie = "perceiverd_session=" + "a" * 43
    assert browser.get("/api/1/about").status == 401
    browser.cookie = ""
    assert browser.sign_in(PASSWORD).status == 204
    before = browser.cookie
    follower = Follower(guarded.port, Cookie=browser.cookie)
    follower.next("streams")
    assert browser.delete("/api/1/session").status == 204
    browser.cookie = before
    assert browser.get("/api/1/about").status == 401
    with pytest.raises(AssertionError, match="the stream has ended"):
        follower.next("nothing")
    follower.close()


def test_other_sites_cannot_send_requests(guarded: PageProcess) -> None:
    """Without the token, with the token of another session, or by a page of another origin: refused."""
    browser, other = guarded.browser(), guarded.browser()
    assert browser.sign_in(PASSWORD).status == 204
    other.fetch_session()
    token = browser.csrf
    for wrong in ("", "0" * 64, other.csrf, "\u00e9".encode("latin-1").decode("latin-1")):
        browser.csrf = wrong
        assert browser.delete("/api/1/session").status == 403
        assert browser.post("/api/1/session", {"password": PASSWORD}).status == 403
    browser.csrf = token
    assert browser.get("/api/1/events", sec_fetch_site="cross-site").status == 403
    assert browser.get("/api/1/events", sec_fetch_site="same-origin").status == 200
    form = {"Content-Type": "text/plain"}
    answer = browser._request("POST", "/api/1/session", {"X-CSRF-Token": token, **form}, b'{"password": "x"}')
    assert answer.status == 415
    cookie = guarded.browser().get("/api/1/session").headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert "access-control-allow-origin" not in {name.lower() for name in answer.headers}


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "a:b", "[::1"]
)
def test_foreign_hosts_are_refused(page: PageProcess, host: str) -> None:
    """A site whose name was given our address (DNS rebinding) gets nothing; addresses and localhost are answered."""
    assert page.browser(host=host).get("/api/1/about").status in (400, 421)
    for own in ("localhost", "LOCALHOST:8480", "127.0.0.1:1", "[::1]:8480", "192.0.2.7"):
        assert page.browser(host=own).get("/api/1/about").status == 200


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    """Names of streams and labels are data in JSON and in server-sent events, and never end or begin a line there."""
    with RunningDaemon((HOSTILE,)) as daemon:
        store = Store(tmp_path)
        made = msgspec.structs.replace(event("begin", "Dog", 0, 2, stream=HOSTILE), name=HOSTILE, mid=HOSTILE[:20])
        store.receive(2, made)
        store.writer.connection.close()
        with served(tmp_path, "--endpoint", daemon.endpoint, "--history", str(tmp_path)) as page:
            until(lambda: page.browser().get("/api/1/streams").json["streams"])
            follower = Follower(page.port)
            assert follower.next("streams")["streams"][0]["stream"] == HOSTILE
            daemon.send(msgspec.structs.replace(messages.event("begin", 1, HOSTILE), name=HOSTILE))
            assert follower.next("event")["name"] == HOSTILE
            follower.close()
            answer = page.browser().get("/api/1/events")
            assert answer.headers["content-type"] == "application/json"
            assert [each["name"] for each in answer.json["events"]] == [HOSTILE]
            assert page.process.poll() is None


def test_every_answer_has_the_headers(page: PageProcess) -> None:
    """Also refusals and what does not exist: a policy without inline code, no sniffing, no frames, no caching."""
    browser = page.browser()
    for answer in (browser.get("/api/1/about"), browser.get("/nothing"), page.browser(host="x").get("/")):
        assert answer.headers["Content-Security-Policy"] == guard.POLICY
        assert "unsafe" not in guard.POLICY and "frame-ancestors 'none'" in guard.POLICY
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert "server" not in {name.lower() for name in answer.headers}


def test_methods_that_do_not_exist(page: PageProcess) -> None:
    """They are refused, and nothing but POST and DELETE of the API changes anything."""
    browser = page.browser()
    assert browser.request("PUT", "/").status == 405
    assert browser.request("TRACE", "/api/1/about").status in (403, 405)
    browser.fetch_session()
    assert browser.delete("/api/1/events/1").status == 405
    assert raw(page.port, b"NONSENSE\r\n\r\n").startswith(b"HTTP/1.1 400")
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=DEADLINE_S)
    connection.request("GET", "/api/1/about", headers={"Upgrade": "websocket", "Connection": "Upgrade"})
    assert connection.getresponse().status == 200
    connection.close()


def test_a_browser_follows_no_stream_that_does_not_exist(page: PageProcess) -> None:
    """A name in a request never becomes a subscription unless a daemon has announced it."""
    browser: Browser = page.browser()
    assert browser.get("/api/1/live?explain=house/").status == 404
    assert browser.get("/api/1/live?explain=../door").status == 404
