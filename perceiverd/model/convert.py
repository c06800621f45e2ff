"""Converts the public multimodal Perceiver, as `transformers` saves it, into our network. Reads no files.

It keeps only what scores labels, and drops the tensors that reconstruct video and audio.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
import torch
from torch import Tensor

from perceiverd.core.errors import ModelError, did_you_mean
from perceiverd.core.labels import Label
from perceiverd.model.checkpoint import to_float32
from perceiverd.model.geometry import Audio, AxisSize, Channels, Depth, Geometry, Trunk, Video
from perceiverd.model.perceiver import Perceiver

# Values in the code of `PerceiverForMultimodalAutoencoding` that are not in its config.
RATE_HZ = 48_000
AUDIO_BANDS, VIDEO_BANDS = 192, 32
PATCH = 4  # rows and columns
MODALITY_CHANNELS = 4  # learned channels of the widest modality, at least
LABELS = 700  # also a modality: its tokens have one channel per label
GELUS: dict[str, Literal["erf", "tanh"]] = {"gelu": "erf", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}

CROSS = {
    "query_norm": "attention.self.layernorm1",
    "input_norm": "attention.self.layernorm2",
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.out": "attention.output.dense",
    "mlp_norm": "layernorm",
    "mlp.0": "mlp.dense1",
    "mlp.2": "mlp.dense2",
}
"""Layers of a cross-attend: our name and theirs."""
SELF = {"norm": "attention.self.layernorm1"} | {
    ours: theirs for ours, theirs in CROSS.items() if ours not in ("query_norm", "input_norm")
}
ROOT = "perceiver."
MASKED_LABEL = "input_preprocessor.mask.label"
PADDING = {
    f"bytes.padding.{our}": f"{ROOT}input_preprocessor.padding.{their}"
    for our, their in (("audio", "audio"), ("video", "image"))
}
"""Our tensor and theirs."""
QUERY = (
    f"{ROOT}decoder.modalities.label.decoder.output_position_encodings.position_embeddings",
    f"{ROOT}decoder.padding.label",
)
"""The two parts of the label query."""
FINAL, CLASSIFIER = f"{ROOT}decoder.decoder.final_layer", f"{ROOT}output_postprocessor.modalities.label.classifier"
UNUSED = {
    "input_preprocessor.mask.audio",
    "input_preprocessor.mask.image",
    "input_preprocessor.padding.label",
    "decoder.padding.audio",
    "decoder.padding.image",
    "output_postprocessor.modalities.audio.classifier.weight",
    "output_postprocessor.modalities.audio.classifier.bias",
    "output_postprocessor.modalities.image.classifier.weight",
    "output_postprocessor.modalities.image.classifier.bias",
}
"""Tensors that have no effect on label scores."""


class HubConfig(msgspec.Struct, frozen=True):
    """The parts of `config.json` that define the network; the defaults are those of `transformers`."""

    model_type: str
    id2label: dict[str, str] = {}
    num_latents: Channels = 256
    d_latents: Channels = 1280
    num_blocks: AxisSize = 1
    num_self_attends_per_block: Depth = 26
    num_self_attention_heads: Channels = 8
    num_cross_attention_heads: Channels = 8
    qk_channels: int | None = None
    v_channels: int | None = None
    cross_attention_shape_for_attention: str = "kv"
    self_attention_widening_factor: AxisSize = 1
    cross_attention_widening_factor: AxisSize = 1
    hidden_act: str = "gelu"
    use_query_residual: bool = True
    image_size: AxisSize = 56
    num_frames: AxisSize = 16
    audio_samples_per_frame: AxisSize = 1920
    samples_per_patch: AxisSize = 16
    output_num_channels: Channels = 512
    label_channels: Channels = msgspec.field(default=1024, name="_label_trainable_num_channels")

    def geometry(self) -> Geometry:
        """The geometry of our network. Raises ModelError if the checkpoint is not a multimodal Perceiver."""
        self._check()
        try:
            audio, video = self._audio(), self._video()
            geometry = Geometry(LABELS, self._trunk(max(audio.modality.width, video.modality.width)), audio, video)
            # Convert plain values, because only that checks the bounds of what was computed from the config.
            return msgspec.convert(msgspec.to_builtins(geometry), Geometry)
        except ValueError as error:
            raise ModelError(f"the config describes an impossible network: {error}") from error

    def _check(self) -> None:
        for name, value, wanted in (
            ("model_type", self.model_type, "perceiver"),
            ("number of labels", len(self.id2label), LABELS),
            ("num_blocks", self.num_blocks, 1),
            ("qk_channels", self.qk_channels, None),
            ("v_channels", self.v_channels, None),
            ("cross_attention_shape_for_attention", self.cross_attention_shape_for_attention, "kv"),
            ("self_attention_widening_factor", self.self_attention_widening_factor, 1),
            ("cross_attention_widening_factor", self.cross_attention_widening_factor, 1),
            ("use_query_residual", self.use_query_residual, True),
        ):
            if value != wanted:
                raise ModelError(f"{name} is {value}, but a multimodal Perceiver has {wanted}")
        if self.hidden_act not in GELUS:
            raise ModelError(f"unknown hidden_act '{self.hidden_act}'; {did_you_mean(self.hidden_act, GELUS)}")

    def _audio(self) -> Audio:
        samples, patch = self.num_frames * self.audio_samples_per_frame, (self.samples_per_patch,)
        return Audio(RATE_HZ, samples, "raw", patch, AUDIO_BANDS, resolution=(samples,), single=True)

    def _video(self) -> Video:
        size, fps = PATCH * self.image_size, RATE_HZ / self.audio_samples_per_frame
        return Video(self.num_frames, fps, size, size, (1, PATCH, PATCH), VIDEO_BANDS, single=True)

    def _trunk(self, widest: int) -> Trunk:
        """`widest`: channels of the widest modality."""
        return Trunk(
            latents=self.num_latents,
            width=self.d_latents,
            cross_attends=1,
            layers=self.num_self_attends_per_block,
            heads=self.num_self_attention_heads,
            cross_heads=self.num_cross_attention_heads,
            head="query",
            modality_channels=max(widest, LABELS) + MODALITY_CHANNELS - widest,
            constants=1,
            gelu=GELUS[self.hidden_act],
            query_width=self.label_channels + self.query_padding,
            query_residual=False,
        )

    @property
    def query_padding(self) -> int:
        """Learned channels that widen the label query to the decoder's width: two more than its widest query."""
        return max(self.label_channels, 2 * AUDIO_BANDS + 1, 3 * (2 * VIDEO_BANDS + 1)) + 2 - self.label_channels


