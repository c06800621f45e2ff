"""Scores as Parquet."""

import io
import json
from pathlib import Path

import numpy as np
import pytest

from perceiverd.core.labels import Label, ontology
from perceiverd.offline.writers.writer import TaggedWindow
from tests.support.file_records import pieces
from tests.support.written import written

pq = pytest.importorskip("pyarrow.parquet", reason="needs the extra parquet")


@pytest.mark.parametrize("windows", [1, 7, 2048, 4099])
def test_all_scores_are_read_back(tmp_path: Path, windows: int) -> None:
    """Each label is a column with exactly the scores of all windows, whatever their number."""
    found = pieces(windows)
    written("parquet", found, tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet")
    expected = np.stack([piece.scores for piece in found if isinstance(piece, TaggedWindow)])
    assert table.num_rows == windows
    for label in (ontology().labels[0], ontology().labels[74], ontology().labels[526]):
        np.testing.assert_array_equal(table[label.name].to_numpy(), expected[:, label.index])
    assert table["start_s"].to_pylist() == [number / 2 for number in range(windows)]
    assert set(table["audio"].to_pylist()) == {True}
    assert set(table["video"].to_pylist()) == {False}
    assert set(table["file"].to_pylist()) == {"a b.mp4"}


def test_columns_name_their_labels(tmp_path: Path) -> None:
    """The file has the mid of each label's column, and says which model made the scores."""
    written("parquet", pieces(), tmp_path / "a.parquet")
    schema = pq.read_schema(tmp_path / "a.parquet")
    mids = json.loads(schema.metadata[b"perceiverd.mids"])
    assert mids[schema.names.index("Dog") - 5] == "/m/0bt9lr"
    assert len(mids) == 527
    assert schema.metadata[b"perceiverd.sha256"] == b"f6e9"
    assert len(schema.names) == 5 + 527


def test_labels_with_one_name_keep_their_columns() -> None:
    """Two labels of one name, or a label called like a fixed column, are told apart by their mids."""
    from perceiverd.offline.writers.parquet import scores_schema

    labels = [Label(0, "/m/a", "Bell"), Label(1, "/m/b", "Bell"), Label(2, "/m/c", "video"), Label(3, "/m/d", "Dog")]
    assert scores_schema(labels).names[5:] == ["/m/a", "/m/b", "/m/c", "Dog"]


def test_a_file_that_was_not_closed_cannot_be_read() -> None:
    """Half a file is no table, so it must not get the name of one."""
    from perceiverd.offline.writers.parquet import ScoresParquet

    out = io.BytesIO()
    writer = ScoresParquet(out)
    for piece in pieces(2100):
        writer.write(piece)
    with pytest.raises(ValueError, match="Parquet"):
        pq.read_table(io.BytesIO(out.getvalue()))
