"""A live URL: a network camera over RTSP, an HLS or MJPEG stream over HTTP, a transport stream over UDP, ..."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from functools import partial

from perceiverd.core.clock import Clock, now_ns
from perceiverd.core.errors import MediaError
from perceiverd.core.media import NS_PER_S, Frame, Media, MediaFormat, Timing, end_of
from perceiverd.sources.decode import container, diagnosis
from perceiverd.sources.decode.decoders import DecodeCounts
from perceiverd.sources.file import later, paced
from perceiverd.sources.specs import Url, shown

SETTLE_NS = NS_PER_S // 2
"""FFmpeg reads ahead while it opens a URL, so media begin with a burst. It is over when for this long no media came
sooner than the ones before."""
SETTLE_MOST_NS = 5 * NS_PER_S
"""After this long the burst counts as over in any case."""
SOONER_NS = NS_PER_S // 50
"""Only media that come sooner by more than this continue the burst."""
HELD_ITEMS = 512
"""At most this many items are held until the burst is over."""
BLOCK_NS = 2 * NS_PER_S
SLEW_NS = NS_PER_S // 500
"""The offset moves by at most this much per block: 1000 ppm, more than any camera's clock is off."""
STEP_NS = NS_PER_S // 10
"""The sender's clock was set if media come this much sooner than all before, or if they are this much before earlier
media of their own kind. It was also set back if media stay late by the same amount for `STEADY_NS`. A network never is
late by the same amount: it gets worse, or it catches up."""
STEADY_NS, STEADY_WITHIN_NS = 3 * NS_PER_S, NS_PER_S // 20
"""How long media must be late by the same amount, and how much that amount may vary."""
ASTRAY_NS = 5 * NS_PER_S
"""Media this far from their time: the sender's clock jumped far, or this machine is too slow. Steps may add up to this
much, too: they may have been delays after all, and opening the URL again decides that."""
TIMING_NS = 5 * NS_PER_S
"""How often we report what we know of the sender's clock."""
DRIFT_AFTER_NS = 60 * NS_PER_S
"""The drift is unknown until this long after the burst."""
INTERVALS, FORGET = 4, 0.98
"""Audio or video is missing after 4 times its longest recent interval. Each further interval makes the older ones count
less by this factor. A camera may send a frame every 10 s, and this is no reason to open it again."""
INTERVAL_MOST_NS = 60 * NS_PER_S


