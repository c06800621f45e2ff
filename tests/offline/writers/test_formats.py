"""The formats by name."""

import io

import pytest

from perceiverd.core.errors import PerceiverdError
from perceiverd.offline.writers.formats import FORMATS, Format, chosen
from perceiverd.offline.writers.writer import WriterOptions
from tests.support.file_records import pieces


def test_a_list_gives_each_format_once() -> None:
    """Names are separated by commas; a name that is repeated counts once."""
    assert [form.name for form in chosen("csv, jsonl,csv")] == ["csv", "jsonl"]


@pytest.mark.parametrize(
    ("names", "message"),
    [("jsnl", "unknown format 'jsnl'; did you mean 'jsonl'"), ("text,xyz", "choose from"), (",", "no format; choose")],
)
def test_an_unknown_format_is_an_error_with_advice(names: str, message: str) -> None:
    """The error names the nearest format, or all of them."""
    with pytest.raises(PerceiverdError, match=message):
        chosen(names)


@pytest.mark.parametrize("form", FORMATS.values(), ids=lambda form: form.name)
def test_every_format_writes_something(form: Format) -> None:
    """A format writes the pieces of a file into an output of its kind, and ends with a line end if it is text."""
    out = io.BytesIO() if form.is_binary else io.StringIO()
    writer = form.make(out, WriterOptions(form.kinds))
    for piece in pieces(5):
        writer.write(piece)
    writer.close()
    written = out.getvalue()
    assert len(written) > 20
    assert isinstance(written, bytes) or written.endswith("\n")


def test_names_and_suffixes_are_unique() -> None:
    """No two formats write the same output."""
    assert len({form.suffix for form in FORMATS.values()}) == len(FORMATS)
    assert all(name == form.name for name, form in FORMATS.items())
