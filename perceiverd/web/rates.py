"""How often somebody may try to sign in. Pure: the caller passes the time."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass, field

BURST, EACH_S = 5, 30.0
"""Wrong passwords from one address: so many at once, then one in this time."""
ALL_BURST, ALL_EACH_S = 50, 5.0
"""The same for all addresses together, for an attacker who has many."""
MOST_ADDRESSES = 4096
"""Addresses that are remembered; beyond it the one that was used longest ago is forgotten."""


@dataclass(slots=True)
class TokenBucket:
    """Permits a burst, then one in each interval."""

    burst: int
    each_s: float
    tokens: float = 0.0
    at_s: float = 0.0

    def __post_init__(self) -> None:
        self.tokens = float(self.burst)

    def wait_s(self, now_s: float) -> float:
        """How long until the next one is permitted; 0 if it is now."""
        self.tokens = min(self.burst, self.tokens + (now_s - self.at_s) / self.each_s) if self.at_s else self.tokens
        self.at_s = now_s
        return 0.0 if self.tokens >= 1 else (1 - self.tokens) * self.each_s

    def take(self) -> None:
        self.tokens -= 1

    def give_back(self) -> None:
        self.tokens = min(self.burst, self.tokens + 1)


@dataclass(slots=True)
class LoginLimit:
    """The attempts of all addresses."""

    refused: int = 0
    """Attempts that came too soon."""
    _all: TokenBucket = field(default_factory=lambda: TokenBucket(ALL_BURST, ALL_EACH_S))
    _each: OrderedDict[str, TokenBucket] = field(default_factory=OrderedDict)

    def begin(self, address: str, now_s: float) -> float:
        """Count an attempt. Returns 0 if it may go on, otherwise after how many seconds it may be repeated."""
        key = network_of(address)
        bucket = self._each.setdefault(key, TokenBucket(BURST, EACH_S))
        self._each.move_to_end(key)
        while len(self._each) > MOST_ADDRESSES:
            self._each.popitem(last=False)
        if wait_s := max(bucket.wait_s(now_s), self._all.wait_s(now_s)):
            self.refused += 1
            return wait_s
        bucket.take()
        self._all.take()
        return 0.0

    def succeeded(self, address: str) -> None:
        """The password was right: this attempt does not count."""
        if (bucket := self._each.get(network_of(address))) is not None:
            bucket.give_back()
        self._all.give_back()


def network_of(address: str) -> str:
    """What counts as one address: a household has 2^64 addresses of IPv6."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "unknown"
    if found.version == 6 and found.ipv4_mapped is None:
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)
