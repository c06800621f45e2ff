"""One continuous time line for the tracks of a programme, made from the time stamps of its packets.

In joined files, after a restart of an encoder and at a discontinuity of HLS, time stamps go back or jump far ahead. All
tracks then move together: the new part begins where the old one ended. Pure: it knows times, not packets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from perceiverd.core.media import NS_PER_S

P = TypeVar("P")

BACK_NS = NS_PER_S // 10
"""A time stamp that goes back by more than this begins a new part. Some recorders stamp with a jitter below this."""
OVERLAP_NS = NS_PER_S // 50
"""A time stamp that goes back by more than this to the first one of its part, or before it, begins a new part, too."""
FORWARD_NS = 10 * NS_PER_S
"""A jump forward by more than this begins a new part, unless the container's own index covers it."""
FORWARD_LIVE_NS = 4 * NS_PER_S
"""The same for a live stream: it would be opened again after 5 s without media."""
WRAP_NS = 2**33 * NS_PER_S // 90_000
"""The time stamps of MPEG-TS and MPEG-PS begin again at 0 after 26.5 hours."""
HELD_NS = NS_PER_S
HELD_ITEMS = 512
"""At a join, packets are held until every track has reached the new part, but at most this long and this many."""
ACTIVE_NS = 5 * NS_PER_S
"""A track that ended longer ago than this is not waited for."""
PARTS = 100
"""So many parts are remembered for tracks that are behind."""
LONGEST_NS = 10 * NS_PER_S
"""A packet without a duration lasts as long as the one before it, but at most this long."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """The times of a packet, as its container has them."""

    dts_ns: int
    """When it is decoded; these times rise within a part."""
    pts_ns: int
    """When it is shown or heard."""
    duration_ns: int = 0
    """0 if unknown."""
    turned_ns: int = 0
    """How much of these times was added because the clock of MPEG-TS began again at 0."""


@dataclass(slots=True)
class _Track:
    """Where one track is."""

    part: int
    shift_ns: int
    first_ns: int
    """The time stamps at which its part began and which came last, unwrapped."""
    last_ns: int
    end_ns: int
    """The end of what came so far, on the programme's time line."""
    duration_ns: int = 0
    is_cut: bool = False
    """Whether its next packet belongs to another part, whatever its time stamp is."""


@dataclass(slots=True)
class _Join(Generic[P]):
    """A new part of which not every track has been seen."""

    start_ns: int
    newest_ns: int
    tracks: dict[str, Stamp]
    """The first stamp of each track that has reached the new part."""
    last: dict[str, int]
    held: list[tuple[str, Stamp | None, P]] = field(default_factory=list)


