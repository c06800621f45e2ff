"""A corpus: all sounds of a recipe as 16 kHz mono in one file, with one line for each clip.

`pcm.i16` holds the samples, `level.i8` the loudness of each 0.16 s, `index.tsv` the clips, `recipe.json` the recipe and
`sums.txt` the SHA-256 of these files: the same recipe gives the same bytes. Knows nothing of mixtures or teachers.
"""

import csv
import hashlib
import io
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path
from typing import Self

import av
import msgspec
import numpy as np
from numpy.typing import NDArray

from perceiverd.core.logs import log_event
from perceiverd.training.data import listings, packages
from perceiverd.training.data.copyright import Copyright
from perceiverd.training.data.fingerprint import FINE, Fingerprint, FingerprintIndex, fingerprint
from perceiverd.training.data.fingerprint import HOP as FINGERPRINT_HOP
from perceiverd.training.data.recipe import CorpusSource, Recipe
from perceiverd.training.synthesis import programs, soundfont, speech, tones

logger = logging.getLogger("perceiverd.training")

RATE_HZ = 16_000
HOP = 2_560
"""Samples of one loudness value, 0.16 s. Each clip starts at a multiple of it."""
LONG_S = 60
"""Only pieces of a longer file are kept."""
PIECES, PIECE_S = 4, 30
"""A long file gives this many pieces of this many seconds, spread evenly: 120 s."""
SILENT_DB = -128
"""The loudness that is written for digital zero, in dB."""
SHORTEST = RATE_HZ // 20
"""A sound with fewer samples is dropped: 50 ms."""

HELD_OUT = ("test", "validation", "rendered")
ORDER = ("never", *HELD_OUT, "train")
"""The order in which splits are written. Held-out sounds come first, so that their duplicates are not trained on."""
FILES = ("pcm.i16", "level.i8", "index.tsv", "recipe.json")

Pcm = NDArray[np.int16]


@dataclass(frozen=True)
class Clip:
    """One continuous sound of the corpus: a line of index.tsv."""

    offset: int
    """First sample in pcm.i16, a multiple of HOP."""
    samples: int
    source: str
    path: str
    """The path inside the package; all pieces of one file have it."""
    recording: str
    """The source recording; its clips are never divided between splits."""
    split: str
    group: str
    """See `CorpusSource.group`."""
    labels: tuple[str, ...]
    licence: str
    sha256: str
    """Of the original file."""
    author: str = ""
    """The author, if the package or the recipe names one."""


@dataclass(frozen=True)
class _SourceFile:
    """One file of a source, before it is decoded."""

    source: CorpusSource
    path: str
    data: bytes | Callable[[], bytes]
    """The file's content, or a function that renders it."""
    labels: tuple[str, ...]
    split: str
    recording: str
    licence: str
    author: str


@dataclass(frozen=True)
class _Decoded:
    """The hash of a file, its pieces, and a fingerprint of each piece if the sound is real."""

    sha256: str
    pieces: list[Pcm]
    fingerprints: list[Fingerprint]


