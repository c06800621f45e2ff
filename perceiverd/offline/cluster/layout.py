"""Where the outputs of a run on many workers lie: in a folder or bucket, a file of scores for each input.

* `scores/NAME-HASH.parquet`: the scores of a file
* `failed/NAME-HASH.json`: the error of a file of which nothing could be read
* `failed/NAME-HASH.partial.json`: the same if the first part was read and has scores

The hash is of the input's whole address, so two files of one name do not meet. An output appears under its name when it
is complete, so a file that is there is done: a run that was interrupted continues with the others. Knows no model.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

import msgspec
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from perceiverd.core.errors import PerceiverdError

SCORES, FAILED = "scores", "failed"
UNFINISHED = ".tmp"
LONGEST_NAME = 80
"""Characters of the input's name in that of its outputs. File systems allow 255 bytes."""


class ClusterOutputs:
    """A folder or bucket of outputs. It can be pickled."""

    def __init__(self, url: str) -> None:
        """`url`: a path, or an address that fsspec knows. Raises PerceiverdError for any other."""
        self.url = url
        try:
            self._files, self._root = url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise PerceiverdError(f"{url}: cannot be an output: {error}") from error

    def prepare(self) -> None:
        """Make the folders. Raises PerceiverdError if that is not possible."""
        try:
            for name in (SCORES, FAILED):
                self._files.makedirs(f"{self._root}/{name}", exist_ok=True)
        except OSError as error:
            raise PerceiverdError(
                f"{self.url}: cannot write the outputs: {error.strerror or error}; check the folder and the permissions"
            ) from error

    def done(self) -> frozenset[str]:
        """The stems of the inputs that are done: those with scores, and those of which nothing could be read."""
        found = {_name(path).removesuffix(".parquet") for path in self._listed(SCORES) if path.endswith(".parquet")}
        failed = (_name(path) for path in self._listed(FAILED) if path.endswith(".json"))
        return frozenset(found | {name.removesuffix(".json") for name in failed if not name.endswith(".partial.json")})

    def _listed(self, folder: str) -> list[str]:
        try:
            return [str(path) for path in self._files.find(f"{self._root}/{folder}")]
        except FileNotFoundError:
            return []

    @contextmanager
    def scores(self, stem: str) -> Iterator[IO[bytes]]:
        """The file of scores, open for writing. It appears when the block ends, but not if it ends with an error."""
        with self._written(f"{self._root}/{SCORES}/{stem}.parquet") as out:
            yield out

    def fail(self, stem: str, file: str, error: str, *, windows: int) -> None:
        """Write the error of a file; `windows` have been read before it."""
        kind = "partial.json" if windows else "json"
        with self._written(f"{self._root}/{FAILED}/{stem}.{kind}") as out:
            out.write(msgspec.json.encode({"file": file, "windows": windows, "error": error}))

    @contextmanager
    def _written(self, path: str) -> Iterator[IO[bytes]]:
        # A name of its own, because two workers may write the same file after one of them seemed dead. For a bucket the
        # file is complete before it is sent: half an object would appear if a worker ended while it sent one.
        if self._is_local:
            place = Path(f"{path}.{uuid.uuid4().hex[:8]}{UNFINISHED}")
        else:
            number, name = tempfile.mkstemp(prefix="perceiverd-")
            os.close(number)
            place = Path(name)
        try:
            with place.open("wb") as out:
                yield out
            if self._is_local:
                place.replace(path)
            else:
                self._files.put_file(str(place), path)
        finally:
            place.unlink(missing_ok=True)

    def sweep(self, stems: Iterable[str]) -> None:
        """Delete what dead workers have left of these inputs, when all of them are done."""
        own = set(stems)
        for folder in (SCORES, FAILED) if self._is_local else ():
            for path in Path(self._root, folder).glob(f"*{UNFINISHED}"):
                stem = re.sub(r"(\.partial)?\.(parquet|json)\.\w{8}\.tmp$", "", path.name)
                if stem in own:
                    path.unlink(missing_ok=True)

    @property
    def _is_local(self) -> bool:
        return isinstance(self._files, LocalFileSystem)


def stem_of(file: str) -> str:
    """What the names of an input's outputs begin with."""
    name = re.sub(r"[^\w.-]", "_", PurePosixPath(file.partition("?")[0]).name)[-LONGEST_NAME:] or "input"
    return f"{name}-{hashlib.sha256(os.fsencode(file)).hexdigest()[:16]}"


def _name(path: str) -> str:
    return PurePosixPath(path).name
