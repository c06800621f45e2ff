"""Photographs and stills of silent videos, from two folders with lists. Knows nothing of packages or teachers."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

PHOTOS_HELD_OUT = ("maxogden/cats",)
"""Sources of photographs that are never trained on: one owner's cats."""
STILLS = 3
"""Stills of each video, evenly spread."""


@dataclass(frozen=True, slots=True)
class ListedPicture:
    """One picture of a list."""

    path: str
    labels: tuple[str, ...]
    """AudioSet names; empty if nobody knows what it shows."""
    held_out: bool
    licence: str
    author: str
    encoded: bytes
    """The file, or the still as PNG."""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.encoded).hexdigest()


def photographs(folder: Path) -> Iterator[ListedPicture]:
    """The pictures of `photos.tsv`, whose columns are file, label, category, source, licence."""
    for row in _rows(folder / "photos.tsv"):
        held_out = row["source"].startswith(PHOTOS_HELD_OUT)
        labels = tuple(filter(None, row["label"].split("|")))
        encoded = (folder / row["file"]).read_bytes()
        yield ListedPicture(f"photos/{row['file']}", labels, held_out, row["licence"], row["source"], encoded)


def stills(folder: Path) -> Iterator[ListedPicture]:
    """Stills of the videos of `video.tsv`, whose columns are file, seen, what, source, licence."""
    for row in _rows(folder / "video.tsv"):
        label = row["seen"].partition("|")[0]
        for number, encoded in enumerate(_frames(folder / row["file"])):
            path = f"video/{row['file']}/{number}"
            yield ListedPicture(path, (label,), False, row["licence"], row["source"], encoded)


def _frames(path: Path) -> Iterator[bytes]:
    video = cv2.VideoCapture(str(path))
    count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    for at in np.linspace(0, max(count - 1, 0), STILLS + 2).astype(int)[1:-1]:
        video.set(cv2.CAP_PROP_POS_FRAMES, int(at))
        found, frame = video.read()
        if found:
            yield cv2.imencode(".png", frame)[1].tobytes()
    video.release()


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))
