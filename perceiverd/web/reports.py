"""Answers from the history. Each function asks one reader, on the thread that calls it. Knows no request."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import msgspec

from perceiverd.core.errors import ConfigError
from perceiverd.core.labels import Label, ontology
from perceiverd.corrections import Verdict
from perceiverd.history import Cursor, EventFilter, HistoryReader, Statistics, StoredEvent, find_labels
from perceiverd.history.rows import EventState, to_ms
from perceiverd.web.answers import (
    DayAnswer,
    EventAnswer,
    EventDetailsAnswer,
    EventPageAnswer,
    EventsAnswer,
    FoundLabelAnswer,
    FoundLabelsAnswer,
    HeatAnswer,
    HeatRowAnswer,
    TraceAnswer,
)
from perceiverd.web.media import MediaFolders
from perceiverd.web.questions import (
    DayQuestion,
    EventsQuestion,
    HeatQuestion,
    LabelsQuestion,
    QuestionError,
    StatisticsQuestion,
    aware,
    read_zone,
)

Judge = Callable[[StoredEvent], Verdict | None]
"""Says what the last correction of an event says."""
LONGEST_HEAT = timedelta(days=7) - timedelta(minutes=2)
"""A week, which the history rounds to whole minutes."""
LARGEST_ID = (1 << 63) - 1


def event_answer(event: StoredEvent, media: MediaFolders, judge: Judge) -> EventAnswer:
    """An event in a list."""
    kinds = media.kinds(event)
    return EventAnswer(
        id=event.id,
        machine=event.machine,
        stream=event.stream,
        key=event.key,
        mid=event.mid,
        name=event.name,
        start=event.start,
        end=event.end,
        state=event.state,
        peak=event.peak,
        mean=event.mean,
        picture="picture" in kinds,
        clip="clip" in kinds,
        sound="sound" in kinds,
        spectrogram="spectrogram" in kinds,
        withheld=event.details.withheld,
        verdict=judge(event),
    )


def events(reader: HistoryReader, question: EventsQuestion, media: MediaFolders, judge: Judge) -> EventsAnswer:
    """A page of events. Raises QuestionError."""
    try:
        cursor = Cursor.parse(question.cursor) if question.cursor else None
        if cursor is not None and max(abs(cursor.start_ms), abs(cursor.id)) > LARGEST_ID:
            raise ValueError
    except ValueError:
        raise QuestionError("cursor: is not one of ours; use `next` of the page before") from None
    page = reader.events(_filter(reader, question, question.state), question.limit, cursor)
    return EventsAnswer(
        tuple(event_answer(each, media, judge) for each in page.events), None if page.next is None else str(page.next)
    )


def event_page(reader: HistoryReader, number: int, media: MediaFolders, judge: Judge) -> EventPageAnswer | None:
    """One event with its scores; None if there is none with this number."""
    if (event := stored(reader, number)) is None:
        return None
    trace = reader.trace(number)
    names = {label.mid: label.name for label in (*ontology().labels, *reader.labels())}
    used = {mid for window in trace for mid in window.scores}
    details = {
        name: value
        for name, value in msgspec.structs.asdict(event.details).items()
        if name in EventDetailsAnswer.__struct_fields__
    }
    return EventPageAnswer(
        **msgspec.structs.asdict(event_answer(event, media, judge)),
        details=EventDetailsAnswer(**details),
        trace=tuple(TraceAnswer(window.end, window.scores) for window in trace),
        labels={mid: names.get(mid, mid) for mid in used},
        previous=_previous(reader, event),
        next=_next(reader, event),
    )


def stored(reader: HistoryReader, number: int) -> StoredEvent | None:
    """The event with this number; None if there is none."""
    return reader.event(number) if number <= LARGEST_ID else None


def heat(reader: HistoryReader, machine: str, stream: str, question: HeatQuestion) -> HeatAnswer | None:
    """The scores of a stream by minute; None for an unknown stream. Raises QuestionError for too long a time."""
    start, end = aware(question.start), aware(question.end)
    if not timedelta(0) < end - start <= LONGEST_HEAT:
        raise QuestionError("end: must be after start, at most a week")
    if not any((each.machine, each.name) == (machine, stream) for each in reader.streams()):
        return None
    found = reader.heat_map(machine, stream, start, end, question.labels)
    listening = [count > 0 for count in found.windows]

    def known(values: tuple[float, ...]) -> tuple[float | None, ...]:
        return tuple(value if heard else None for value, heard in zip(values, listening, strict=True))

    return HeatAnswer(
        minutes=tuple(found.start + timedelta(minutes=i) for i in range(found.minutes)),
        windows=found.windows,
        rows=tuple(
            HeatRowAnswer(mid, name, known(best), known(mean))
            for mid, name, best, mean in zip(found.mids, found.names, found.best, found.mean, strict=True)
        ),
    )


def day(reader: HistoryReader, question: DayQuestion) -> DayAnswer:
    """A day of all streams. Raises QuestionError."""
    zone = read_zone(question.zone)
    aware(datetime.combine(question.date, time(), UTC))
    start, end = (_midnight(question, zone, days) for days in (0, 1))
    return DayAnswer(
        start=start,
        end=end,
        time_line=reader.time_line(start, end, least_peak=question.least_peak),
        spans=reader.spans(start, end),
        windows_start=start.replace(minute=0, second=0, microsecond=0),
        windows=reader.windows(start, end),
    )


def labels(reader: HistoryReader | None, question: LabelsQuestion) -> FoundLabelsAnswer:
    """Labels with this text in their names, those of the history first, and first those that begin with it."""
    wanted = question.q.casefold().strip()
    heard = reader.labels() if reader else ()
    known = {label.mid for label in heard}
    others = sorted((each for each in ontology().labels if each.mid not in known), key=lambda label: label.name)
    found = [label for label in (*heard, *others) if wanted in label.name.casefold() or wanted == label.mid.casefold()]
    found.sort(key=lambda label: (label.mid not in known, not label.name.casefold().startswith(wanted)))
    return FoundLabelsAnswer(tuple(FoundLabelAnswer(each.mid, each.name) for each in found[: question.limit]))


def statistics(reader: HistoryReader, question: StatisticsQuestion) -> Statistics:
    """Counts of events. Raises QuestionError."""
    return reader.statistics(_filter(reader, question), read_zone(question.zone))


def label_named(reader: HistoryReader | None, name: str) -> Label | None:
    """The label with this name or mid, in any case; None if there is none."""
    for label in (*ontology().labels, *(reader.labels() if reader else ())):
        if name.casefold() in (label.mid.casefold(), label.name.casefold()):
            return label
    return None


def _filter(
    reader: HistoryReader, question: EventsQuestion | StatisticsQuestion, state: EventState | None = None
) -> EventFilter:
    try:
        mids = find_labels(question.label, reader.labels()) if question.label else None
    except ConfigError as error:
        raise QuestionError(f"label: {error}") from None
    return EventFilter(
        streams=question.stream,
        mids=mids,
        after=question.after and aware(question.after),
        before=question.before and aware(question.before),
        least_peak=question.least_peak,
        state=state,
    )


def _midnight(question: DayQuestion, zone: ZoneInfo, days: int) -> datetime:
    return datetime.combine(question.date + timedelta(days=days), time(), zone).astimezone(UTC)


def _previous(reader: HistoryReader, event: StoredEvent) -> int | None:
    here = EventFilter(streams=(f"{event.machine}/{event.stream}",))
    found = reader.events(here, 1, Cursor(to_ms(event.start), event.id)).events
    return found[0].id if found else None


def _next(reader: HistoryReader, event: StoredEvent) -> int | None:
    later = EventFilter(streams=(f"{event.machine}/{event.stream}",), after=event.start)
    place = (event.start, event.id)
    return next((each.id for each in reader.every(later) if (each.start, each.id) > place), None)