class Corpus:
    """A finished corpus: clips, samples (memory-mapped) and loudness."""

    def __init__(self, folder: Path) -> None:
        with (folder / "index.tsv").open(encoding="utf-8", newline="") as file:
            self.clips = [_read(row) for row in csv.DictReader(file, delimiter="\t")]
        self.pcm: Pcm = np.memmap(folder / "pcm.i16", np.int16, "r")
        self.level: NDArray[np.int8] = np.memmap(folder / "level.i8", np.int8, "r")

    def samples(self, clip: Clip) -> Pcm:
        """The clip's samples, 16 kHz."""
        return self.pcm[clip.offset : clip.offset + clip.samples]

    def levels(self, clip: Clip) -> NDArray[np.int8]:
        """Root mean square of each 0.16 s, in dB of full scale; -128 is digital zero."""
        first = clip.offset // HOP
        return self.level[first : first + -(-clip.samples // HOP)]


def build(plan: Recipe, *, cache: Path, root: Path, out: Path, processes: int = 2) -> None:
    """Fetch, decode and write the whole corpus to `out`. The folders of folder sources are under `root`.

    Held-out sounds are written first, so that a sound in two packages stays held out. The training split then has no
    file with the same bytes, no sound with the same samples, and no real sound that is the same in another codec.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "recipe.json").write_bytes(msgspec.json.format(msgspec.json.encode(plan), indent=1))
    mixed = [source for source in plan.source if source.validation or source.test or source.listed]
    pure = [source for source in plan.source if source not in mixed]
    held = [source for source in pure if source.split != "train"]
    first = sorted([*mixed, *held], key=lambda item: ORDER.index(_first(item)))
    steps: list[tuple[CorpusSource, tuple[str, ...]]] = [(source, HELD_OUT) for source in first]
    steps += [(source, ("train",)) for source in plan.source if source not in held]
    with _CorpusWriter(out, plan.exclude) as writer, Pool(processes) as pool:
        for source, splits in steps:
            files = [file for file in _files(source, cache, root) if file.split in {"never", *splits}]
            files.sort(key=lambda file: ORDER.index(file.split))
            for file, decoded in zip(files, pool.imap(_decode, files, chunksize=8), strict=True):
                writer.add(file, decoded)
            writer.log_source(source)
    _write_sums(out)


def _write_sums(out: Path) -> None:
    with (out / "sums.txt").open("w", encoding="utf-8") as file:
        for name in FILES:
            with (out / name).open("rb") as made:
                file.write(f"{hashlib.file_digest(made, 'sha256').hexdigest()}  {name}\n")


def _first(source: CorpusSource) -> str:
    """The first split, in the order of ORDER, in which the source is held out."""
    return "test" if source.test else "validation" if source.validation else source.split


class _CorpusWriter:
    """Writes the corpus's files, each sound once."""

    def __init__(self, out: Path, exclude: tuple[str, ...]) -> None:
        self._seen = {bytes.fromhex(item) for item in exclude}
        self._held_out = FingerprintIndex()
        self._offset = self._kept = self._dropped = self._duplicates = 0
        self._out = out

    def __enter__(self) -> Self:
        self._pcm, self._level = (self._out / "pcm.i16").open("wb"), (self._out / "level.i8").open("wb")
        self._file = (self._out / "index.tsv").open("w", encoding="utf-8", newline="")
        self._index = csv.writer(self._file, delimiter="\t", lineterminator="\n")
        self._index.writerow(Clip.__dataclass_fields__)
        return self

    def __exit__(self, *_: object) -> None:
        for file in (self._pcm, self._level, self._file):
            file.close()

    def add(self, file: _SourceFile, decoded: _Decoded) -> None:
        """Write the pieces of a file that are not in the corpus yet."""
        if bytes.fromhex(decoded.sha256) in self._seen:
            self._dropped += 1
            return
        for at, pcm in enumerate(decoded.pieces):
            content = hashlib.sha256(pcm.tobytes()).digest()
            if content in self._seen:
                self._dropped += 1
                continue
            self._seen.add(content)
            if file.split == "never" or (decoded.fingerprints and self._is_held_out(file, decoded.fingerprints[at])):
                continue
            self._kept += 1
            padded = np.pad(pcm, (0, -len(pcm) % HOP))
            self._pcm.write(padded.tobytes())
            self._level.write(_levels(padded).tobytes())
            self._index.writerow(_line(file, self._offset, len(pcm), decoded.sha256))
            self._offset += len(padded)

    def _is_held_out(self, file: _SourceFile, sound: Fingerprint) -> bool:
        """Whether a sound for training is held out from another source. A held-out sound is added to the index."""
        if file.split != "train":
            self._held_out.add(f"{file.source.name}:{file.path}", sound)
            return False
        other = self._held_out.find(sound)
        if other is None:
            return False
        self._duplicates += 1
        log_event(logger, logging.INFO, "duplicate-dropped", source=file.source.name, path=file.path, of=other)
        return True

    def log_source(self, source: CorpusSource) -> None:
        """Log the counts of a source, and set them back to 0."""
        log_event(
            logger,
            logging.INFO,
            "clips-added",
            source=source.name,
            clips=self._kept,
            dropped=self._dropped,
            duplicates=self._duplicates,
            total_s=self._offset // RATE_HZ,
        )
        self._kept = self._dropped = self._duplicates = 0


def _line(file: _SourceFile, offset: int, samples: int, sha256: str) -> list[str | int]:
    """A line of index.tsv, in the order of Clip's fields."""
    names = "|".join(file.labels)
    source = file.source
    where: list[str | int] = [offset, samples, source.name, file.path, file.recording, file.split, source.group]
    return [*where, names, file.licence, sha256, file.author]


def _read(row: dict[str, str]) -> Clip:
    """A clip from a line of index.tsv."""
    labels = tuple(filter(None, row.pop("labels").split("|")))
    offset, samples = int(row.pop("offset")), int(row.pop("samples"))
    return Clip(offset=offset, samples=samples, labels=labels, **row)


def _files(source: CorpusSource, cache: Path, root: Path) -> Iterator[_SourceFile]:
    """The files of a source that the recipe takes, with labels, split and credit."""
    if source.kind == "folder" and (sounds := listings.listed(source, root / source.name)) is not None:
        for one in sounds:
            credit_of = (one.licence, one.author)
            yield _SourceFile(source, one.path, one.file.read_bytes(), one.labels, one.split, one.recording, *credit_of)
        return
    credit = _credits(source, cache)
    found: Iterator[tuple[str, bytes | Callable[[], bytes], tuple[str, ...]]]
    if source.kind == "synthesis":
        found = ((path, (wave * 32767).astype(np.int16).tobytes(), names) for path, wave, names in tones.sounds())
    elif source.kind == "soundfont":
        programs.check(source.program)
        found = soundfont.sounds(packages.font(packages.archive(source, cache)), source.name)
    elif source.kind == "speech":
        programs.check(source.program)
        programs.check(f"{source.name} {source.version}")
        found = speech.sounds(source.program.split()[0], source.voices)
    else:
        place = root / source.name if source.kind == "folder" else packages.archive(source, cache)
        found = ((path, data, ()) for path, data in packages.sounds(place))
    for path, data, names in found:
        split = source.split_of(path)
        # A rendered sound exists nowhere else, so an unused one need not be rendered to keep its duplicates out.
        if source.takes(path) and not (callable(data) and split == "never"):
            licence, author = source.credit_of(path) or credit(path)
            labels = source.labels_of(path) or names
            yield _SourceFile(source, path, data, labels, split, source.recording_of(path), licence, author)


def _credits(source: CorpusSource, cache: Path) -> Callable[[str], tuple[str, str]]:
    """A function from a path to (licence, author): those of the copyright file, else those of the recipe."""
    text = ""
    if source.kind in {"deb", "soundfont"}:
        text = packages.copyright_text(packages.archive(source, cache), source.name)
    elif source.kind == "speech":
        installed = Path("/usr/share/doc") / source.name / "copyright"
        text = installed.read_text("utf-8", "replace") if installed.exists() else ""
    copyright_file = Copyright(text)

    def credit(path: str) -> tuple[str, str]:
        stanza = None if source.author else copyright_file.of(path)
        return (stanza.licence, stanza.holders) if stanza else (source.licence, source.author)

    return credit


def _decode(source_file: _SourceFile) -> _Decoded:
    """The file's hash and its pieces, without silence at the ends; no pieces if it cannot be decoded."""
    data = source_file.data if isinstance(source_file.data, bytes) else source_file.data()
    sha256 = hashlib.sha256(data).hexdigest()
    if source_file.source.kind == "synthesis":
        return _Decoded(sha256, [np.frombuffer(data, np.int16)], [])
    try:
        pcm = samples_of(data, "g722" if source_file.path.endswith(".g722") else None)
    except (av.FFmpegError, IndexError, ValueError) as error:
        name, path = source_file.source.name, source_file.path
        log_event(logger, logging.WARNING, "sound-undecodable", source=name, path=path, detail=error)
        return _Decoded(sha256, [], [])
    pieces = _pieces(pcm)
    hop = FINGERPRINT_HOP if source_file.split == "train" else FINGERPRINT_HOP // FINE
    real = source_file.source.group != "rendered" and source_file.split != "never"
    return _Decoded(sha256, pieces, [fingerprint(piece, hop) for piece in pieces] if real else [])


def _pieces(pcm: Pcm) -> list[Pcm]:
    """The sound without silence at its ends; for a long sound, pieces from its whole length."""
    sounding = np.flatnonzero(pcm)
    if len(sounding) == 0:
        return []
    pcm = pcm[sounding[0] : sounding[-1] + 1]
    if len(pcm) < SHORTEST:
        return []
    if len(pcm) <= LONG_S * RATE_HZ:
        return [pcm]
    starts = np.linspace(0, len(pcm) - PIECE_S * RATE_HZ, PIECES).astype(int)
    if len(pcm) < PIECES * PIECE_S * RATE_HZ:
        starts = np.arange(0, len(pcm) - RATE_HZ, PIECE_S * RATE_HZ)
    return [pcm[start : start + PIECE_S * RATE_HZ] for start in starts]


def samples_of(data: bytes, container: str | None = None) -> Pcm:
    """All samples of a file's first audio track, 16 kHz mono. `container` names a format that FFmpeg cannot detect."""
    with av.open(io.BytesIO(data), "r", format=container, metadata_errors="ignore") as file:
        stream = file.streams.audio[0]
        resampler = av.AudioResampler("s16", "mono", RATE_HZ)
        parts = [out.to_ndarray()[0] for frame in file.decode(stream) for out in resampler.resample(frame)]
        parts += [out.to_ndarray()[0] for out in resampler.resample(None)]
    return np.concatenate(parts) if parts else np.zeros(0, np.int16)


def _levels(padded: Pcm) -> NDArray[np.int8]:
    """Root mean square of each HOP samples, in dB of full scale."""
    power = np.mean((padded.reshape(-1, HOP).astype(np.float32) / 32768) ** 2, axis=1)
    decibel = 10 * np.log10(np.maximum(power, 1e-13))
    return np.where(power > 0, np.maximum(decibel, SILENT_DB + 1), SILENT_DB).round().astype(np.int8)
