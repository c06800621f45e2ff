"""Records as a table."""

import csv
import io

from perceiverd.offline.writers.rows import COLUMNS, CsvTable
from perceiverd.offline.writers.writer import ALL_KINDS
from tests.support.file_records import pieces


def table(file: str = "a b.mp4") -> list[dict[str, str]]:
    """All pieces of a file as CSV, read back."""
    written = io.StringIO()
    writer = CsvTable(written, ALL_KINDS)
    for piece in pieces(3, file):
        writer.write(piece)
    return list(csv.DictReader(io.StringIO(written.getvalue())))


def test_each_label_of_a_window_is_a_row() -> None:
    """Three windows with five labels are 15 rows; events and the summary follow, all with the same columns."""
    rows = table()
    assert [row["type"] for row in rows] == ["scores"] * 15 + ["event"] * 2 + ["summary"]
    assert list(rows[0]) == list(COLUMNS)
    assert all((row["score"] == "") == (row["type"] != "scores") for row in rows)
    assert rows[0]["modalities"] == "audio"


def test_an_event_has_its_peak_and_mean() -> None:
    """The row of an event has its times, id and scores."""
    (dog, _) = (row for row in table() if row["type"] == "event")
    assert (dog["name"], dog["start_s"], dog["end_s"], dog["id"]) == ("Dog", "0.64", "3.2", "74-640")
    assert (dog["peak"], dog["mean"]) == ("0.912345", "0.8")


def test_a_name_with_commas_quotes_and_line_breaks_stays_one_field() -> None:
    """A CSV reader gets back the name of the file."""
    name = 'a,"b"\nc;\td.wav'
    assert {row["file"] for row in table(name) if row["type"] == "scores"} == {name}
