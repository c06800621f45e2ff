"""A live URL: a network camera over RTSP, an HLS or MJPEG stream over HTTP, a transport stream over UDP, ..."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from functools import partial

from perceiverd.core.clock import Clock, now_ns
from perceiverd.core.errors import MediaError
from perceiverd.core.media import NS_PER_S, Frame, Media, MediaFormat, Timing
from perceiverd.sources.decode import container, diagnosis
from perceiverd.sources.file import due_ns, later, paced
from perceiverd.sources.specs import Url, shown

SETTLE_NS = NS_PER_S // 2
"""Opening reads ahead to find out what is there; when arrivals have got no sooner for this long its burst is over."""
SETTLE_MOST_NS = 5 * NS_PER_S
SOONER_NS = NS_PER_S // 50
HELD_ITEMS = 512
BLOCK_NS = 2 * NS_PER_S
SLEW_NS = NS_PER_S // 500
"""The time line moves at most this much a block: 1000 ppm, more than any camera's clock is off."""
STEP_NS = NS_PER_S // 10
"""Media this much sooner than anything before, or before what their own track has already told, show that the sender's
clock was set; so do media that stay this late, and as late, for `STEADY_NS`. A network is never steadily late: it gets
worse or works off what it held back."""
STEADY_NS, STEADY_WITHIN_NS = 3 * NS_PER_S, NS_PER_S // 20
ASTRAY_NS = 5 * NS_PER_S
"""Media this far from when they should arrive: the sender's clock jumped far or this machine does not keep up. And what
steps may add up to: if they were delays after all, opening the URL anew tells."""
TELL_NS = 5 * NS_PER_S
"""How often is told what is known of the sender's clock."""
DRIFT_AFTER_NS = 60 * NS_PER_S
INTERVALS, FORGET = 4, 0.98
"""Sound or pictures are missing after so many times the longest of their intervals lately; one counts for less with
each that follows. A camera may give a picture every 10 s, and is not to be opened anew for that."""
INTERVAL_MOST_NS = 60 * NS_PER_S


