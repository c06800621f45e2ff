"""Queries, compared with a plain loop over all events."""

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta, timezone
from pathlib import Path
from random import Random
from zoneinfo import ZoneInfo

import pytest

from perceiverd.core.errors import ConfigError, HistoryError
from perceiverd.history import Cursor, EventFilter, HistoryReader, StoredEvent, find_labels
from perceiverd.history.filters import descendants
from tests.support.history import START, Store, at, event, scores
from tests.support.messages import hello

LABELS = ("Dog", "Bark", "Cat", "Speech", "Music")
STREAMS = ("door", "yard", "hall")


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HistoryReader]:
    """213 events of three streams over three days; many begin at the same time."""
    rng = Random(3)
    store = Store(tmp_path_factory.mktemp("history"))
    store.begin(0)
    store.receive(0, hello(*STREAMS, boot_id="boot"))
    for number in range(213):
        start = rng.randrange(3 * 24) * 3600
        made = event(
            *("end", rng.choice(LABELS), start, start + rng.randrange(1, 900)),
            stream=rng.choice(STREAMS),
            key=str(number),
            peak=rng.randrange(1000) / 1000,
        )
        store.receive(start, made)
    store.receive(10, event("begin", "Dog", 4, 9, stream="yard"))
    with store.reader() as opened:
        yield opened


def everything(reader: HistoryReader) -> list[StoredEvent]:
    """All events, the newest first."""
    return sorted(reader.every(), key=lambda each: (each.start, each.id), reverse=True)


FILTERS = {
    "all": EventFilter(),
    "stream": EventFilter(streams=("house/yard",)),
    "streams": EventFilter(streams=("yard", "house/door")),
    "label": EventFilter(mids=find_labels(["Dog"])),
    "label and stream": EventFilter(mids=find_labels(["Animal"]), streams=("hall",)),
    "score": EventFilter(least_peak=0.731),
    "time": EventFilter(after=START + timedelta(hours=20), before=START + timedelta(hours=40)),
    "days": EventFilter(after=START + timedelta(hours=5), before=START + timedelta(days=2, hours=7)),
    "label and days": EventFilter(mids=find_labels(["Animal"]), before=START + timedelta(days=2, hours=7)),
    "label, score and time": EventFilter(mids=find_labels(["Cat", "Music"]), least_peak=0.5, after=at(86_400)),
    "open": EventFilter(state="open"),
    "open on a stream": EventFilter(state="open", streams=("door",)),
    "open of a label": EventFilter(state="open", mids=find_labels(["Dog"])),
    "ended": EventFilter(state="ended", streams=("yard",)),
    "no label": EventFilter(mids=()),
}


def matches(found: StoredEvent, wanted: EventFilter) -> bool:
    """The filter in plain words."""
    return (
        (not wanted.streams or bool({found.stream, f"house/{found.stream}"} & set(wanted.streams)))
        and (wanted.mids is None or found.mid in wanted.mids)
        and (wanted.after is None or found.start >= wanted.after)
        and (wanted.before is None or found.start < wanted.before)
        and found.peak >= wanted.least_peak
        and (wanted.state is None or found.state == wanted.state)
    )


