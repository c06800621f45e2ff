"""The sounds of a folder that has a list: their labels, recordings, splits and credits. Decodes nothing.

Three lists are known. `clips.csv` names one everyday class for each clip and a fold. `sounds.tsv` names AudioSet's
labels. `hours.tsv` has no labels, only sources and licences.
"""

from __future__ import annotations

import csv
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from perceiverd.core.labels import ontology
from perceiverd.training.data.recipe import CorpusSource, Split

HOLD_OUT_FROM, HOLD_OUT_EVERY = 8, 4
"""Of each class with at least so many recordings, every fourth recording is held out."""

Row = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ListedSound:
    """One line of a list."""

    file: Path
    path: str
    """The name that the recipe's rules are applied to."""
    labels: tuple[str, ...]
    recording: str
    split: Split
    licence: str
    author: str


def listed(source: CorpusSource, folder: Path) -> Iterator[ListedSound] | None:
    """The sounds that the folder's list names; None if the folder has no list."""
    for name, read in (("clips.csv", _clips), ("sounds.tsv", _sounds), ("hours.tsv", _hours)):
        if (folder / name).is_file():
            with (folder / name).open(encoding="utf-8", newline="") as file:
                return read(source, folder, list(csv.DictReader(file, delimiter="," if name.endswith("csv") else "\t")))
    return None


def _clips(source: CorpusSource, folder: Path, rows: list[Row]) -> Iterator[ListedSound]:
    """Everyday sounds. The rules are applied to "fold/class/name/file"; name is the AudioSet name in the list."""
    for row in rows:
        path = f"{row['fold']}/{row['class']}/{row['audioset_name']}/{row['file']}"
        author = f"{row['author']} [{row['title']}]({row['url']})"
        recording = f"{source.name}:{row['freesound_id']}"
        labels, split = source.labels_of(path), source.split_of(path)
        yield ListedSound(folder / row["file"], path, labels, recording, split, row["licence"], author)


def _sounds(source: CorpusSource, folder: Path, rows: list[Row]) -> Iterator[ListedSound]:
    """Labelled sounds. The rules are applied to "owner/repository/path in it"."""
    names = {label.mid: label.name for label in ontology().labels}
    held = held_out((row["recording"], row["labels"].partition("|")[0]) for row in rows)
    for row in rows:
        path = f"{row['repo']}/{row['path']}"
        split = source.split_of(path)
        if split == "train" and row["recording"] in held:
            split = "validation"
        labels = tuple(names[mid] for mid in row["mids"].split("|") if mid in names)
        recording = f"{source.name}:{row['recording']}"
        yield ListedSound(folder / row["file"], path, labels, recording, split, row["licence"], row["source"])


def _hours(source: CorpusSource, folder: Path, rows: list[Row]) -> Iterator[ListedSound]:
    """Sounds without labels; a repository is one recording, because neighbouring pieces may overlap."""
    for row in rows:
        path = f"{row['repository']}/{row['kind']}/{row['file']}"
        recording = f"{source.name}:{row['repository']}"
        author = f"{row['repository']}: {row['paths'].replace('|', ', ')}"
        yield ListedSound(folder / row["file"], path, (), recording, source.split_of(path), row["licence"], author)


def held_out(recordings: Iterable[tuple[str, str]]) -> frozenset[str]:
    """The recordings that are held out, of pairs (recording, class).

    The recordings of a class are ordered by the SHA-256 of their name, and every fourth one is held out. So the choice
    depends on the names alone, and nobody made it by listening.
    """
    of_class: dict[str, set[str]] = defaultdict(set)
    for recording, name in recordings:
        of_class[name].add(recording)
    found: set[str] = set()
    for members in of_class.values():
        if len(members) >= HOLD_OUT_FROM:
            ordered = sorted(members, key=lambda name: hashlib.sha256(name.encode()).digest())
            found.update(ordered[::HOLD_OUT_EVERY])
    return frozenset(found)
