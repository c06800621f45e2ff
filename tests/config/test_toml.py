"""TOML: what is written reads back as it was."""

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiverd.config.toml import written

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
PLAIN = (
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | TEXT | st.dates() | st.datetimes()
)
VALUES = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3))


@given(st.dictionaries(TEXT, VALUES, max_size=4))
def test_what_is_written_reads_back(table: dict[str, Any]) -> None:
    """Tables, lists of tables and odd keys come back equal from the standard library's reader."""
    assert tomllib.loads(written(table)) == table


def test_it_is_written_as_people_would() -> None:
    """Headings for tables and lists of tables, a line for everything else, nothing for what is None."""
    table = {"top": 1, "a": {"x": None, "y": "z"}, "s": {"door": {"on": True, "sources": [{"kind": "file"}]}}}
    assert written(table) == ('top = 1\n\n[a]\ny = "z"\n\n[s.door]\non = true\n\n[[s.door.sources]]\nkind = "file"\n')
    assert written({}) == ""


def test_what_toml_cannot_hold_is_refused() -> None:
    """A value without a form is a TypeError, not a guess."""
    with pytest.raises(TypeError, match="bytes has no form in TOML"):
        written({"a": [b"x"]})
