"""The lines of corrections.jsonl."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiverd.core.errors import CorrectionError
from perceiverd.corrections.manifest import LONGEST, NAME_LETTERS, VERDICTS, Correction, decoded, encoded

NOON = datetime(2026, 5, 17, 12, tzinfo=UTC)

names = st.text(min_size=1, max_size=NAME_LETTERS).filter(str.isprintable)
times = st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC))


@st.composite
def corrections(draw: st.DrawFn) -> Correction:
    number, start = draw(st.from_regex(r"[0-9a-f]{16}", fullmatch=True)), draw(times)
    has_sound = draw(st.booleans())
    return Correction(
        id=number,
        at=draw(times),
        verdict=draw(st.sampled_from(VERDICTS)),
        machine=draw(names),
        stream=draw(names),
        mid=draw(names),
        name=draw(names),
        start=start,
        end=start + draw(st.timedeltas(timedelta(microseconds=1), LONGEST)),
        event=draw(st.none() | names),
        sound=f"{number}.{draw(st.sampled_from(['flac', 'mkv']))}" if has_sound else None,
        sound_start=draw(st.none() | times) if has_sound else None,
        why=None if has_sound else draw(st.text()),
    )


@given(st.lists(corrections(), max_size=5))
def test_what_is_written_is_read(some: list[Correction]) -> None:
    """Each correction is one line, whatever its texts hold, and reads back the same."""
    data = encoded(some)
    assert data.count(b"\n") == len(some)
    assert list(decoded(data, "here")) == some
    assert all(isinstance(json.loads(line), dict) for line in data.splitlines())  # other programs can read it


@given(st.binary(max_size=300))
def test_damaged_lines_are_refused_with_their_place(data: bytes) -> None:
    """Anything else is refused with one line that names the file."""
    try:
        decoded(data, "here")
    except CorrectionError as error:
        assert str(error).startswith("here: line ")  # noqa: PT017  # valid lines raise nothing


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", "../../etc/passwd"),
        ("id", "0123456789abcdeF"),
        ("sound", "../0123456789abcdef.flac"),
        ("sound", "fedcba9876543210.flac"),
        ("sound", "0123456789abcdef.sh"),
        ("stream", ""),
        ("stream", "door\n"),
        ("machine", "m" * (NAME_LETTERS + 1)),
        ("name", "\x1b[31mDog"),
        ("event", "\u202edog"),
        ("end", NOON),
        ("end", NOON + LONGEST + timedelta(seconds=1)),
        ("start", NOON.replace(tzinfo=None)),
    ],
)
def test_hostile_values_are_refused(field: str, value: object) -> None:
    """An id, a file or a name that is none of ours cannot be stored."""
    good = {
        "id": "0123456789abcdef",
        "at": NOON,
        "verdict": "right",
        "machine": "local",
        "stream": "door",
        "mid": "/m/0bt9lr",
        "name": "Dog",
        "start": NOON,
        "end": NOON + timedelta(seconds=3),
    }
    Correction(**good)  # type: ignore[arg-type]
    with pytest.raises((ValueError, TypeError)):
        Correction(**{**good, field: value})  # type: ignore[arg-type]
