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


class Heir(Sample):
    """A class with inherited fields."""

    third: int = 0
    """Its own."""


def test_docstrings_by_field() -> None:
    """Each field with a docstring has it as one line; a field without one is missing."""
    assert field_docstrings(Sample) == {"first": "One line.", "second": "Two lines."}


def test_inherited_fields_are_described() -> None:
    """A field has the docstring under it in the class that declares it; inherited ones come first."""
    assert list(field_docstrings(Heir).items()) == [
        ("first", "One line."),
        ("second", "Two lines."),
        ("third", "Its own."),
    ]
