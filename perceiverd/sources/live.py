"""Lays the times of live media on CLOCK_MONOTONIC: where the sender sets the pace, and where we do. Opens nothing."""

from __future__ import annotations

from collections.abc import Iterator

from perceiverd.core.clock import Clock
from perceiverd.core.errors import MediaError
from perceiverd.core.media import NS_PER_S, Media, Timing, end_of
from perceiverd.sources.decode.decoders import DecodeCounts
from perceiverd.sources.file import later, paced

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


def pushed(
    name: str, items: Iterator[Media], clock: Clock, counts: DecodeCounts | None = None
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
        check_time(name, sender.astray_ns(media_ns, at_ns))
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


def pulled(
    name: str, items: Iterator[Media], clock: Clock, *, steps: int = 0, late_ns: int | None = None
) -> Iterator[Media | Timing | None]:
    """We set the pace: segments come in bursts, and we replay them at the rate at which they were captured.

    If time jumps back, media continue where they were. If it jumps forward, the media between are missing, and we wait
    for as long as they would have lasted. Media that come later than `late_ns` continue from now on, with a step; None
    allows them to be late. `steps` is the number of steps before.
    """
    steps_ns = list[int]()
    last_ns: int | None = None
    reported = 0
    for item in paced(_continued(items, clock, steps_ns, late_ns), clock):
        if item is not None:
            if reported < len(steps_ns) and item.start_ns >= steps_ns[reported]:
                reported += 1
                yield Timing(None, 0.0, steps + reported)
            # Pacing would wait out any jump of the sender's clock; a gap in the media this long is a fault as well.
            check_time(name, clock() - end_of(item))
            last_ns = end_of(item)
        elif last_ns is not None:
            check_time(name, last_ns - clock())
        yield item


def _continued(
    items: Iterator[Media], clock: Clock, steps_ns: list[int], late_ns: int | None = None
) -> Iterator[Media]:
    """The items on our clock, from now on. If their time jumps back, they continue, and the time goes to `steps_ns`.

    So it does if they are later than `late_ns`, and they continue from now on.
    """
    offset_ns: int | None = None
    newest_ns: dict[type[Media], int] = {}
    for item in items:
        if offset_ns is None:
            offset_ns = clock() - item.start_ns
        elif end_of(item) + offset_ns < newest_ns.get(type(item), 0) - STEP_NS:
            offset_ns = max(newest_ns.values()) - item.start_ns
            steps_ns.append(item.start_ns + offset_ns)
            newest_ns.clear()
        elif late_ns is not None and (by_ns := clock() - end_of(item) - offset_ns) > late_ns:
            offset_ns += by_ns
            steps_ns.append(item.start_ns + offset_ns)
        item = later(item, offset_ns)
        newest_ns[type(item)] = end_of(item)
        yield item


def check_time(name: str, astray_ns: int) -> None:
    """Raise MediaError if media are this far from their time and it is too much."""
    if abs(astray_ns) > ASTRAY_NS:
        how = f"came {abs(astray_ns) / NS_PER_S:.1f} s {'late' if astray_ns > 0 else 'early'}"
        raise MediaError(f"{name}: media {how}; its clock jumped or this machine is too slow, opening it again")
