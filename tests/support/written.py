"""What a format writes for given pieces."""

import io
from collections.abc import Iterable
from pathlib import Path

from perceiverd.offline.writers.formats import FORMATS
from perceiverd.offline.writers.writer import Piece, WriterOptions


def written(name: str, pieces: Iterable[Piece], path: Path | None = None) -> str:
    """The text that a format makes of the pieces of a file; also written to this path. Empty if it is not text."""
    form = FORMATS[name]
    out = io.BytesIO() if form.is_binary else io.StringIO()
    writer = form.make(out, WriterOptions(form.kinds))
    for piece in pieces:
        writer.write(piece)
    writer.close()
    value = out.getvalue()
    data = value if isinstance(value, bytes) else value.encode()
    if path:
        path.write_bytes(data)
    return "" if isinstance(value, bytes) else value
