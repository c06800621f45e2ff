"""The programme's time line as arithmetic: joins, restarts, wraps and jumps."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from perceiverd.core.media import NS_PER_S
from perceiverd.sources.decode.timeline import WRAP_NS, Stamp, TimeLine

STEP_NS = NS_PER_S // 25
Sent = tuple[str, float]


def times(line: TimeLine[int], sent: Iterable[Sent]) -> list[tuple[str, float]]:
    """When packets of 40 ms, sent with these time stamps in seconds, are on the programme's time line."""
    sent, placed = list(sent), list[tuple[int, int]]()
    for number, (track, at_s) in enumerate(sent):
        at_ns = round(at_s * NS_PER_S)
        placed += line.add(track, Stamp(at_ns, at_ns, STEP_NS), number)
    placed += line.flush()
    assert sorted(number for number, _ in placed) == list(range(len(sent)))
    return [(sent[number][0], round(sent[number][1] + by_ns / NS_PER_S, 3)) for number, by_ns in placed]


def part(start_s: float, seconds: float, *tracks: str) -> list[Sent]:
    return [(track, round(start_s + n / 25, 3)) for n in range(round(seconds * 25)) for track in tracks]


def of(track: str, placed: list[tuple[str, float]]) -> list[float]:
    return [at_s for name, at_s in placed if name == track]


def even(seconds: float, start_s: float = 0.0) -> list[float]:
    return [round(start_s + n / 25, 3) for n in range(round(seconds * 25))]


def test_one_part_is_left_alone() -> None:
    """Time stamps that rise are not changed, and nothing is held."""
    line = TimeLine[int]()
    assert times(line, part(1.4, 3, "audio", "video")) == part(1.4, 3, "audio", "video")
    assert line.joins == 0


@pytest.mark.parametrize("second_s", [0.0, 0.5, 5000.0])
def test_a_new_part_begins_where_the_old_one_ended(second_s: float) -> None:
    """Audio and video of another part, whatever its time stamps are, continue without a gap, by one join."""
    line = TimeLine[int]()
    placed = times(line, [*part(0, 2, "audio", "video"), *part(second_s, 2, "audio", "video")])
    assert of("audio", placed) == of("video", placed) == even(4)
    assert line.joins == 1
    assert line.joined_ns == 2 * NS_PER_S


def test_tracks_that_interleave_at_the_join_move_together() -> None:
    """If the end of the old audio comes behind the new video, as in MPEG-TS, there is one join, and no overlap."""
    line = TimeLine[int]()
    old, new = part(1.4, 2, "audio", "video"), part(0.2, 2, "audio", "video")
    tail = [each for each in old if each[0] == "audio" and each[1] > 3]
    sent = [*(each for each in old if each not in tail), new[1], *tail, new[0], *new[2:]]
    placed = times(line, sent)
    assert of("audio", placed) == of("video", placed) == even(4, 1.4)
    assert line.joins == 1


def test_a_later_start_of_one_track_is_kept() -> None:
    """If the new audio begins 0.2 s behind the new video, it does so on the programme's time line, too."""
    line = TimeLine[int]()
    new = [*part(0, 2, "video"), *part(0.2, 1.8, "audio")]
    placed = times(line, [*part(0, 2, "audio", "video"), *sorted(new, key=lambda each: each[1])])
    assert of("video", placed) == even(4)
    assert of("audio", placed) == [*even(2), *even(1.8, 2.2)]


def test_a_track_that_ends_at_a_join_is_not_waited_for_long() -> None:
    """If the new part has no audio, its video is held for a second at most."""
    line = TimeLine[int]()
    for number, (track, at_s) in enumerate(part(0, 2, "audio", "video")):
        list(line.add(track, Stamp(round(at_s * NS_PER_S), round(at_s * NS_PER_S), STEP_NS), number))
    held = 0
    for held, (_, at_s) in enumerate(part(0, 2, "video")):
        if list(line.add("video", Stamp(round(at_s * NS_PER_S), round(at_s * NS_PER_S), STEP_NS), held)):
            break
    assert held == 25


def test_many_restarts_do_not_drift() -> None:
    """After 100 restarts of an encoder, audio and video are at the same time, without a gap."""
    line = TimeLine[int]()
    placed = times(line, part(7, 1, "audio", "video") * 100)
    assert of("audio", placed) == of("video", placed) == even(100, 7)
    assert line.joins == 99


@pytest.mark.parametrize("back_s", [0.02, 0.09])
def test_jitter_is_no_join(back_s: float) -> None:
    """Time stamps that go back a little, again and again, do not stretch the time line."""
    line = TimeLine[int]()
    sent = [("audio", at_s - back_s * (n % 2)) for n, (_, at_s) in enumerate(part(1, 10, "audio"))]
    assert of("audio", times(line, sent)) == pytest.approx(of("audio", sent))


def test_short_parts_that_begin_again() -> None:
    """Sounds of 80 ms, each from 0 on, are one behind the other, though time goes back by less than 0.1 s."""
    assert of("audio", times(TimeLine[int](), part(0, 0.08, "audio") * 5)) == even(0.4)


def test_silence_of_one_track_is_no_jump() -> None:
    """Audio that pauses for 30 s while the video continues keeps its time."""
    line = TimeLine[int]()
    sent = [*part(0, 2, "audio", "video"), *part(2, 30, "video"), *part(32, 2, "audio", "video")]
    assert times(line, sent) == sent
    assert line.joins == 0


def test_the_index_of_a_container_covers_long_gaps() -> None:
    """A picture every minute keeps its time in a container that has an index; beyond its end a jump is a join."""
    sent: list[Sent] = [("video", 60.0 * n) for n in range(5)]
    assert times(TimeLine[int](indexed_ns=300 * NS_PER_S), sent) == sent
    line = TimeLine[int](indexed_ns=130 * NS_PER_S)
    assert times(line, sent)[:3] == sent[:3]
    assert line.joins == 2


def test_the_clock_of_mpeg_ts_wraps() -> None:
    """After 26.5 hours the time stamps begin again at 0, audio and video apart by a packet; time continues."""
    line = TimeLine[int](wraps=True)
    wrap_s = WRAP_NS / NS_PER_S
    rising = part(round(wrap_s) - 2, 4, "audio", "video")
    sent = [(track, at_s % wrap_s) for track, at_s in rising]
    placed = times(line, sent)
    assert of("audio", placed) == of("video", placed) == pytest.approx(of("audio", rising))
    assert line.joins == 0


def test_a_forced_part_joins_whatever_its_times_are() -> None:
    """A file that is joined to another one begins behind it, even if its time stamps would continue."""
    line = TimeLine[int]()
    first = part(0, 2, "audio", "video")
    times(line, first)
    line.new_part()
    assert of("video", times(line, part(3, 1, "audio", "video"))) == even(1, 2)
    assert line.joins == 1


@pytest.mark.parametrize("clocks_s", [(50.0, 0.0, 20.0), (0.0, 100.0, 50.0), (0.0, 25.0, 0.0)])
def test_a_track_can_be_parts_behind(clocks_s: tuple[float, ...]) -> None:
    """If one track is read to its end before the other begins the second part, both are still together in each."""
    line, one, other = TimeLine[int](), list[Sent](), list[Sent]()
    for clock_s in clocks_s:
        one += part(clock_s, 5, "video")
        other += part(clock_s, 5, "audio")
    first = [each for pair in zip(one[:125], other[:125], strict=True) for each in pair]
    placed = times(line, [*first, *one[125:], *other[125:]])
    assert of("audio", placed) == of("video", placed) == even(15, clocks_s[0])
    assert line.joins == 2