def labels_of(config: HubConfig, kinetics: Sequence[Label]) -> tuple[Label, ...]:
    """The labels of a checkpoint, by the names in its config: Kinetics' label if it has that name, else a new label.

    A config without names, as `transformers` writes it, means the published labels: Kinetics', in its order. Raises
    ModelError if two labels have the same name.
    """
    try:
        names = [" ".join(config.id2label[str(index)].split()) for index in range(len(config.id2label))]
    except KeyError as error:
        raise ModelError(f"id2label: label {error} is missing") from error
    if names == [f"LABEL_{index}" for index in range(len(kinetics))]:
        return tuple(kinetics)
    known = {_plain(label.name): label for label in kinetics}
    labels = []
    for index, name in enumerate(names):
        plain = _plain(name)
        same = known.get(plain)
        labels.append(Label(index, same.mid if same else f"user/{plain}", same.name if same else name))
    mids = Counter(label.mid for label in labels)
    for label in labels:
        if mids[label.mid] > 1 or not _plain(label.name):
            raise ModelError(f"id2label: label {label.index} is {label.name!r}; each label needs its own name")
    return tuple(labels)


def _plain(name: str) -> str:
    """A name in lower case, with `-` for blanks and punctuation."""
    return "-".join(re.findall(r"\w+", name.casefold().replace("'", "").replace("_", " ")))


