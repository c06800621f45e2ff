"""Every sound of a recipe as 16 kHz mono in one file, with one line about each.

`pcm.i16` holds the samples, `level.i8` the loudness of every 0.16 s, `index.tsv` the clips, `recipe.json` what
they were made by, `sums.txt` the SHA-256 of these: the same recipe gives the same bytes. It knows nothing of
mixtures or teachers.
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

from perceiverd.training.data import fingerprint, packages
from perceiverd.training.data.copyright import Copyright
from perceiverd.training.data.recipe import Recipe, Source
from perceiverd.training.synthesis import programs, soundfont, speech, tones

log = logging.getLogger(__name__)

RATE_HZ = 16_000
HOP = 2_560
"""Samples of one loudness value, 0.16 s; clips begin on multiples of it."""
LONG_S = 60
"""A longer file is kept in pieces."""
PIECES, PIECE_S = 4, 30
"""Of a long file, this many pieces of this length, spread evenly: 120 s."""
SILENT_DB = -128
"""The loudness written for digital zero, which has none."""
SHORTEST = RATE_HZ // 20
"""Samples below which a sound is not worth a line: 50 ms."""

HELD_OUT = ("test", "validation", "rendered")
ORDER = ("never", *HELD_OUT, "train")
FILES = ("pcm.i16", "level.i8", "index.tsv", "recipe.json")

Pcm = NDArray[np.int16]


@dataclass(frozen=True)
class Clip:
    """One continuous sound in the corpus, a line of index.tsv."""

    offset: int
    """First sample in pcm.i16, a multiple of HOP."""
    samples: int
    source: str
    path: str
    """The path inside the package; pieces of one file share it."""
    recording: str
    split: str
    group: str
    labels: tuple[str, ...]
    licence: str
    sha256: str
    """Of the file it came from."""
    author: str = ""
    """Whose it is, as far as package or recipe tell; empty where they don't."""


@dataclass(frozen=True)
class _Job:
    source: Source
    path: str
    data: bytes | Callable[[], bytes]
    """The file, or what renders it."""
    labels: tuple[str, ...]
    split: str
    recording: str
    licence: str
    author: str


@dataclass(frozen=True)
class _Decoded:
    """What came of a job: the hash of its file, its pieces, and the print of each that is real."""

    sha256: str
    pieces: list[Pcm]
    prints: list[fingerprint.Print]


