"""Scores as Parquet: a row for each window, a column for each label. Needs the extra `parquet`.

A reader that wants one label reads one column, of a file or of a million: `SELECT start_s FROM 'out/**/*.parquet' WHERE
"Dog" > 0.5`. The file is readable only once it is closed, because Parquet has its index at the end.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from perceiverd.core.labels import Label
from perceiverd.offline.writers.writer import FileFacts, TaggedWindow, Writer

ROWS = 2048
"""Windows that are written together: 4 MB of AudioSet's scores. Fewer would cost more space for the index."""
FIXED = (
    pa.field("file", pa.string()),
    pa.field("start_s", pa.float64()),
    pa.field("end_s", pa.float64()),
    pa.field("audio", pa.bool_()),
    pa.field("video", pa.bool_()),
)
"""Columns before those of the labels. `audio` and `video`: whether the model received it."""


class ScoresParquet(Writer):
    """All scores of a file, as float32. Times are seconds from the start of the file.

    The file's metadata has the version, model, checksum, window and hop, and the mids of the labels in their order.
    """

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self._parquet: pq.ParquetWriter | None = None
        self._file = ""
        self._rows = 0
        self._scores: NDArray[np.float32] = np.zeros((0, 0), np.float32)
        self._times_s = np.zeros((ROWS, 2))
        self._present = np.zeros((ROWS, 2), np.bool_)

    def begin(self, facts: FileFacts) -> None:
        header, labels = facts.header, facts.card.labels
        about = {
            "perceiverd.version": header.version,
            "perceiverd.model": header.model.name,
            "perceiverd.sha256": header.model.sha256,
            "perceiverd.window_s": str(header.window_s),
            "perceiverd.hop_s": str(header.hop_s),
            "perceiverd.mids": json.dumps([label.mid for label in labels]),
        }
        self._file, self._scores = header.file, np.zeros((ROWS, len(labels)), np.float32)
        # A second copy of the schema, for Arrow, would be a third of the file of a short clip.
        self._parquet = pq.ParquetWriter(
            self._out, scores_schema(labels), compression="zstd", use_dictionary=["file"], store_schema=False
        )
        self._parquet.add_key_value_metadata(about)

    def window(self, tagged: TaggedWindow) -> None:
        record = tagged.record
        self._scores[self._rows] = tagged.scores
        self._times_s[self._rows] = record.start_s, record.end_s
        self._present[self._rows] = "audio" in record.modalities, "video" in record.modalities
        self._rows += 1
        if self._rows == ROWS:
            self._flush()

    def close(self) -> None:
        if self._parquet:
            self._flush()
            self._parquet.close()

    def _flush(self) -> None:
        assert self._parquet
        rows, self._rows = slice(self._rows), 0
        fixed = [[self._file] * rows.stop, *self._times_s[rows].T, *self._present[rows].T]
        columns = [pa.array(values, field.type) for values, field in zip(fixed, FIXED, strict=True)]
        columns += [pa.array(values) for values in self._scores[rows].T]
        self._parquet.write_batch(pa.record_batch(columns, schema=self._parquet.schema))


def scores_schema(labels: Sequence[Label]) -> pa.Schema:
    """The columns. A label's column has its name; if another column has that too, its mid."""
    names = Counter([label.name for label in labels] + [field.name for field in FIXED])
    return pa.schema(
        [
            *FIXED,
            *(pa.field(label.name if names[label.name] == 1 else label.mid, pa.float32()) for label in labels),
        ]
    )