def convert(config: HubConfig, theirs: Mapping[str, Tensor]) -> tuple[Geometry, Perceiver]:
    """The geometry, and the network that gives the labels' logits. Raises ModelError for the first wrong tensor."""
    geometry = config.geometry()
    with torch.device("meta"):
        network = Perceiver(geometry.modalities, geometry.trunk, geometry.classes)
    names = _names(network)
    theirs = _checked(theirs, _shapes(config, network, names))
    weights = {our: theirs[their] for our, their in names.items()}
    weights |= {our: to_float32(f"for {our}", tensor) for our, tensor in _reshape(theirs).items()}
    network = Perceiver(geometry.modalities, geometry.trunk, geometry.classes)
    network.load_state_dict(weights)
    return geometry, network.eval()


def _checked(theirs: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The tensors of these names in float32. Raises ModelError if one is missing, extra, or has another shape."""
    known = shapes.keys() | {ROOT + name for name in UNUSED}
    if missing := sorted(shapes.keys() - theirs.keys()):
        raise ModelError(f"tensor {missing[0]} is missing ({len(missing)} in all)")
    if extra := sorted(theirs.keys() - known):
        raise ModelError(f"tensor {extra[0]} is not part of a multimodal Perceiver ({len(extra)} in all)")
    for name, shape in shapes.items():
        if (found := tuple(theirs[name].shape)) != shape:
            raise ModelError(f"tensor {name} is {found}, but the config needs {shape}")
    return {name: to_float32(name, theirs[name]) for name in shapes}


def _names(network: Perceiver) -> dict[str, str]:
    """Our tensors that are also in the checkpoint: our name and theirs."""
    names = {"latents": "embeddings.latents", "bytes.constants": MASKED_LABEL}
    layers = [("crosses.0.", "encoder.cross_attention.", CROSS)]
    layers += [(f"blocks.0.{i}.", f"encoder.self_attends.{i}.", SELF) for i in range(network.trunk.layers)]
    layers += [("head.attend.", "decoder.decoder.decoding_cross_attention.", CROSS)]
    for ours, theirs, parts in layers:
        for our, their in parts.items():
            names |= {f"{ours}{our}.{kind}": f"{theirs}{their}.{kind}" for kind in ("weight", "bias")}
    return {our: ROOT + their for our, their in names.items()}


def _shapes(config: HubConfig, network: Perceiver, names: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor that the checkpoint must have, by its name there."""
    ours, hidden = network.state_dict(), config.output_num_channels
    return {
        **{their: tuple(ours[our].shape) for our, their in names.items()},
        **{their: (1, *ours[our].shape) for our, their in PADDING.items()},
        QUERY[0]: (1, config.label_channels),
        QUERY[1]: (1, config.query_padding),
        f"{FINAL}.weight": (hidden, network.trunk.query_width),
        f"{FINAL}.bias": (hidden,),
        f"{CLASSIFIER}.weight": (LABELS, hidden),
        f"{CLASSIFIER}.bias": (LABELS,),
    }


def _reshape(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our other tensors: padding without its first axis, the whole label query, the last two linear layers as one."""
    final, classifier = theirs[f"{FINAL}.weight"].double(), theirs[f"{CLASSIFIER}.weight"].double()
    bias = classifier @ theirs[f"{FINAL}.bias"].double() + theirs[f"{CLASSIFIER}.bias"].double()
    return {
        **{our: theirs[their][0] for our, their in PADDING.items()},
        "head.query": torch.cat([theirs[name] for name in QUERY], dim=1),
        "head.out.weight": classifier @ final,
        "head.out.bias": bias,
    }