class TimeLine(Generic[P]):
    """Says by how much each packet of a programme moves."""

    def __init__(self, *, forward_ns: int = FORWARD_NS, wraps: bool = False, indexed_ns: int | None = None) -> None:
        """`indexed_ns`: up to this time stamp the container's own index covers jumps forward; None if it has none."""
        self._forward_ns, self._wraps, self._indexed_ns = forward_ns, wraps, indexed_ns
        self._tracks: dict[str, _Track] = {}
        self._shift_ns, self._part = 0, 0
        self._parts = [(0, -(1 << 62))]
        """By how much each part moved, and where it begins on the programme's time line."""
        self._join: _Join[P] | None = None
        self._new_part = False
        self.joins = 0
        """How many parts began behind another one."""
        self.joined_ns = 0
        """Where the newest of them begins, on the programme's time line."""

    @property
    def end_ns(self) -> int | None:
        """Where the programme ends so far; None before the first packet."""
        return max((track.end_ns for track in self._tracks.values()), default=None)

    def new_part(self) -> None:
        """All following packets belong to another part, whatever their time stamps are."""
        self._new_part = bool(self._tracks)
        for track in self._tracks.values():
            track.is_cut = True

    def add(self, track: str, stamp: Stamp | None, packet: P, lasts_ns: int = 0) -> Iterator[tuple[P, int]]:
        """Accept the next packet and yield those that are decided, each with the nanoseconds by which it moves.

        A packet without a stamp continues its track for `lasts_ns`.
        """
        if stamp is None:
            if self._join and (track in self._join.tracks or track not in self._tracks):
                self._join.held.append((track, None, packet))
            else:
                known = self._tracks.get(track)
                if known:
                    known.end_ns += lasts_ns or known.duration_ns
                yield packet, known.shift_ns if known else self._shift_ns
            return
        stamp = self._unwrapped(track, stamp)
        if self._join and self._is_elsewhere(self._join, track, stamp):
            yield from self.flush()
        if self._join is None and self._joins(track, stamp):
            self._join = _Join(stamp.pts_ns, stamp.pts_ns, {}, {})
        if self._join and self._reaches(self._join, track, stamp):
            yield from self._hold(self._join, track, stamp, packet)
        else:
            yield packet, self._placed(track, stamp)

    def extend(self, track: str, end_ns: int) -> None:
        """Packets of this track without a time stamp lasted until `end_ns`, on the programme's time line."""
        if known := self._tracks.get(track):
            known.end_ns = max(known.end_ns, end_ns)

    def flush(self) -> Iterator[tuple[P, int]]:
        """Yield what is held at a join."""
        join, self._join = self._join, None
        if join is None:
            return
        end_ns = self.end_ns
        assert end_ns is not None
        self._part += 1
        self._new_part = False
        self._shift_ns = end_ns - join.start_ns
        self.joins, self.joined_ns = self.joins + 1, end_ns
        self._parts.append((self._shift_ns, end_ns))
        del self._parts[1:-PARTS]
        for track, stamp, packet in join.held:
            yield packet, self._shift_ns if stamp is None else self._placed(track, stamp, self._part)

    def _hold(self, join: _Join[P], track: str, stamp: Stamp, packet: P) -> Iterator[tuple[P, int]]:
        join.tracks.setdefault(track, stamp)
        join.last[track] = stamp.dts_ns
        join.start_ns = min(join.start_ns, stamp.pts_ns)
        join.newest_ns = max(join.newest_ns, stamp.dts_ns)
        join.held.append((track, stamp, packet))
        end_ns = self.end_ns or 0
        active = {name for name, each in self._tracks.items() if each.end_ns >= end_ns - ACTIVE_NS}
        waited = join.newest_ns - join.start_ns >= HELD_NS or len(join.held) >= HELD_ITEMS
        if waited or active <= join.tracks.keys():
            yield from self.flush()

    def _placed(self, track: str, stamp: Stamp, part: int | None = None) -> int:
        """Put the packet on the time line; returns by how much it moves."""
        known = self._tracks.get(track)
        if known is None or (part is not None and known.part != part):
            duration_ns = known.duration_ns if known else 0
            end_ns = known.end_ns if known else stamp.pts_ns + self._shift_ns
            known = _Track(self._part, self._shift_ns, stamp.dts_ns, stamp.dts_ns, end_ns, duration_ns)
            self._tracks[track] = known
        elif self._is_jump(known, stamp):  # another track has begun this part already
            begun = self._begun(known, stamp) or (self._part, self._shift_ns)
            (known.part, known.shift_ns), known.first_ns, known.is_cut = begun, stamp.dts_ns, False
        elif stamp.dts_ns > known.last_ns:
            known.duration_ns = min(stamp.dts_ns - known.last_ns, LONGEST_NS)
        known.last_ns = stamp.dts_ns
        lasts_ns = stamp.duration_ns or known.duration_ns
        known.end_ns = max(known.end_ns, max(stamp.dts_ns, stamp.pts_ns) + lasts_ns + known.shift_ns)
        return known.shift_ns + stamp.turned_ns

    def _joins(self, track: str, stamp: Stamp) -> bool:
        """Whether this packet begins a part that no other track has begun."""
        known = self._tracks.get(track)
        if known is None:
            return self._new_part
        if not self._is_jump(known, stamp):
            return False
        return self._begun(known, stamp) is None

    def _begun(self, known: _Track, stamp: Stamp) -> tuple[int, int] | None:
        """The part, and its shift, that other tracks have begun and that this packet continues; None if there is none.

        A track can be several parts behind: HLS with a playlist for each track reads on in the one whose clock is less.
        """
        if known.part == self._part:
            return None
        oldest = self._part - len(self._parts) + 1
        for place, (shift_ns, begins_ns) in enumerate(self._parts):
            ends_ns = (
                self._parts[place + 1][1] if place + 1 < len(self._parts) else (self.end_ns or 0) + self._forward_ns
            )
            at_ns = stamp.dts_ns + shift_ns
            is_later = place and oldest + place > known.part
            if is_later and begins_ns - NS_PER_S <= at_ns <= ends_ns and at_ns >= known.end_ns - NS_PER_S:
                return oldest + place, shift_ns
        return None

    def _is_jump(self, known: _Track, stamp: Stamp) -> bool:
        at_ns = stamp.dts_ns
        if known.is_cut or at_ns < known.last_ns - BACK_NS:
            return True
        if at_ns <= known.first_ns and at_ns < known.last_ns + known.duration_ns - OVERLAP_NS:
            return known.last_ns > known.first_ns
        if self._indexed_ns is not None and at_ns <= self._indexed_ns:
            return False
        if begun := self._begun(known, stamp):
            # Other tracks have begun a later part, and this packet fits there much better than where the track is.
            here_ns, there_ns = (abs(at_ns + shift_ns - known.end_ns) for shift_ns in (known.shift_ns, begun[1]))
            return there_ns + NS_PER_S < here_ns
        # If the other tracks are there already, this one was only missing for some time.
        front_ns = max(known.last_ns + known.duration_ns + known.shift_ns, self.end_ns or 0)
        return at_ns + known.shift_ns > front_ns + self._forward_ns

    def _reaches(self, join: _Join[P], track: str, stamp: Stamp) -> bool:
        """Whether this packet belongs to the new part, and not to the end of the old one."""
        known = self._tracks.get(track)
        return track in join.tracks or known is None or self._is_jump(known, stamp)

    def _is_elsewhere(self, join: _Join[P], track: str, stamp: Stamp) -> bool:
        """Whether this packet belongs to a third part, which begins while the second one is held."""
        if track in join.last:
            return stamp.dts_ns < join.last[track] - BACK_NS or stamp.dts_ns > join.last[track] + self._forward_ns
        known = self._tracks.get(track)
        jumps = known is not None and self._is_jump(known, stamp)
        return jumps and abs(stamp.dts_ns - join.start_ns) > self._forward_ns

    def _unwrapped(self, track: str, stamp: Stamp) -> Stamp:
        """The stamp in the turn of the clock that is nearest to the track's last one."""
        known = self._tracks.get(track)
        if not self._wraps or known is None:
            return stamp
        last_ns = self._join.last.get(track, known.last_ns) if self._join else known.last_ns
        turned_ns = round((last_ns - stamp.dts_ns) / WRAP_NS) * WRAP_NS
        if not turned_ns:
            return stamp
        return Stamp(stamp.dts_ns + turned_ns, stamp.pts_ns + turned_ns, stamp.duration_ns, turned_ns)