class SenderClock:
    """Maps a sender's time line to CLOCK_MONOTONIC. One offset for audio and video keeps them together.

    The media that come soonest after their time were delayed least, so the smallest difference counts. Pure: the
    caller passes the time.
    """

    def __init__(self) -> None:
        self.offset_ns = 0
        """Add this to a time of the sender."""
        self.steps = 0
        """How often the sender's clock was set; media after a step do not continue those before it."""
        self._later_ns = 0
        """How much later media are because of steps that may have been delays."""
        self._jitter_ns = 0.0
        self._begin()

    def _begin(self) -> None:
        """Forget the offset: the next media have another time line."""
        self._first_ns: int | None = None
        self._sooner_ns, self._settled = 0, False
        self._block_ns, self._least_ns = 0, 0
        self._settled_ns, self._slewed_ns = 0, 0
        self._late = list[tuple[int, int]]()
        """(at_ns, difference) of the least late media of each second, since all media are late."""

    @property
    def timing(self) -> Timing:
        """What is known of the sender's clock."""
        lasted_ns = self._block_ns - self._settled_ns
        # The offset shrinks if the sender's clock runs fast.
        drift_ppm = -self._slewed_ns / lasted_ns * 1e6 if self._settled and lasted_ns > DRIFT_AFTER_NS else None
        return Timing(drift_ppm, self._jitter_ns / 1e6, self.steps)

    def add(self, media_ns: int, at_ns: int) -> bool:
        """Media whose end has the sender's time `media_ns` came at `at_ns`. True once the burst is over."""
        difference_ns = at_ns - media_ns
        if self._settled and (stepped_ns := self._stepped_ns(difference_ns, at_ns)) is not None:
            self._later_ns = max(0, self._later_ns + stepped_ns)
            self.step()
        if self._first_ns is None:
            self._first_ns = self._sooner_ns = at_ns
            self.offset_ns = difference_ns
        if not self._settled:
            return self._settle(difference_ns, at_ns)
        self._jitter_ns += (max(0, difference_ns - self.offset_ns) - self._jitter_ns) / 256
        self._least_ns = min(self._least_ns, difference_ns)
        if at_ns - self._block_ns >= BLOCK_NS:
            slew_ns = max(-SLEW_NS, min(SLEW_NS, self._least_ns - self.offset_ns))
            self.offset_ns, self._slewed_ns = self.offset_ns + slew_ns, self._slewed_ns + slew_ns
            self._block_ns, self._least_ns = at_ns, difference_ns
        return True

    def step(self) -> None:
        """The sender's clock was set: start again."""
        self.steps += 1
        self._begin()

    def astray_ns(self, media_ns: int, at_ns: int) -> int:
        """How much later (negative: earlier) than expected this came; steps that may be delays count as delays."""
        late_ns = 0 if self._first_ns is None else at_ns - media_ns - self.offset_ns
        return max(late_ns, self._later_ns) if late_ns > -self._later_ns else late_ns

    def _settle(self, difference_ns: int, at_ns: int) -> bool:
        """Find the offset during the burst; True once the burst is over."""
        assert self._first_ns is not None
        if difference_ns < self.offset_ns - SOONER_NS:
            self._sooner_ns = at_ns
        self.offset_ns = self._least_ns = min(self.offset_ns, difference_ns)
        self._block_ns = self._settled_ns = at_ns
        self._settled = at_ns - self._sooner_ns >= SETTLE_NS or at_ns - self._first_ns >= SETTLE_MOST_NS
        return self._settled

    def _stepped_ns(self, difference_ns: int, at_ns: int) -> int | None:
        """How far the sender's clock was set back, if these media prove it; negative if it was set forward."""
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
    """Yield live-stamped media as they come; None while nothing is due. Raises MediaError, and ends in no other way."""
    counts = DecodeCounts()
    items = container.read(
        spec.url,
        wanted,
        options=_options(spec),
        open_timeout_s=spec.open_timeout_s,
        read_timeout_s=spec.read_timeout_s,
        live=True,
        counts=counts,
        why=partial(diagnosis.why, spec),
        use=spec,
        log_track=True,
    )
    items = _while_complete(spec, items)
    yield from _pushed(spec, items, clock, counts) if spec.pushed else _pulled(spec, items, clock)
    # FFmpeg reports a server's death like the end of a file.
    raise MediaError(f"{shown(spec.url)}: the stream ended; check the device and the network")


def _options(spec: Url) -> dict[str, str]:
    """FFmpeg's options for this URL. Raises MediaError if an RTSP server cannot be reached."""
    options = {"analyzeduration": "2000000"} if spec.pushed else {}  # in microseconds
    scheme = spec.url.lower().partition(":")[0]
    if scheme in ("rtsp", "rtsps"):
        options["rtsp_transport"] = spec.transport
        # The answer to DESCRIBE describes all streams, so FFmpeg need not search the media for them.
        options["analyzeduration"] = "500000"
        # Limits the wait for one answer: after a network was cut, a new try succeeds sooner than one that hangs.
        options["timeout"] = str(round(spec.read_timeout_s * 1_000_000))  # in microseconds
        # We connect before FFmpeg does, because it would wait long and explain little. Not for other schemes: their
        # servers may accept one connection only.
        if text := diagnosis.unreachable(spec):
            raise MediaError(f"{shown(spec.url)}: {text}")
    if scheme in diagnosis.SECURE:
        # FFmpeg trusts every certificate by default, and may look for authorities where this system has none.
        authorities = spec.ca_file or ssl.get_default_verify_paths().cafile
        options |= {"tls_verify": str(int(spec.verify))} | ({"ca_file": authorities} if authorities else {})
    return options


