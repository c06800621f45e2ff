"""A real server of the page for tests, and a plain client of it: real sockets, no mocks."""

from __future__ import annotations

import hashlib
import http.client
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perceiverd.web.passwords import PasswordHash
from tests.support.program import PROGRAM

DEADLINE_S = 100
"""Programs that start on a very busy machine take a minute."""


@dataclass
class Answer:
    """What a server answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The sentence of a fault."""
        text: str = self.json["error"]
        return text


@dataclass
class Browser:
    """Requests as a browser makes them: with its cookie, and the CSRF token that it fetched."""

    port: int
    prefix: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    cookie: str = ""
    csrf: str = ""

    def get(self, path: str, **headers: str) -> Answer:
        return self.request("GET", path, **headers)

    def post(self, path: str, body: object, **headers: str) -> Answer:
        given = {"Content-Type": "application/json", "X-CSRF-Token": self.csrf, **_named(headers)}
        return self._request("POST", path, given, json.dumps(body).encode())

    def delete(self, path: str, **headers: str) -> Answer:
        return self._request("DELETE", path, {"X-CSRF-Token": self.csrf, **_named(headers)})

    def request(self, method: str, path: str, **headers: str) -> Answer:
        return self._request(method, path, _named(headers))

    def fetch_session(self) -> Any:
        """Ask for the session, and keep its CSRF token."""
        state = self.get("/api/1/session").json
        self.csrf = state["csrf"]
        return state

    def sign_in(self, password: str) -> Answer:
        self.fetch_session()
        answer = self.post("/api/1/session", {"password": password})
        if answer.status == 204:
            self.fetch_session()
        return answer

    def _request(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None) -> Answer:
        given = {**self.headers, **headers}
        if self.cookie:
            given["Cookie"] = self.cookie
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        try:
            connection.request(method, self.prefix + path, body, given)
            response = connection.getresponse()
            answer = Answer(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()
        for name, value in answer.headers.items():
            if name.lower() == "set-cookie":
                self.cookie = value.partition(";")[0]
        return answer


def _named(headers: Mapping[str, str]) -> dict[str, str]:
    """`x_csrf_token` becomes `x-csrf-token`."""
    return {name.replace("_", "-"): value for name, value in headers.items()}


@dataclass
class PageProcess:
    """A running `perceiverd web`."""

    process: subprocess.Popen[bytes]
    log: Path
    port: int

    def browser(self, prefix: str = "", **headers: str) -> Browser:
        return Browser(self.port, prefix, _named(headers))


class Follower:
    """A browser that follows live."""

    def __init__(self, port: int, path: str = "/api/1/live", **headers: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
        self.connection.request("GET", path, headers=headers)
        self.response = self.connection.getresponse()

    def next(self, kind: str) -> Any:
        """The data of the next event of this kind."""
        while True:
            line = self.response.readline()
            assert line, "the stream has ended"
            if line == f"event: {kind}\n".encode():
                return json.loads(self.response.readline().removeprefix(b"data: "))

    def close(self) -> None:
        self.response.close()
        self.connection.close()


@contextmanager
def served(folder: Path, *options: str, meanwhile: Callable[[], object] = lambda: None) -> Iterator[PageProcess]:
    """`perceiverd web` at a free port, as a process; `meanwhile` is called while it starts."""
    log = folder / "web.log"
    listen = () if "--config" in options else ("--listen", "127.0.0.1:*")
    with log.open("w") as output:
        process = subprocess.Popen([*PROGRAM, "web", *listen, *options], stdout=output, stderr=output)
    try:
        until(lambda: "web-started" in log.read_text() or process.poll() is not None, meanwhile, log)
        assert process.poll() is None, log.read_text()
        place = log.read_text().partition("web-started page=")[2].split()[0]
        port = int(place.removeprefix("http://127.0.0.1:").partition("/")[0]) if place.startswith("http") else 0
        yield PageProcess(process, log, port)
    finally:
        process.kill()
        process.wait()


def until(done: Callable[[], object], meanwhile: Callable[[], object] = lambda: None, log: Path | None = None) -> None:
    """Call `meanwhile` until `done`."""
    end_s = time.monotonic() + DEADLINE_S
    while not done():
        assert time.monotonic() < end_s, log.read_text() if log else "not done in time"
        meanwhile()
        time.sleep(0.01)


def password_file(folder: Path, password: str) -> Path:
    """A file with the hash of this password, which is cheap to check: a test has no time for a hundred guesses."""
    path, salt = folder / "password", b"sixteen bytes..."
    PasswordHash(salt, hashlib.scrypt(password.encode(), salt=salt, n=2, r=8, p=1), cost=2).write(path)
    return path
