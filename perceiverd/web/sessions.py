"""Who is signed in. A browser has a random token in a cookie; of each token the server keeps only a hash.

Pure but for randomness: the caller passes the time.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Literal

COOKIE = "perceiverd_session"
TOKEN_BYTES = 32
TOKEN_LETTERS = 43
"""Of a token in the cookie: 32 bytes in base64."""
MOST_SESSIONS = 1000
"""Sessions at one time; a further one ends the oldest."""


def new_token() -> str:
    """A token that nobody can guess."""
    return secrets.token_urlsafe(TOKEN_BYTES)


@dataclass(slots=True)
class Sessions:
    """All sessions of this process; a restart ends them."""

    lasts_s: float
    _key: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    _ends_s: OrderedDict[bytes, float] = field(default_factory=OrderedDict)
    """By the hash of the token: when the session ends."""

    def __len__(self) -> int:
        return len(self._ends_s)

    def begin(self, now_s: float) -> str:
        """Start a session; returns its token."""
        token = new_token()
        self._ends_s[_hash(token)] = now_s + self.lasts_s
        while len(self._ends_s) > MOST_SESSIONS:
            self._ends_s.popitem(last=False)
        return token

    def has(self, token: str, now_s: float) -> bool:
        """Whether this token belongs to a session."""
        key = _hash(token)
        if (ends_s := self._ends_s.get(key)) is None:
            return False
        if now_s >= ends_s:
            del self._ends_s[key]
            return False
        return True

    def end(self, token: str) -> None:
        """End this session, if there is one."""
        self._ends_s.pop(_hash(token), None)

    def csrf(self, token: str) -> str:
        """The text that a request from our own page must repeat: other pages can send the cookie, but not read this."""
        return hmac.new(self._key, token.encode("ascii", "replace"), hashlib.sha256).hexdigest()

    def is_csrf(self, token: str, given: str) -> bool:
        """Whether the request repeated it."""
        return bool(token) and hmac.compare_digest(self.csrf(token).encode(), given.encode("utf-8", "replace"))


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("ascii", "replace")).digest()


def token_of(cookies: str) -> str:
    """The token in a Cookie header; empty if there is none that looks like ours."""
    for pair in cookies.split(";"):
        name, _, value = pair.strip().partition("=")
        if name == COOKIE and len(value) == TOKEN_LETTERS and value.isascii():
            return value
    return ""


def cookie(token: str, path: str, lasts_s: float | None, scheme: Literal["http", "https"] | str) -> str:
    """A Set-Cookie header; `lasts_s` of None is until the browser is closed, 0 removes it."""
    age = "" if lasts_s is None else f"; Max-Age={lasts_s:.0f}"
    secure = "; Secure" if scheme == "https" else ""
    return f"{COOKIE}={token}; Path={path or '/'}; HttpOnly; SameSite=Strict{age}{secure}"
