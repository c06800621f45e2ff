"""A live URL: a network camera over RTSP, an HLS or MJPEG stream over HTTP, a transport stream over UDP, ..."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

from perceiverd.clock import Clock, now_ns
from perceiverd.errors import MediaError
from perceiverd.media import NS_PER_S, Media
from perceiverd.sources import Url, Wanted, container, shown
from perceiverd.sources.file import due_ns, later, paced

CONNECT_S = 2.0
"""What a device may take to take a call. The kernel would double its patience while a network is cut."""
SETTLE_NS = NS_PER_S // 2
"""Opening reads ahead to find out what is there; when arrivals have got no sooner for this long its burst is over."""
SETTLE_MOST_NS = 5 * NS_PER_S
SOONER_NS = NS_PER_S // 50
HELD_ITEMS = 512
BLOCK_NS = 2 * NS_PER_S
STEP_NS = NS_PER_S // 500
"""The time line moves at most this much a block: 1000 ppm, more than any camera's clock is off."""
ASTRAY_NS = 5 * NS_PER_S
"""Media this far from when they should arrive: the sender's clock jumped or this machine does not keep up."""


class ArrivalLine:
    """Maps a sender's time line onto CLOCK_MONOTONIC; one offset for sound and pictures keeps them together.

    What arrives soonest after it was taken was delayed least, so the smallest difference counts. Pure: it is
    told the time.
    """

    def __init__(self) -> None:
        self.offset_ns = 0
        """Add this to a time of the sender."""
        self._first_ns: int | None = None
        self._sooner_ns, self._settled = 0, False
        self._block_ns, self._least_ns = 0, 0

    def arrived(self, media_ns: int, at_ns: int) -> bool:
        """Take note that what the sender finished at `media_ns` came at `at_ns`; True once the line has settled."""
        difference_ns = at_ns - media_ns
        if self._first_ns is None:
            self._first_ns = self._sooner_ns = at_ns
            self.offset_ns = difference_ns
        if not self._settled:
            if difference_ns < self.offset_ns - SOONER_NS:
                self._sooner_ns = at_ns
            self.offset_ns = self._least_ns = min(self.offset_ns, difference_ns)
            self._block_ns = at_ns
            quiet_ns, all_ns = at_ns - self._sooner_ns, at_ns - self._first_ns
            self._settled = quiet_ns >= SETTLE_NS or all_ns >= SETTLE_MOST_NS
            return self._settled
        self._least_ns = min(self._least_ns, difference_ns)
        if at_ns - self._block_ns >= BLOCK_NS:
            self.offset_ns += max(-STEP_NS, min(STEP_NS, self._least_ns - self.offset_ns))
            self._block_ns, self._least_ns = at_ns, difference_ns
        return True

    def astray_ns(self, media_ns: int, at_ns: int) -> int:
        """How much later (negative: earlier) than it should this came."""
        return at_ns - media_ns - self.offset_ns


def media(spec: Url, wanted: Wanted, clock: Clock = now_ns) -> Iterator[Media | None]:
    """Yield live-stamped media as they come; None while nothing is due. Raises MediaError; ends in no other way."""
    options = {"analyzeduration": "2000000"} if spec.pushed else {}  # in microseconds
    if spec.url.lower().startswith("rtsp"):
        options["rtsp_transport"] = spec.transport
        _reach(spec)
    items = container.read(
        spec.url,
        wanted,
        options=options,
        open_timeout_s=spec.open_timeout_s,
        read_timeout_s=spec.read_timeout_s,
        live=True,
    )
    yield from _pushed(spec, items, clock) if spec.pushed else _pulled(spec, items, clock)
    # FFmpeg tells a server's death like the end of a file.
    raise MediaError(f"{shown(spec.url)}: the stream ended; check the device and the network")


def _reach(spec: Url) -> None:
    """Find out whether somebody listens there at all, which tells what is wrong in better words than FFmpeg's."""
    parts = urlsplit(spec.url)
    host, port = parts.hostname or "", parts.port or (322 if parts.scheme.lower() == "rtsps" else 554)
    try:
        socket.create_connection((host, port), min(CONNECT_S, spec.open_timeout_s)).close()
    except OSError as error:
        raise MediaError(f"{shown(spec.url)}: {_unreached(host, port, error)}") from None


def _unreached(host: str, port: int, error: OSError) -> str:
    match error:
        case socket.gaierror():
            return f"the name {host} is not known; check its spelling and the name server, or write its address"
        case ConnectionRefusedError():
            return f"nobody listens at port {port} (connection refused); check the port, and that the device is on"
        case TimeoutError():
            return "does not answer; check that the device is on, its address, and the network"
        case _ if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
            return "there is no way to it (no route to host); check its address and the network"
        case _:
            return f"cannot be reached ({error.strerror}); check its address and the network"


def _pushed(spec: Url, items: Iterator[Media], clock: Clock) -> Iterator[Media]:
    """The sender sets the pace: what comes now was taken just now."""
    line, held = ArrivalLine(), list[Media]()
    for item in items:
        at_ns = clock()
        settled = line.arrived(due_ns(item), at_ns)
        _check(spec, line.astray_ns(due_ns(item), at_ns))
        held.append(item)
        if settled or len(held) >= HELD_ITEMS:
            yield from (later(each, line.offset_ns) for each in held)
            held.clear()


def _pulled(spec: Url, items: Iterator[Media], clock: Clock) -> Iterator[Media | None]:
    """We set the pace: segments come in bursts, and are replayed at the rate at which they were taken."""

    def live() -> Iterator[Media]:
        offset_ns: int | None = None
        for item in items:
            if offset_ns is None:
                offset_ns = clock() - item.start_ns
            yield later(item, offset_ns)

    last_ns: int | None = None
    for item in paced(live(), clock):
        if item is not None:
            # Pacing would wait out a jump of the sender's clock; a hole in the media this long is a fault as well.
            _check(spec, clock() - due_ns(item))
            last_ns = due_ns(item)
        elif last_ns is not None:
            _check(spec, last_ns - clock())
        yield item


def _check(spec: Url, astray_ns: int) -> None:
    if abs(astray_ns) > ASTRAY_NS:
        how = f"came {abs(astray_ns) / NS_PER_S:.1f} s {'late' if astray_ns > 0 else 'early'}"
        raise MediaError(
            f"{shown(spec.url)}: media {how}; its clock jumped or this machine does not keep up, opening it again"
        )
