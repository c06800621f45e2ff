"""Everything that is checked before a request reaches a handler, and the headers of every answer.

In this order: the prefix, the Host header (a page of another site could give its name our address: DNS rebinding),
requests that another site's page makes, the session, the CSRF token, the size and speed of the body. Pure ASGI, so that
no handler can be reached without it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from perceiverd.web.answers import FaultAnswer
from perceiverd.web.sessions import Sessions, token_of

MOST_BODY_BYTES = 65_536
BODY_S = 10.0
"""Within this time a request's body must have arrived."""
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "media-src 'self' blob:",
        "connect-src 'self'",
        "font-src 'self'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}
SAFE = ("GET", "HEAD")
API = "/api/"
OPEN_PATHS = ("/api/1/session",)
"""Paths of the API that need no session."""
FOREIGN = ("cross-site", "same-site")
"""Values of Sec-Fetch-Site for requests that a page of another origin makes."""


@dataclass(slots=True)
class RefusedRequests:
    """How many requests were refused, by reason."""

    counts: dict[str, int] = field(default_factory=dict)

    def add(self, reason: str) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + 1


class Refusal(Exception):  # noqa: N818 - no error of the program
    """A request that is answered with this status."""

    def __init__(self, status: int, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.reason, self.sentence = status, reason, sentence


@dataclass(frozen=True, slots=True)
class GuardRules:
    """What the guard knows."""

    sessions: Sessions
    needs_password: bool
    hosts: frozenset[str]
    prefix: str
    proxies: tuple[str, ...]
    is_unix: bool


class Guard:
    """ASGI middleware. It adds `token`, `signed_in`, `body` and `client_address` to the scope's state."""

    def __init__(self, app: ASGIApp, rules: GuardRules, refused: RefusedRequests) -> None:
        self._app, self._rules, self._refused = app, rules, refused
        self._networks = [ipaddress.ip_network(each) for each in rules.proxies]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = _headers(scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_extra(message["headers"])]
            await send(message)

        try:
            inner = self._checked(scope, headers)
            if redirect := inner.get("redirect"):
                await _redirect(send_with_headers, redirect)
                return
            if scope["method"] not in SAFE:
                inner["state"]["body"] = await _body(headers, receive)
        except Refusal as refusal:
            self._refused.add(refusal.reason)
            await refuse(send_with_headers, refusal.status, refusal.sentence)
            return
        await self._app(inner, receive, send_with_headers)

    def _checked(self, scope: Scope, headers: dict[str, str]) -> MutableMapping[str, Any]:
        """The scope for the handler. Raises Refusal."""
        rules, inner = self._rules, dict(scope)
        path = scope["path"]
        if rules.prefix and path == rules.prefix:
            return {"redirect": f"{rules.prefix}/"}
        if rules.prefix and path.startswith(f"{rules.prefix}/"):
            path = path.removeprefix(rules.prefix)
        # One path for routing, whatever the proxy has done with the prefix.
        inner |= {"path": path, "root_path": "", "raw_path": path.encode()}
        self._check_host(headers.get("host", ""))
        self._read_proxy(inner, headers)
        token = token_of(headers.get("cookie", ""))
        signed_in = not rules.needs_password or rules.sessions.has(token, time.monotonic())
        inner["state"] = {"token": token, "signed_in": signed_in, "body": b"", "headers": headers}
        if path.startswith(API):
            self._check_api(inner, headers, token, signed_in)
        elif scope["method"] not in SAFE:
            raise Refusal(405, "method", "the page can only be read")
        return inner

    def _check_api(self, scope: MutableMapping[str, Any], headers: dict[str, str], token: str, signed_in: bool) -> None:
        if headers.get("sec-fetch-site") in FOREIGN:
            raise Refusal(403, "foreign", "a page of another site has made this request; open our own page")
        if not signed_in and scope["path"] not in OPEN_PATHS:
            raise Refusal(401, "session", "sign in first")
        if scope["method"] not in SAFE and not self._rules.sessions.is_csrf(token, headers.get("x-csrf-token", "")):
            raise Refusal(403, "csrf", "the header X-CSRF-Token is missing or old; fetch api/1/session and try again")

    def _check_host(self, host: str) -> None:
        name = host_name(host)
        if name is None or not (name == "localhost" or is_address(name) or name in self._rules.hosts):
            raise Refusal(
                421, "host", "this server does not answer for the name in the Host header; add it to server.hosts"
            )

    def _read_proxy(self, scope: MutableMapping[str, Any], headers: dict[str, str]) -> None:
        """Take the client's address and the scheme from a proxy that is believed."""
        peer = scope["client"][0] if scope.get("client") else ""
        scope["client_address"] = peer
        if not (self._rules.is_unix or self._believed(peer)):
            return
        # Several proxies make a list. One that encrypts is enough: the cookie must not be sent in the clear.
        schemes = [each.strip().lower() for each in headers.get("x-forwarded-proto", "").split(",")]
        if "https" in schemes or "http" in schemes:
            scope["scheme"] = "https" if "https" in schemes else "http"
        # Each proxy appends the address that it saw: the last one that is no proxy of ours is the client.
        for address in reversed(headers.get("x-forwarded-for", "").split(",")):
            if address.strip():
                scope["client_address"] = address.strip()
                if not self._believed(address.strip()):
                    return

    def _believed(self, address: str) -> bool:
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(found in network for network in self._networks)


def host_name(host: str) -> str | None:
    """The name in a Host header, in lower case and without its port; None if it is none."""
    name, colon, port = host.rpartition(":") if not host.endswith("]") else (host, "", "")
    if not colon:
        name = host
    if colon and not port.isdecimal():
        return None
    return name.lower().removeprefix("[").removesuffix("]").removesuffix(".") or None


def is_address(name: str) -> bool:
    """Whether it is an IP address. Such a request cannot come from a name that another site controls."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


async def refuse(send: Send, status: int, sentence: str) -> None:
    """Answer with this status and sentence, and close the connection: a body may still be on its way."""
    body = msgspec.json.encode(FaultAnswer(sentence))
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(b"connection", b"close"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _redirect(send: Send, place: str) -> None:
    headers = [(b"location", place.encode()), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 308, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def _body(headers: dict[str, str], receive: Receive) -> bytes:
    """The whole body. Raises Refusal if it is too large, too slow or no JSON."""
    too_large = Refusal(413, "size", f"a request has at most {MOST_BODY_BYTES} bytes")
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length[:20]) > MOST_BODY_BYTES:
        raise too_large
    body = b""
    try:
        async with asyncio.timeout(BODY_S):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise Refusal(400, "left", "the request ended early")
                body += bytes(message.get("body", b""))
                if len(body) > MOST_BODY_BYTES:
                    raise too_large
                if not message.get("more_body"):
                    break
    except TimeoutError:
        raise Refusal(408, "slow", f"the request did not arrive within {BODY_S:.0f} s") from None
    if body and headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refusal(415, "type", "send JSON with Content-Type: application/json")
    return body


def _headers(scope: Scope) -> dict[str, str]:
    """The headers by name; of one that is repeated, all values with commas, for cookies with semicolons."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        separator = "; " if key == "cookie" else ", "
        found[key] = f"{found[key]}{separator}{text}" if key in found else text
    return found


def _extra(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers that every answer has, and `no-store` if the handler says nothing about caching."""
    given = {name.lower() for name, _ in headers}
    extra = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
    return extra if b"cache-control" in given else [*extra, (b"cache-control", b"no-store")]