class Corpus:
    """A corpus that was built: clips, samples (memory-mapped) and loudness."""

    def __init__(self, folder: Path) -> None:
        with (folder / "index.tsv").open(encoding="utf-8", newline="") as file:
            self.clips = [_read(row) for row in csv.DictReader(file, delimiter="\t")]
        self.pcm: Pcm = np.memmap(folder / "pcm.i16", np.int16, "r")
        self.level: NDArray[np.int8] = np.memmap(folder / "level.i8", np.int8, "r")

    def samples(self, clip: Clip) -> Pcm:
        return self.pcm[clip.offset : clip.offset + clip.samples]

    def levels(self, clip: Clip) -> NDArray[np.int8]:
        """Root mean square of each 0.16 s in dB of full scale, -128 for digital zero."""
        first = clip.offset // HOP
        return self.level[first : first + -(-clip.samples // HOP)]


def build(plan: Recipe, *, cache: Path, root: Path, out: Path, processes: int = 2) -> None:
    """Fetch, decode and write the whole corpus to `out`; folder sources are looked up under `root`.

    What is held out comes first, so that a sound that is in two packages stays held out: trained on is no
    file of the same bytes, no sound of the same samples, and no real sound that is the same under another codec.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "recipe.json").write_bytes(msgspec.json.format(msgspec.json.encode(plan), indent=1))
    mixed = [source for source in plan.source if source.validation or source.test]
    pure = [source for source in plan.source if source not in mixed]
    held = [source for source in pure if source.split != "train"]
    first = sorted([*mixed, *held], key=lambda item: ORDER.index(_first(item)))
    steps: list[tuple[Source, tuple[str, ...]]] = [(source, HELD_OUT) for source in first]
    steps += [(source, ("train",)) for source in plan.source if source not in held]
    with _Writer(out, plan.exclude) as writer, Pool(processes) as pool:
        for source, splits in steps:
            jobs = [job for job in _jobs(source, cache, root) if job.split in {"never", *splits}]
            jobs.sort(key=lambda job: ORDER.index(job.split))
            for job, decoded in zip(jobs, pool.imap(_decode, jobs, chunksize=8), strict=True):
                writer.add(job, decoded)
            writer.tell(source)
    with (out / "sums.txt").open("w", encoding="utf-8") as file:
        for name in FILES:
            with (out / name).open("rb") as made:
                file.write(f"{hashlib.file_digest(made, 'sha256').hexdigest()}  {name}\n")


def _first(source: Source) -> str:
    """The first by ORDER of the splits that the source is held out in."""
    return "test" if source.test else "validation" if source.validation else source.split


class _Writer:
    """The corpus's files as they grow, and what has been written, so that nothing is twice."""

    def __init__(self, out: Path, exclude: tuple[str, ...]) -> None:
        self._seen = {bytes.fromhex(item) for item in exclude}
        self._known = fingerprint.Known()
        self._offset = self._kept = self._dropped = self._twins = 0
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

    def add(self, job: _Job, decoded: _Decoded) -> None:
        """Write what is new of a file."""
        if bytes.fromhex(decoded.sha256) in self._seen:
            self._dropped += 1
            return
        for at, pcm in enumerate(decoded.pieces):
            content = hashlib.sha256(pcm.tobytes()).digest()
            if content in self._seen:
                self._dropped += 1
                continue
            self._seen.add(content)
            if job.split == "never" or (decoded.prints and self._twin(job, decoded.prints[at])):
                continue
            self._kept += 1
            padded = np.pad(pcm, (0, -len(pcm) % HOP))
            self._pcm.write(padded.tobytes())
            self._level.write(_levels(padded).tobytes())
            self._index.writerow(_line(job, self._offset, len(pcm), decoded.sha256))
            self._offset += len(padded)

    def _twin(self, job: _Job, sound: fingerprint.Print) -> bool:
        """Whether a sound for training is held out elsewhere; one that is held out is remembered."""
        if job.split != "train":
            self._known.add(f"{job.source.name}:{job.path}", sound)
            return False
        other = self._known.find(sound)
        if other is None:
            return False
        self._twins += 1
        log.info("source=%s path=%s twin=%s", job.source.name, job.path, other)
        return True

    def tell(self, source: Source) -> None:
        """Log what came of a source, and begin to count anew."""
        counts = (source.name, self._kept, self._dropped, self._twins, self._offset // RATE_HZ)
        log.info("source=%s clips=%d dropped=%d twins=%d total_s=%d", *counts)
        self._kept = self._dropped = self._twins = 0


def _line(job: _Job, offset: int, samples: int, sha256: str) -> list[str | int]:
    names = "|".join(job.labels)
    source = job.source
    where: list[str | int] = [offset, samples, source.name, job.path, job.recording, job.split, source.group]
    return [*where, names, job.licence, sha256, job.author]


def _read(row: dict[str, str]) -> Clip:
    labels = tuple(filter(None, row.pop("labels").split("|")))
    offset, samples = int(row.pop("offset")), int(row.pop("samples"))
    return Clip(offset=offset, samples=samples, labels=labels, **row)


def _jobs(source: Source, cache: Path, root: Path) -> Iterator[_Job]:
    if source.kind == "folder" and (root / source.name / "clips.csv").exists():
        yield from _listed(source, root / source.name)
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
        # What is rendered is nobody else's sound: it need not be known in order to be kept out.
        if source.takes(path) and not (callable(data) and split == "never"):
            licence, author = source.credit_of(path) or credit(path)
            labels = source.labels_of(path) or names
            yield _Job(source, path, data, labels, split, source.recording_of(path), licence, author)


def _credits(source: Source, cache: Path) -> Callable[[str], tuple[str, str]]:
    """(licence, author) of a path, by the package's copyright file where that can be read, else by the recipe."""
    text = ""
    if source.kind in {"deb", "soundfont"}:
        text = packages.copyright_text(packages.archive(source, cache), source.name)
    elif source.kind == "speech":
        installed = Path("/usr/share/doc") / source.name / "copyright"
        text = installed.read_text("utf-8", "replace") if installed.exists() else ""
    told = Copyright(text)

    def credit(path: str) -> tuple[str, str]:
        stanza = None if source.author else told.of(path)
        return (stanza.licence, stanza.holders) if stanza else (source.licence, source.author)

    return credit


def _listed(source: Source, folder: Path) -> Iterator[_Job]:
    """Clips of a folder with a list: class, fold, recording, licence and author are the list's.

    The recipe's rules are applied to "fold/class/name/file", where name is the AudioSet name the list gives.
    """
    with (folder / "clips.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            path = f"{row['fold']}/{row['class']}/{row['audioset_name']}/{row['file']}"
            labels = source.labels_of(path)
            data = (folder / row["file"]).read_bytes()
            recording = f"{source.name}:{row['freesound_id']}"
            author = f"{row['author']} [{row['title']}]({row['url']})"
            yield _Job(source, path, data, labels, source.split_of(path), recording, row["licence"], author)


def _decode(job: _Job) -> _Decoded:
    """The file's hash and its sound: silence trimmed, a long one in pieces, nothing if it can't be decoded."""
    data = job.data if isinstance(job.data, bytes) else job.data()
    sha256 = hashlib.sha256(data).hexdigest()
    if job.source.kind == "synthesis":
        return _Decoded(sha256, [np.frombuffer(data, np.int16)], [])
    try:
        pcm = samples_of(data, "g722" if job.path.endswith(".g722") else None)
    except (av.FFmpegError, IndexError, ValueError) as error:
        log.warning("source=%s path=%s undecodable=%s", job.source.name, job.path, error)
        return _Decoded(sha256, [], [])
    pieces = _pieces(pcm)
    hop = fingerprint.HOP if job.split == "train" else fingerprint.HOP // fingerprint.FINE
    real = job.source.group != "rendered" and job.split != "never"
    return _Decoded(sha256, pieces, [fingerprint.fingerprint(piece, hop) for piece in pieces] if real else [])


def _pieces(pcm: Pcm) -> list[Pcm]:
    """The sound without silence at its ends; of a long one, pieces of its whole length."""
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
    """All samples of a file's first sound track, 16 kHz mono; of this container, if it doesn't say so itself."""
    with av.open(io.BytesIO(data), "r", format=container, metadata_errors="ignore") as file:
        stream = file.streams.audio[0]
        resampler = av.AudioResampler("s16", "mono", RATE_HZ)
        parts = [out.to_ndarray()[0] for frame in file.decode(stream) for out in resampler.resample(frame)]
        parts += [out.to_ndarray()[0] for out in resampler.resample(None)]
    return np.concatenate(parts) if parts else np.zeros(0, np.int16)


def _levels(padded: Pcm) -> NDArray[np.int8]:
    power = np.mean((padded.reshape(-1, HOP).astype(np.float32) / 32768) ** 2, axis=1)
    decibel = 10 * np.log10(np.maximum(power, 1e-13))
    return np.where(power > 0, np.maximum(decibel, SILENT_DB + 1), SILENT_DB).round().astype(np.int8)