def _while_complete(spec: Url, items: Iterator[Media]) -> Iterator[Media]:
    """The same items, until audio or video that came before is missing for `read_timeout_s` while the other continues.

    Then it raises MediaError, as if both were missing. If the missing kind does not return after that, the stream
    continues with what it has. This uses the times of media, because media come in bursts; a clock that is set counts
    for a second at most.
    """
    newest_ns: dict[type[Media], int] = {}
    interval_ns: dict[type[Media], float] = {}
    missing_ns: dict[type[Media], int] = {}
    for item in items:
        kind, at_ns = type(item), end_of(item)
        step_ns = max(0, at_ns - newest_ns.get(kind, at_ns))
        if kind in newest_ns:
            interval_ns[kind] = max(min(step_ns, INTERVAL_MOST_NS), FORGET * interval_ns.get(kind, 0.0))
        newest_ns[kind], missing_ns[kind] = at_ns, 0
        for other in interval_ns.keys() - {kind}:
            missing_ns[other] += min(step_ns, NS_PER_S)
            if missing_ns[other] >= max(spec.read_timeout_s * NS_PER_S, INTERVALS * interval_ns[other]):
                missing, present = ("video", "audio") if other is Frame else ("audio", "video")
                raise MediaError(
                    f"{shown(spec.url)}: no {missing} for {missing_ns[other] / NS_PER_S:.0f} s, while its {present} "
                    "continues; opening it again"
                )
        yield item


def _pushed(
    spec: Url, items: Iterator[Media], clock: Clock, counts: DecodeCounts | None = None
) -> Iterator[Media | Timing | None]:
    """The sender sets the pace: what comes now was captured just now. None while media are held.

    If the sender restarts, media continue without a gap (`decode.timeline`), though time has passed: one step for all.
    """
    counts = counts or DecodeCounts()
    sender, held, reported_steps, reported_ns = SenderClock(), list[Media](), 0, 0
    newest_ns: dict[type[Media], int] = {}
    joins = counts.joins
    for item in items:
        at_ns, media_ns, before_ns = clock(), end_of(item), newest_ns.get(type(item))
        steps = sender.steps
        if counts.joins > joins and item.start_ns >= counts.joined_ns:
            joins = counts.joins
            if abs(sender.astray_ns(media_ns, at_ns)) > STEP_NS:
                sender.step()
        _check_time(spec, sender.astray_ns(media_ns, at_ns))
        if before_ns is not None and media_ns < before_ns - STEP_NS:
            sender.step()
            newest_ns.clear()
        settled = sender.add(media_ns, at_ns)
        newest_ns[type(item)] = media_ns
        if sender.steps > steps:
            held.clear()  # less than a second of media, whose time nobody can know any more
        held.append(item)
        if settled or len(held) >= HELD_ITEMS:
            if sender.steps > reported_steps or at_ns - reported_ns >= TIMING_NS:
                reported_steps, reported_ns = sender.steps, at_ns
                yield sender.timing
            yield from (later(each, sender.offset_ns) for each in held)
            held.clear()
        else:
            yield None


def _pulled(spec: Url, items: Iterator[Media], clock: Clock) -> Iterator[Media | Timing | None]:
    """We set the pace: segments come in bursts, and we replay them at the rate at which they were captured.

    If time jumps back, media continue where they were. If it jumps forward, the media between are missing, and we wait
    for as long as they would have lasted.
    """
    steps_ns = list[int]()
    last_ns: int | None = None
    reported = 0
    for item in paced(_continued(items, clock, steps_ns), clock):
        if item is not None:
            if reported < len(steps_ns) and item.start_ns >= steps_ns[reported]:
                reported += 1
                yield Timing(None, 0.0, reported)
            # Pacing would wait out any jump of the sender's clock; a gap in the media this long is a fault as well.
            _check_time(spec, clock() - end_of(item))
            last_ns = end_of(item)
        elif last_ns is not None:
            _check_time(spec, last_ns - clock())
        yield item


def _continued(items: Iterator[Media], clock: Clock, steps_ns: list[int]) -> Iterator[Media]:
    """The items on our clock, from now on. If their time jumps back, they continue, and the time goes to `steps_ns`."""
    offset_ns: int | None = None
    newest_ns: dict[type[Media], int] = {}
    for item in items:
        if offset_ns is None:
            offset_ns = clock() - item.start_ns
        elif end_of(item) + offset_ns < newest_ns.get(type(item), 0) - STEP_NS:
            offset_ns = max(newest_ns.values()) - item.start_ns
            steps_ns.append(item.start_ns + offset_ns)
            newest_ns.clear()
        item = later(item, offset_ns)
        newest_ns[type(item)] = end_of(item)
        yield item


def _check_time(spec: Url, astray_ns: int) -> None:
    if abs(astray_ns) > ASTRAY_NS:
        how = f"came {abs(astray_ns) / NS_PER_S:.1f} s {'late' if astray_ns > 0 else 'early'}"
        raise MediaError(
            f"{shown(spec.url)}: media {how}; its clock jumped or this machine is too slow, opening it again"
        )
