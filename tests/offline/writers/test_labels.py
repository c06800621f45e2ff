"""Label tables for Audacity, Raven and tools that read RTTM."""

import csv
import io

from perceiverd.offline.writers.labels import RAVEN_COLUMNS
from tests.support.file_records import event, pieces
from tests.support.written import written

ODD = "a\tb\nc  d"
"""A name with all that separates columns and lines."""


def test_audacity_labels_are_three_columns() -> None:
    """Start, end and the name with the highest score, separated by tabs."""
    assert written("audacity", pieces()).splitlines() == [
        "0.640000\t3.200000\tDog 0.91",
        "1.000000\t2.500000\tMusic 0.91",
    ]


def test_raven_gets_its_columns() -> None:
    """Selections have numbers from 1, the range of the model's audio, and the file they belong to."""
    rows = list(csv.DictReader(io.StringIO(written("raven", pieces())), delimiter="\t"))
    assert list(rows[0]) == list(RAVEN_COLUMNS)
    assert [row["Selection"] for row in rows] == ["1", "2"]
    assert rows[0] | {"Begin Time (s)": "0.640", "End Time (s)": "3.200", "Label": "Dog"} == rows[0]
    assert (rows[0]["High Freq (Hz)"], rows[0]["Begin Path"]) == ("8000", "a b.mp4")


def test_rttm_has_ten_fields() -> None:
    """Spaces in names become `_`; the file has no folder and no ending; the confidence is the peak."""
    (line, _) = written("rttm", pieces()).splitlines()
    assert line.split(" ") == ["SPEAKER", "a_b", "1", "0.640", "2.560", "<NA>", "<NA>", "Dog", "0.9123", "<NA>"]


def test_names_lose_what_separates_columns() -> None:
    """A line for an event has its number of fields whatever its name is."""
    found = [pieces(1, ODD)[0], event(ODD)]
    assert written("audacity", found).count("\t") == 2
    assert written("raven", found).splitlines()[1].count("\t") == len(RAVEN_COLUMNS) - 1
    assert written("rttm", found).split() == written("rttm", found).strip().split(" ")


def test_a_file_without_events_is_an_empty_table() -> None:
    """Raven still gets its column names."""
    found = pieces()[:3]
    assert written("audacity", found) == written("rttm", found) == ""
    assert written("raven", found) == "\t".join(RAVEN_COLUMNS) + "\n"
