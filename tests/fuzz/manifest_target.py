"""Lists of labelled clips: `evaluation.manifest`, in each of its formats."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

from perceiverd.core.errors import ConfigError
from perceiverd.core.labels import ontology
from perceiverd.evaluation import manifest
from tests.fuzz import mutations
from tests.fuzz.target import Target, named

SEEDS = (
    b"file,start_s,end_s,labels\na.wav,0.5,2,dog|/m/05tny_\n\nsub/c.mp4,,,Door bell at home\nb.wav,,,\n",
    b"\xef\xbb\xbffile;labels\na.wav;Dog\nb.wav;Kettle song|user/my-kettle\n",
    b'file\tlabels\na.wav\t"Dog|Bark"\n',
    b'labels,file\n"Inside, small room",a.wav\n"a\nb",b.wav\n',
    b'# Segments csv\n# YTID, start_seconds, end_seconds, positive_labels\n-0RWZT-miFs, 42.000, 52.000, "/m/03v3yw"\n',
    b'abcdefghijk, 0.000, 10.000, "/m/09x0r"\n',
)  # fmt: skip
CELLS = (
    b"", b'"', b'""', b"nan",
    b"inf", b"-inf", b"-1", b"1e308", b"1_0", b"0x1", "١".encode(), b"a" * 300, b"a" * 5000, b"/",
    b"..", b"a.wav\0", b"\0", b"user/", b"user/\x1b", b"/m/zz", b"Dgo",
    b"Dog", b"|", b"||", b"\r", b"\n", b"x\x85y", b"\x1b[31m", b"\xff",
    b"*", b"[a", "\u2028".encode(), b'"' + b"b" * 200_000, b"c" * 140_000,
)  # fmt: skip


def make_seeds(folder: Path) -> list[bytes]:
    """Our format with each separator, and AudioSet's."""
    return list(SEEDS)


def mutate(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """Damage cells, lines or bytes."""
    if rng.random() < 0.7:
        return mutations.damage_lines(data, rng, others, _damaged_line)
    return mutations.damage(data, rng, others)


def _damaged_line(line: bytes, rng: Random) -> bytes:
    sign = rng.choice((b",", b",", b";", b"\t", b"|"))
    cells = line.split(sign)
    at = rng.randrange(len(cells))
    match rng.randrange(6):
        case 0:
            del cells[at]
        case 1:
            cells.insert(at, rng.choice(CELLS))
        case 2:
            cells.insert(at, cells[rng.randrange(len(cells))])
        case _:
            cells[at] = rng.choice(CELLS)
    return sign.join(cells)


def run(data: bytes, folder: Path) -> str:
    """Read it in each format. An error begins with the file's name."""
    path, media = folder / "clips.csv", folder / "media"
    if not media.exists():
        (folder / "sub").mkdir()
        media.mkdir()
        for name in ("a.wav", "b.wav", "sub/c.mp4", "media/-0RWZT-miFs.mp4", "media/abcdefghijk_0.wav"):
            (folder / name).write_bytes(b"\0")
    path.write_bytes(data)
    known, read, refused = ontology().labels, [], []
    formats: tuple[manifest.ManifestFormat, ...] = ("auto", "perceiverd", "audioset")
    for each in formats:
        try:
            found = manifest.read(path, known, manifest_format=each, media=media, skip=0.5, logs=False)
        except ConfigError as error:
            refused.append(named(error, path))
        else:
            assert all(row.file.is_file() and row.start_s >= 0 for row in found.rows), "a row of no use"
            read.append(f"{each} {len(found.rows)} {len(found.new)}")
    if len(refused) == len(formats):
        raise refused[len(data) % len(refused)]  # so that the messages of each format guide the search
    return f"read {', '.join(read)}"


TARGET = Target("manifest", make_seeds, mutate, run)