class ArrivalLine:
    """Maps a sender's time line onto CLOCK_MONOTONIC; one offset for sound and pictures keeps them together.

    What arrives soonest after it was taken was delayed least, so the smallest difference counts. Pure: it is
    told the time.
    """

    def __init__(self) -> None:
        self.offset_ns = 0
        """Add this to a time of the sender."""
        self.steps = 0
        """How often the sender's clock was set; what is mapped after a step does not follow on what was before."""
        self._later_ns = 0
        """By how much steps that might be delays have put media later than the line before them would."""
        self._jitter_ns = 0.0
        self.begin()

    def begin(self) -> None:
        """Forget the line: what comes next is of another time."""
        self._first_ns: int | None = None
        self._sooner_ns, self._settled = 0, False
        self._block_ns, self._least_ns = 0, 0
        self._settled_ns, self._slewed_ns = 0, 0
        self._late = list[tuple[int, int]]()
        """(at_ns, difference) of the least late of each second since all are late."""

    @property
    def timing(self) -> Timing:
        """What is known of the sender's clock."""
        lasted_ns = self._block_ns - self._settled_ns
        # The line goes down, towards sooner, where the sender's clock runs fast.
        drift_ppm = -self._slewed_ns / lasted_ns * 1e6 if self._settled and lasted_ns > DRIFT_AFTER_NS else None
        return Timing(drift_ppm, self._jitter_ns / 1e6, self.steps)

    def arrived(self, media_ns: int, at_ns: int) -> bool:
        """Take note that what the sender finished at `media_ns` came at `at_ns`; True once the line has settled."""
        difference_ns = at_ns - media_ns
        if self._settled and (stepped_ns := self._stepped_ns(difference_ns, at_ns)) is not None:
            self._later_ns = max(0, self._later_ns + stepped_ns)
            self.step()
        if self._first_ns is None:
            self._first_ns = self._sooner_ns = at_ns
            self.offset_ns = difference_ns
        if not self._settled:
            if difference_ns < self.offset_ns - SOONER_NS:
                self._sooner_ns = at_ns
            self.offset_ns = self._least_ns = min(self.offset_ns, difference_ns)
            self._block_ns = self._settled_ns = at_ns
            quiet_ns, all_ns = at_ns - self._sooner_ns, at_ns - self._first_ns
            self._settled = quiet_ns >= SETTLE_NS or all_ns >= SETTLE_MOST_NS
            return self._settled
        self._jitter_ns += (max(0, difference_ns - self.offset_ns) - self._jitter_ns) / 256
        self._least_ns = min(self._least_ns, difference_ns)
        if at_ns - self._block_ns >= BLOCK_NS:
            slew_ns = max(-SLEW_NS, min(SLEW_NS, self._least_ns - self.offset_ns))
            self.offset_ns, self._slewed_ns = self.offset_ns + slew_ns, self._slewed_ns + slew_ns
            self._block_ns, self._least_ns = at_ns, difference_ns
        return True

    def step(self) -> None:
        """The sender's clock was set: the line begins anew."""
        self.steps += 1
        self.begin()

    def astray_ns(self, media_ns: int, at_ns: int) -> int:
        """How much later (negative: earlier) than it should this came; steps that might be delays count as those."""
        late_ns = 0 if self._first_ns is None else at_ns - media_ns - self.offset_ns
        return max(late_ns, self._later_ns) if late_ns > -self._later_ns else late_ns

    def _stepped_ns(self, difference_ns: int, at_ns: int) -> int | None:
        """By how much the sender's clock was set back, where this arrival makes sure of it; forward is negative."""
        late_ns = difference_ns - self.offset_ns
        if late_ns < -STEP_NS:
            return late_ns
        if late_ns < STEP_NS:
            self._late.clear()
            return None
        if not self._late or at_ns - self._late[-1][0] >= NS_PER_S:
            self._late.append((at_ns, difference_ns))
            del self._late[: -(STEADY_NS // NS_PER_S) - 1]
        elif difference_ns < self._late[-1][1]:
            self._late[-1] = self._late[-1][0], difference_ns
        least = [each for _, each in self._late]
        if at_ns - self._late[0][0] >= STEADY_NS and max(least) - min(least) <= STEADY_WITHIN_NS:
            return min(least) - self.offset_ns
        return None


def media(spec: Url, wanted: MediaFormat, clock: Clock = now_ns) -> Iterator[Media | Timing | None]:
    """Yield live-stamped media as they come; None while nothing is due. Raises MediaError; ends in no other way."""
    options = {"analyzeduration": "2000000"} if spec.pushed else {}  # in microseconds
    scheme = spec.url.lower().partition(":")[0]
    if scheme in ("rtsp", "rtsps"):
        options["rtsp_transport"] = spec.transport
        # All that there is stands in the answer to DESCRIBE; nothing has to be looked for in the media.
        options["analyzeduration"] = "500000"
        # For a single answer: where a network was cut meanwhile, another try is sooner through than one that hangs.
        options["timeout"] = str(round(spec.read_timeout_s * 1_000_000))  # in microseconds
        # Before FFmpeg does, which would wait for long, and tell little. Other servers may be there for one call only.
        if told := diagnosis.unreached(spec):
            raise MediaError(f"{shown(spec.url)}: {told}")
    if scheme in diagnosis.SECURE:
        # FFmpeg trusts everyone by default, and its libraries may look for authorities where this system has none.
        authorities = spec.ca_file or ssl.get_default_verify_paths().cafile
        options |= {"tls_verify": str(int(spec.verify))} | ({"ca_file": authorities} if authorities else {})
    items = container.read(
        spec.url,
        wanted,
        options=options,
        open_timeout_s=spec.open_timeout_s,
        read_timeout_s=spec.read_timeout_s,
        live=True,
        why=partial(diagnosis.why, spec),
    )
    items = _whole(spec, items)
    yield from _pushed(spec, items, clock) if spec.pushed else _pulled(spec, items, clock)
    # FFmpeg tells a server's death like the end of a file.
    raise MediaError(f"{shown(spec.url)}: the stream ended; check the device and the network")


def _whole(spec: Url, items: Iterator[Media]) -> Iterator[Media]:
    """The same, until sound or pictures that came before stay away for `read_timeout_s` while the other goes on.

    That raises MediaError, as silence of both does. What does not come after that is not missed: the stream goes on by
    what it has. It goes by the times of media, which come in bursts; a clock that is set counts for a second at most.
    """
    newest_ns: dict[type[Media], int] = {}
    interval_ns: dict[type[Media], float] = {}
    missing_ns: dict[type[Media], int] = {}
    for item in items:
        kind, at_ns = type(item), due_ns(item)
        step_ns = max(0, at_ns - newest_ns.get(kind, at_ns))
        if kind in newest_ns:
            interval_ns[kind] = max(min(step_ns, INTERVAL_MOST_NS), FORGET * interval_ns.get(kind, 0.0))
        newest_ns[kind], missing_ns[kind] = at_ns, 0
        for other in interval_ns.keys() - {kind}:
            missing_ns[other] += min(step_ns, NS_PER_S)
            if missing_ns[other] >= max(spec.read_timeout_s * NS_PER_S, INTERVALS * interval_ns[other]):
                what, goes_on = ("pictures", "sound goes on") if other is Frame else ("sound", "pictures go on")
                raise MediaError(
                    f"{shown(spec.url)}: no {what} for {missing_ns[other] / NS_PER_S:.0f} s, while its {goes_on};"
                    " opening it again"
                )
        yield item


def _pushed(spec: Url, items: Iterator[Media], clock: Clock) -> Iterator[Media | Timing]:
    """The sender sets the pace: what comes now was taken just now."""
    line, held, told, told_ns = ArrivalLine(), list[Media](), 0, 0
    newest_ns: dict[type[Media], int] = {}
    for item in items:
        at_ns, media_ns, before_ns = clock(), due_ns(item), newest_ns.get(type(item))
        _check(spec, line.astray_ns(media_ns, at_ns))
        steps = line.steps
        if before_ns is not None and media_ns < before_ns - STEP_NS:
            line.step()
        settled = line.arrived(media_ns, at_ns)
        newest_ns[type(item)] = media_ns
        if line.steps > steps:
            held.clear()  # of a time that can't be told any more; less than a second of it
        held.append(item)
        if settled or len(held) >= HELD_ITEMS:
            if line.steps > told or at_ns - told_ns >= TELL_NS:
                told, told_ns = line.steps, at_ns
                yield line.timing
            yield from (later(each, line.offset_ns) for each in held)
            held.clear()


def _pulled(spec: Url, items: Iterator[Media], clock: Clock) -> Iterator[Media | Timing | None]:
    """We set the pace: segments come in bursts, and are replayed at the rate at which they were taken.

    Time that goes back goes on from where it was. Time that goes forth is taken for what is missing: it is waited out.
    """
    steps_ns = list[int]()

    def live() -> Iterator[Media]:
        offset_ns: int | None = None
        newest_ns: dict[type[Media], int] = {}
        for item in items:
            if offset_ns is None:
                offset_ns = clock() - item.start_ns
            elif due_ns(item) + offset_ns < newest_ns.get(type(item), 0) - STEP_NS:
                offset_ns = max(newest_ns.values()) - item.start_ns
                steps_ns.append(item.start_ns + offset_ns)
                newest_ns.clear()
            item = later(item, offset_ns)
            newest_ns[type(item)] = due_ns(item)
            yield item

    last_ns: int | None = None
    told = 0
    for item in paced(live(), clock):
        if item is not None:
            if told < len(steps_ns) and item.start_ns >= steps_ns[told]:
                told += 1
                yield Timing(None, 0.0, told)
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
