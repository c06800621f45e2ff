"""What requests may ask for: the fields are the parameters of the query, checked as they are read."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Meta

from perceiverd.core.errors import PerceiverdError, did_you_mean

Question = TypeVar("Question", bound=msgspec.Struct)
Name = Annotated[str, Meta(min_length=1, max_length=200)]
Score = Annotated[float, Meta(ge=0, le=1)]
UTC_ZONE = "UTC"
MOST_NAMES = 100
FORMS = {"Invalid RFC3339 encoded datetime": "2026-11-26T12:00:00Z", "Invalid RFC3339 encoded date": "2026-11-26"}
"""What msgspec says of times that it cannot read, with an example."""
FIRST_YEAR, LAST_YEAR = 1970, 2999


class QuestionError(PerceiverdError):
    """A request asks for something that cannot be."""


class NoQuestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No parameters."""


class HeatQuestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A heat map."""

    start: datetime
    """The first minute."""
    end: datetime
    """The end of the last minute; at most a week after the start."""
    labels: Annotated[int, Meta(ge=1, le=100)] = 20
    """How many labels, those with the highest scores."""


class EventsQuestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Conditions that must all hold."""

    stream: Annotated[tuple[Name, ...], Meta(max_length=MOST_NAMES)] = ()
    """`machine/stream`, or `stream` for that stream of every machine; may be repeated."""
    label: Annotated[tuple[Name, ...], Meta(max_length=MOST_NAMES)] = ()
    """A label by name or mid, with all labels below it in the ontology; may be repeated."""
    after: datetime | None = None
    """The event began at this time or later."""
    before: datetime | None = None
    """The event began before this time."""
    least_peak: Score = 0.0
    """Its highest score was at least this."""
    state: Literal["open", "ended", "end not received"] | None = None
    limit: Annotated[int, Meta(ge=1, le=500)] = 100
    """Most events of the page."""
    cursor: Annotated[str, Meta(max_length=60)] | None = None
    """`next` of the page before."""


class StatisticsQuestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Conditions as for events."""

    stream: Annotated[tuple[Name, ...], Meta(max_length=MOST_NAMES)] = ()
    """As for events."""
    label: Annotated[tuple[Name, ...], Meta(max_length=MOST_NAMES)] = ()
    """As for events."""
    after: datetime | None = None
    """As for events."""
    before: datetime | None = None
    """As for events."""
    least_peak: Score = 0.0
    """As for events."""
    zone: Name = UTC_ZONE
    """The time zone of hours and days, such as Europe/Berlin."""


class DayQuestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A day."""

    date: date
    """Such as 2026-11-26."""
    zone: Name = UTC_ZONE
    """The time zone of the day."""
    least_peak: Score = 0.0
    """Only events whose highest score was at least this."""


class LabelsQuestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Labels whose name has this text."""

    q: Annotated[str, Meta(max_length=200)] = ""
    limit: Annotated[int, Meta(ge=1, le=1000)] = 50


class LiveQuestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to follow."""

    explain: Annotated[str, Meta(max_length=200)] | None = None
    """`machine/stream` whose reasons are sent too."""


class LoginBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request to sign in."""

    password: str
    """What `perceiverd web password` was given."""


class CorrectionBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The body of a correction: of an event, or of a time on a stream."""

    verdict: Literal["right", "wrong", "missed", "example"]
    """`missed` and `example` are about a time."""
    event: int | None = None
    """The event's number, for `right` and `wrong`."""
    machine: Name | None = None
    """Of the stream, for `missed` and `example`."""
    stream: Name | None = None
    """The same."""
    label: Name | None = None
    """A label by name or mid; for `example` it may be a name of your own."""
    start: datetime | None = None
    """When the sound begins."""
    end: datetime | None = None
    """When it ends, at most 10 minutes later."""


def read_query(pairs: Iterable[tuple[str, str]], kind: type[Question]) -> Question:
    """The parameters of a query. Raises QuestionError: the parameter, what is wrong, a suggestion."""
    lists = {field.name for field in msgspec.structs.fields(kind) if _is_list(field.type)}
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in lists:
            values.setdefault(name, []).append(value)
        elif name in values:
            raise QuestionError(f"{name}: is given twice; give it once")
        else:
            values[name] = value
    known = [field.name for field in msgspec.structs.fields(kind)]
    if unknown := next((name for name in values if name not in known), None):
        hint = did_you_mean(unknown, known) if known else "this request has none"
        raise QuestionError(f"{unknown[:100]}: unknown parameter; {hint}")
    try:
        found = msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        raise QuestionError(_plain(error)) from None
    except UnicodeEncodeError:
        raise QuestionError("the query has letters that are no Unicode") from None
    return found


def read_body(body: bytes, kind: type[Question]) -> Question:
    """A body in JSON. Raises QuestionError."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise QuestionError(_plain(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise QuestionError("the body is not JSON; send one JSON object") from None


def read_zone(name: str) -> ZoneInfo:
    """The time zone of this name. Raises QuestionError."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise QuestionError("zone: unknown time zone; give one such as Europe/Berlin") from None


def aware(time: datetime) -> datetime:
    """A time without a zone is taken for UTC. Raises QuestionError for a time that no clock shows."""
    if not FIRST_YEAR <= time.year <= LAST_YEAR:
        raise QuestionError(f"a time must be between the years {FIRST_YEAR} and {LAST_YEAR}")
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time


def _is_list(kind: Any) -> bool:
    return get_origin(get_args(kind)[0] if get_origin(kind) is Annotated else kind) is tuple


def _plain(error: msgspec.ValidationError) -> str:
    """`limit: expected int <= 500` of msgspec's words."""
    what, _, place = str(error).partition(" - at `$")
    place = place.rstrip("`").lstrip(".")
    what = what.replace("`", "")
    for form, example in FORMS.items():
        what = what.replace(form, f"expected a time such as {example}")
    return f"{place}: {what[:1].lower()}{what[1:]}" if place else f"{what[:1].lower()}{what[1:]}"
