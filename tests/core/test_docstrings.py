"""Docstrings under fields are read from the source."""

import msgspec

from perceiverd.core.docstrings import field_docstrings


class Sample(msgspec.Struct):
    """A class with fields."""

    first: int = 0
    """One line."""
    bare: int = 0
    second: int = 0
    """Two
    lines."""


def test_docstrings_by_field() -> None:
    """Each field with a docstring has it as one line; a field without one is missing."""
    assert field_docstrings(Sample) == {"first": "One line.", "second": "Two lines."}
