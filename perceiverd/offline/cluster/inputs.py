"""Which files a run on many workers has: paths, addresses, patterns, folders, buckets and lists of them."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import fsspec
from fsspec.core import url_to_fs

from perceiverd.core.errors import PerceiverdError
from perceiverd.offline.decoding import is_url

LIST = "@"
"""Before the name of a text file that has one input in each line."""
OWN = frozenset({"http", "https", "file", "local"})
"""Protocols that FFmpeg opens itself, or that are plain paths."""


def expanded(arguments: Iterable[str]) -> list[str]:
    """The files that these arguments name, each once, in order. Raises PerceiverdError for what does not exist.

    An argument is a path, a URL, a folder or bucket (with everything below it), a pattern with `*`, or `@LIST`.
    """
    return list(dict.fromkeys(file for argument in arguments for file in _files_of(argument)))


def is_bucket(file: str) -> bool:
    """Whether fsspec opens this address, and FFmpeg does not."""
    protocol = file.partition("://")[0] if is_url(file) else ""
    return bool(protocol) and protocol not in OWN and protocol in fsspec.available_protocols()


def _files_of(argument: str) -> Iterator[str]:
    if argument == "-":
        raise PerceiverdError("-: standard input cannot be given to several workers; name files")
    if argument.startswith(LIST):
        yield from _listed(argument.removeprefix(LIST))
    elif is_bucket(argument):
        yield from _bucket(argument)
    elif is_url(argument):
        yield argument
    else:
        yield from _local(argument)


def _listed(path: str) -> Iterator[str]:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PerceiverdError(f"{path}: cannot read the list of files: {error}") from error
    for number, line in enumerate(lines, 1):
        name = line.strip()
        if name.startswith(LIST):
            raise PerceiverdError(f"{path}: line {number}: a list cannot name another list")
        if name:
            # Relative paths start at the list's folder, as in a manifest.
            yield from _files_of(name if is_url(name) else str(Path(path).parent / name))


def _bucket(address: str) -> Iterator[str]:
    files, path = _opened(address)
    try:
        found = files.glob(path) if glob.has_magic(path) else files.find(path)
        names = [name for name in found if not files.isdir(name)] if glob.has_magic(path) else found
    except OSError as error:
        raise PerceiverdError(f"{address}: cannot be listed: {error}") from error
    if not names:
        raise PerceiverdError(f"{address}: has no file")
    yield from (files.unstrip_protocol(name) for name in sorted(names))


def _opened(address: str) -> tuple[fsspec.AbstractFileSystem, str]:
    try:
        files, path = url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise PerceiverdError(f"{address}: {error}") from error
    return files, str(path)


def _local(argument: str) -> Iterator[str]:
    path = Path(argument)
    if path.is_dir():
        found = sorted(str(Path(at) / name) for at, _, names in os.walk(path) for name in names if name[0] != ".")
    elif not path.exists() and glob.has_magic(argument):
        # Path.glob takes no absolute patterns.
        found = sorted(name for name in glob.glob(argument, recursive=True) if Path(name).is_file())  # noqa: PTH207
    else:
        yield str(path.absolute())  # a worker may run in another folder; one that is missing fails there with a line
        return
    if not found:
        raise PerceiverdError(f"{argument}: has no file")
    yield from (str(Path(name).absolute()) for name in found)
