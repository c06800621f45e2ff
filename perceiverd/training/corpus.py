"""Every sound of a recipe as 16 kHz mono in one file, with one line about each.

`pcm.i16` holds the samples, `level.i8` the loudness of every 0.16 s, `index.tsv` the clips. It knows
nothing of mixtures or teachers.
"""

import csv
import hashlib
import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from perceiverd.training import fetch, tones
from perceiverd.training.recipe import Recipe, Source

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


@dataclass(frozen=True)
class _Job:
    source: Source
    path: str
    data: bytes
    labels: tuple[str, ...]
    split: str
    recording: str
    licence: str


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

    Sources of the test split come first, so that a sound that is in two packages stays a test sound.
    """
    out.mkdir(parents=True, exist_ok=True)
    order = {"never": 0, "test": 1, "validation": 2, "train": 3}
    seen: set[bytes] = {bytes.fromhex(item) for item in plan.exclude}
    offset = 0
    with (
        (out / "pcm.i16").open("wb") as pcm_file,
        (out / "level.i8").open("wb") as level_file,
        (out / "index.tsv").open("w", encoding="utf-8", newline="") as index_file,
        Pool(processes) as pool,
    ):
        index = csv.writer(index_file, delimiter="\t", lineterminator="\n")
        index.writerow(Clip.__dataclass_fields__)
        for source in sorted(plan.source, key=lambda item: min(order[item.split], 1 if item.test else 3)):
            kept = dropped = 0
            jobs = sorted(_jobs(source, cache, root), key=lambda job: order[job.split])
            for job, (sha256, pieces) in zip(jobs, pool.imap(_decode, jobs, chunksize=8), strict=True):
                if bytes.fromhex(sha256) in seen:
                    dropped += 1
                    continue
                for pcm in pieces:
                    content = hashlib.sha256(pcm.tobytes()).digest()
                    if content in seen:
                        dropped += 1
                        continue
                    seen.add(content)
                    if job.split == "never":
                        continue
                    kept += 1
                    padded = np.pad(pcm, (0, -len(pcm) % HOP))
                    pcm_file.write(padded.tobytes())
                    level_file.write(_levels(padded).tobytes())
                    index.writerow(_line(job, offset, len(pcm), sha256))
                    offset += len(padded)
            log.info("source=%s clips=%d dropped=%d total_s=%d", source.name, kept, dropped, offset // RATE_HZ)


def _line(job: _Job, offset: int, samples: int, sha256: str) -> list[str | int]:
    names = "|".join(job.labels)
    source = job.source
    return [offset, samples, source.name, job.path, job.recording, job.split, source.group, names, job.licence, sha256]


def _read(row: dict[str, str]) -> Clip:
    labels = tuple(filter(None, row.pop("labels").split("|")))
    offset, samples = int(row.pop("offset")), int(row.pop("samples"))
    return Clip(offset=offset, samples=samples, labels=labels, **row)


def _jobs(source: Source, cache: Path, root: Path) -> Iterator[_Job]:
    if source.kind == "synthesis":
        for path, wave, labels in tones.sounds():
            data = (wave * 32767).astype(np.int16).tobytes()
            yield _Job(source, path, data, labels, source.split, f"{source.name}:{path}", source.licence)
        return
    if source.kind == "folder" and (root / source.name / "clips.csv").exists():
        yield from _listed(source, root / source.name)
        return
    place = root / source.name if source.kind == "folder" else fetch.archive(source, cache)
    for path, data in fetch.sounds(place):
        if source.takes(path):
            labels, split = source.labels_of(path), source.split_of(path)
            yield _Job(source, path, data, labels, split, source.recording_of(path), source.licence)


def _listed(source: Source, folder: Path) -> Iterator[_Job]:
    """Clips of a folder with a list: class, fold, recording and licence are the list's.

    The recipe's rules are applied to "fold/class/name/file", where name is the AudioSet name the list gives.
    """
    with (folder / "clips.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            path = f"{row['fold']}/{row['class']}/{row['audioset_name']}/{row['file']}"
            labels = source.labels_of(path)
            data = (folder / row["file"]).read_bytes()
            recording = f"{source.name}:{row['freesound_id']}"
            yield _Job(source, path, data, labels, source.split_of(path), recording, row["licence"])


def _decode(job: _Job) -> tuple[str, list[Pcm]]:
    """The file's hash and its sound: silence trimmed, a long one in pieces, nothing if it can't be decoded."""
    sha256 = hashlib.sha256(job.data).hexdigest()
    if job.source.kind == "synthesis":
        return sha256, [np.frombuffer(job.data, np.int16)]
    try:
        pcm = _samples(job.data, "g722" if job.path.endswith(".g722") else None)
    except (av.FFmpegError, IndexError, ValueError) as error:
        log.warning("source=%s path=%s undecodable=%s", job.source.name, job.path, error)
        return sha256, []
    sounding = np.flatnonzero(pcm)
    if len(sounding) == 0:
        return sha256, []
    pcm = pcm[sounding[0] : sounding[-1] + 1]
    if len(pcm) < SHORTEST:
        return sha256, []
    if len(pcm) <= LONG_S * RATE_HZ:
        return sha256, [pcm]
    starts = np.linspace(0, len(pcm) - PIECE_S * RATE_HZ, PIECES).astype(int)
    if len(pcm) < PIECES * PIECE_S * RATE_HZ:
        starts = np.arange(0, len(pcm) - RATE_HZ, PIECE_S * RATE_HZ)
    return sha256, [pcm[start : start + PIECE_S * RATE_HZ] for start in starts]


def _samples(data: bytes, container: str | None) -> Pcm:
    """All samples of the first sound track, 16 kHz mono."""
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
