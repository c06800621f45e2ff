"""Queries and bodies of any form: a question, or one sentence."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiverd.web import guard, questions
from perceiverd.web.questions import (
    CorrectionBody,
    DayQuestion,
    EventsQuestion,
    HeatQuestion,
    LoginBody,
    QuestionError,
    StatisticsQuestion,
    read_body,
    read_query,
    read_zone,
)

KINDS: tuple[type[msgspec.Struct], ...] = (EventsQuestion, HeatQuestion, StatisticsQuestion, DayQuestion)
NAMES = sorted({field.name for kind in KINDS for field in msgspec.structs.fields(kind)})
ODD = ["9" * 5000, "-1", "nan", "1e400", "2026-11-26T12:00:00Z", "\ud800", ""]
VALUES = st.text(max_size=40) | st.sampled_from(ODD)


def refusal(read: Callable[[], object]) -> str:
    """What a reader says of what it is given; empty if it takes it."""
    try:
        read()
    except QuestionError as error:
        return str(error)
    return ""


@given(st.sampled_from(KINDS), st.lists(st.tuples(st.sampled_from(NAMES) | st.text(max_size=9), VALUES), max_size=6))
def test_any_query_is_a_question_or_a_sentence(kind: type[msgspec.Struct], pairs: list[tuple[str, str]]) -> None:
    """No other exception leaves the reader, and the sentence has one line."""
    assert "\n" not in refusal(lambda: read_query(pairs, kind))


@given(st.binary(max_size=60) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(msgspec.json.encode))
def test_any_body_is_a_question_or_a_sentence(body: bytes) -> None:
    """Whatever bytes or JSON are sent."""
    assert "\n" not in refusal(lambda: read_body(body, LoginBody)) + refusal(lambda: read_body(body, CorrectionBody))


def test_what_a_query_gives() -> None:
    """Names may be repeated, times get a zone, and defaults hold."""
    pairs = [("stream", "a"), ("stream", "b/c"), ("after", "2026-11-26T12:00:00+01:00"), ("limit", "7")]
    found = read_query(pairs, EventsQuestion)
    assert (found.stream, found.limit, found.label, found.state) == (("a", "b/c"), 7, (), None)
    assert found.after == datetime(2026, 11, 26, 11, tzinfo=UTC)
    assert questions.aware(datetime(2026, 1, 1)).tzinfo is UTC


@pytest.mark.parametrize("name", ["Europe/Nowhere", "../../etc/passwd", "/etc/localtime", "a\0b", "x" * 300, "Europe"])
def test_wrong_zones(name: str) -> None:
    """A zone is a name of the database of zones, never a path."""
    with pytest.raises(QuestionError, match="zone: unknown time zone"):
        read_zone(name)


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("localhost", "localhost"),
        ("LocalHost:8480", "localhost"),
        ("cams.example.org.", "cams.example.org"),
        ("[::1]", "::1"),
        ("[::1]:80", "::1"),
        ("192.0.2.1:80", "192.0.2.1"),
        ("a:b", None),
        ("", None),
        (":80", None),
    ],
)
def test_the_name_in_a_host_header(host: str, name: str | None) -> None:
    """In lower case, without port, brackets and the dot at its end."""
    assert guard.host_name(host) == name


@given(st.text(max_size=60))
def test_any_host_header(text: str) -> None:
    """It never raises, and what is taken for an address is one."""
    name = guard.host_name(text)
    assert name is None or name == name.lower()
    assert guard.is_address(text) is False or text.replace(".", "").replace(":", "").isalnum() or "%" in text