@pytest.mark.parametrize("name", FILTERS)
def test_pages_together_have_what_the_filter_wants(reader: HistoryReader, name: str) -> None:
    """Pages of 7 have each event once, the newest first; count and export agree."""
    wanted, place = FILTERS[name], None
    found: list[StoredEvent] = []
    while True:
        page = reader.events(wanted, 7, place)
        found += page.events
        if page.next is None:
            break
        place = Cursor.parse(str(page.next))
    assert found == [each for each in everything(reader) if matches(each, wanted)]
    assert reader.count(wanted) == len(found)
    assert list(reader.every(wanted)) == found[::-1]


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("zone", [ZoneInfo("Europe/Berlin"), timezone(timedelta(hours=5, minutes=45))], ids=str)
def test_statistics_count_the_same_events(reader: HistoryReader, name: str, zone: timezone) -> None:
    """Hours, weekdays and days are those of the time zone."""
    chosen = [each for each in everything(reader) if matches(each, FILTERS[name])]
    found = reader.statistics(FILTERS[name], zone)
    local = [each.start.astimezone(zone) for each in chosen]
    assert found.events == len(chosen)
    assert found.by_hour == tuple(Counter(time.hour for time in local)[hour] for hour in range(24))
    assert found.by_weekday == tuple(Counter(time.weekday() for time in local)[day] for day in range(7))
    assert found.by_day == dict(sorted(Counter(time.date() for time in local).items()))
    assert found.by_stream == dict(Counter(f"house/{each.stream}" for each in chosen))
    assert {each.mid: each.events for each in found.by_label} == Counter(each.mid for each in chosen)
    for tally in found.by_label:
        own = [each for each in chosen if each.mid == tally.mid]
        assert tally.seconds == pytest.approx(sum(each.duration_s for each in own))
        assert (tally.peak, tally.last) == (max(each.peak for each in own), max(each.start for each in own))


def test_a_time_line_has_what_overlaps(reader: HistoryReader) -> None:
    """Events that began before the time and reach into it belong to it."""
    start, end = at(36_000), at(72_000)
    found = reader.time_line(start, end, least_peak=0.25)
    wanted = [each for each in everything(reader)[::-1] if each.start < end and each.end >= start and each.peak >= 0.25]
    assert set(found.ids) == {each.id for each in wanted} and found.complete
    by_id = {each.id: each for each in wanted}
    for place, number in enumerate(found.ids):
        event = by_id[number]
        assert found.names[found.streams[place]] == f"house/{event.stream}"
        assert found.label_names[found.labels[place]] == event.name
    assert not reader.time_line(start, end, limit=3).complete
    assert set(reader.time_line(start, end, ["hall"], 0.25).ids) == {e.id for e in wanted if e.stream == "hall"}


def test_labels_have_descendants() -> None:
    """A label stands for itself and for all below it, in any case."""
    dog = find_labels(["dog"])
    assert {"/m/0bt9lr", "/m/05tny_"} <= dog < find_labels(["/m/0jbk"])  # Dog and Bark, below Animal
    assert "/m/0bt9lr" not in descendants("/m/0bt9lr")


def test_an_unknown_label_is_refused() -> None:
    """With a suggestion."""
    with pytest.raises(ConfigError, match=r"unknown label 'Dogg'; did you mean 'Dog'\?"):
        find_labels(["Dogg"])


def test_streams_have_their_last_event(reader: HistoryReader) -> None:
    """By name, with the start of the last event."""
    last = {each.stream: each.start for each in everything(reader)[::-1]}
    assert {each.name: each.last for each in reader.streams()} == last
    assert [each.full_name for each in reader.streams()] == ["house/door", "house/hall", "house/yard"]


def test_windows_are_counted_by_hour(tmp_path: Path) -> None:
    """An hour without windows is one in which nothing listened."""
    store = Store(tmp_path)
    store.begin()
    for second in (10, 20, 30, 7300):
        store.receive(second, scores(second, ("Dog", 0.5)))
    store.end(7400)
    with store.reader() as reader:
        assert reader.windows(START, at(3 * 3600)) == {"house/door": (3, 0, 1)}


def test_a_heat_map_has_bounds(reader: HistoryReader) -> None:
    """An unknown stream, and more than a week, are refused."""
    with pytest.raises(HistoryError, match="has no stream house/roof"):
        reader.heat_map("house", "roof", START, at(60))
    with pytest.raises(HistoryError, match="a heat map has 1 to 10080 minutes"):
        reader.heat_map("house", "door", START, at(86_400 * 8))


def test_a_bad_cursor_is_refused() -> None:
    """Only what a page gave is a place."""
    for text in ("", "5", "a-b"):
        with pytest.raises(ValueError, match=r"expected|invalid"):
            Cursor.parse(text)
