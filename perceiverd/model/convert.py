"""The public multimodal Perceiver, as `transformers` writes it, turned into a network of ours. Reads no files.

Only what scores labels is kept: tensors that paint pictures and sound again are left out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
import torch
from torch import Tensor

from perceiverd.core.errors import ModelError
from perceiverd.core.labels import Label
from perceiverd.model.checkpoint import single
from perceiverd.model.geometry import Audio, Channels, Count, Depth, Geometry, Trunk, Video
from perceiverd.model.perceiver import Perceiver

# What `PerceiverForMultimodalAutoencoding` has in its code and not in its config.
RATE_HZ = 48_000
AUDIO_BANDS, VIDEO_BANDS = 192, 32
PATCH = 4  # rows and columns of a picture
SPARE = 4  # channels beside the widest modality's
MADE_OF_LABELS = 700
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
"""The layers of a cross-attend: our names and theirs."""
LAYER = {"norm": "attention.self.layernorm1"} | {
    ours: theirs for ours, theirs in CROSS.items() if ours not in ("query_norm", "input_norm")
}
ROOT = "perceiver."
MASKED, LABEL_QUERY = "input_preprocessor.mask.label", "decoder.modalities.label.decoder.output_position_encodings"
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
"""Tensors on which no label depends."""


class HubConfig(msgspec.Struct, frozen=True):
    """Of `config.json`, what decides the network; the defaults are those of `transformers`."""

    model_type: str
    id2label: dict[str, str] = {}
    num_latents: Channels = 256
    d_latents: Channels = 1280
    num_blocks: Count = 1
    num_self_attends_per_block: Depth = 26
    num_self_attention_heads: Channels = 8
    num_cross_attention_heads: Channels = 8
    qk_channels: int | None = None
    v_channels: int | None = None
    cross_attention_shape_for_attention: str = "kv"
    self_attention_widening_factor: Count = 1
    cross_attention_widening_factor: Count = 1
    hidden_act: str = "gelu"
    use_query_residual: bool = True
    image_size: Count = 56
    num_frames: Count = 16
    audio_samples_per_frame: Count = 1920
    samples_per_patch: Count = 16
    output_num_channels: Channels = 512
    label_channels: Channels = msgspec.field(default=1024, name="_label_trainable_num_channels")

    def geometry(self) -> Geometry:
        """Raises ModelError for a network that is not of the family."""
        for name, value, wanted in (
            ("model_type", self.model_type, "perceiver"),
            ("number of labels", len(self.id2label), MADE_OF_LABELS),
            ("num_blocks", self.num_blocks, 1),
            ("qk_channels", self.qk_channels, None),
            ("v_channels", self.v_channels, None),
            ("cross_attention_shape_for_attention", self.cross_attention_shape_for_attention, "kv"),
            ("self_attention_widening_factor", self.self_attention_widening_factor, 1),
            ("cross_attention_widening_factor", self.cross_attention_widening_factor, 1),
            ("use_query_residual", self.use_query_residual, True),
        ):
            if value != wanted:
                raise ModelError(f"{name} is {value}, the multimodal Perceiver's is {wanted}")
        if self.hidden_act not in GELUS:
            raise ModelError(f"hidden_act {self.hidden_act} is none of {', '.join(GELUS)}")
        samples = self.num_frames * self.audio_samples_per_frame
        try:
            audio = Audio(
                RATE_HZ, samples, "raw", (self.samples_per_patch,), AUDIO_BANDS, resolution=(samples,), single=True
            )
            size = PATCH * self.image_size
            fps = RATE_HZ / self.audio_samples_per_frame
            video = Video(self.num_frames, fps, size, size, (1, PATCH, PATCH), VIDEO_BANDS, single=True)
            widest = max(audio.modality.width, video.modality.width)
            trunk = Trunk(
                latents=self.num_latents,
                width=self.d_latents,
                cross_attends=1,
                layers=self.num_self_attends_per_block,
                heads=self.num_self_attention_heads,
                cross_heads=self.num_cross_attention_heads,
                head="query",
                modality_channels=max(widest, MADE_OF_LABELS) + SPARE - widest,
                constants=1,
                gelu=GELUS[self.hidden_act],
                query_width=self.label_channels + self.query_padding,
                query_residual=False,
            )
            # As if read from a file: only then are the bounds of what was multiplied from the config looked at.
            return msgspec.convert(msgspec.to_builtins(Geometry(MADE_OF_LABELS, trunk, audio, video)), Geometry)
        except ValueError as error:
            raise ModelError(f"no network can be built so: {error}") from error

    @property
    def query_padding(self) -> int:
        """Learned channels that bring the label query to the decoder's width, two more than its widest query."""
        return max(self.label_channels, 2 * AUDIO_BANDS + 1, 3 * (2 * VIDEO_BANDS + 1)) + 2 - self.label_channels


def labels_of(config: HubConfig, kinetics: Sequence[Label]) -> tuple[Label, ...]:
    """The labels of a checkpoint by the names in its config: Kinetics' where it has the name, else the model's own.

    A config without names, as `transformers` writes it, is taken for the published one, in Kinetics' order. Raises
    ModelError where two labels would be one.
    """
    try:
        names = [" ".join(config.id2label[str(index)].split()) for index in range(len(config.id2label))]
    except KeyError as error:
        raise ModelError(f"id2label has no label {error}") from error
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
            raise ModelError(f"id2label {label.index} is {label.name!r}: every label needs a name of its own")
    return tuple(labels)


def _plain(name: str) -> str:
    """A name whatever its case, blanks and signs."""
    return "-".join(re.findall(r"\w+", name.casefold().replace("'", "").replace("_", " ")))


def convert(config: HubConfig, theirs: Mapping[str, Tensor]) -> tuple[Geometry, Perceiver]:
    """The network that gives the label's logits. Raises ModelError at the first tensor that is not as it should be."""
    geometry = config.geometry()
    with torch.device("meta"):
        network = Perceiver(geometry.modalities, geometry.trunk, geometry.classes)
    names = _names(network)
    shapes = {their: tuple(network.state_dict()[our].shape) for our, their in names.items()}
    shapes |= _reshaped(config, network)
    known = shapes.keys() | {ROOT + name for name in UNUSED}
    if missing := sorted(shapes.keys() - theirs.keys()):
        raise ModelError(f"tensor {missing[0]} is missing ({len(missing)} in all)")
    if extra := sorted(theirs.keys() - known):
        raise ModelError(f"tensor {extra[0]} is not part of a multimodal Perceiver ({len(extra)} in all)")
    for name, shape in shapes.items():
        if tuple(theirs[name].shape) != shape:
            raise ModelError(f"tensor {name} is {tuple(theirs[name].shape)}, the config says {shape}")
    theirs = {name: single(name, theirs[name]) for name in shapes}
    weights = {our: theirs[their] for our, their in names.items()}
    weights |= {our: single(f"made for {our}", tensor) for our, tensor in _reshape(theirs).items()}
    network = Perceiver(geometry.modalities, geometry.trunk, geometry.classes)
    network.load_state_dict(weights)
    return geometry, network.eval()


def _names(network: Perceiver) -> dict[str, str]:
    """Our tensors that are theirs under another name."""
    names = {"latents": "embeddings.latents", "bytes.constants": MASKED}
    layers = [("crosses.0.", "encoder.cross_attention.", CROSS)]
    layers += [(f"blocks.0.{i}.", f"encoder.self_attends.{i}.", LAYER) for i in range(network.trunk.layers)]
    layers += [("head.attend.", "decoder.decoder.decoding_cross_attention.", CROSS)]
    for ours, theirs, parts in layers:
        for our, their in parts.items():
            names |= {f"{ours}{our}.{kind}": f"{theirs}{their}.{kind}" for kind in ("weight", "bias")}
    return {our: ROOT + their for our, their in names.items()}


PADDING = {
    f"bytes.padding.{our}": f"{ROOT}input_preprocessor.padding.{their}"
    for our, their in (("audio", "audio"), ("video", "image"))
}
QUERY = (f"{ROOT}{LABEL_QUERY}.position_embeddings", f"{ROOT}decoder.padding.label")
FINAL, CLASSIFIER = f"{ROOT}decoder.decoder.final_layer", f"{ROOT}output_postprocessor.modalities.label.classifier"


def _reshaped(config: HubConfig, network: Perceiver) -> dict[str, tuple[int, ...]]:
    """Shapes of their tensors that become others of ours."""
    ours, between = network.state_dict(), config.output_num_channels
    return {
        **{their: (1, *ours[our].shape) for our, their in PADDING.items()},
        QUERY[0]: (1, config.label_channels),
        QUERY[1]: (1, config.query_padding),
        f"{FINAL}.weight": (between, network.trunk.query_width),
        f"{FINAL}.bias": (between,),
        f"{CLASSIFIER}.weight": (MADE_OF_LABELS, between),
        f"{CLASSIFIER}.bias": (MADE_OF_LABELS,),
    }


def _reshape(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Padding without its empty axis, the label query in one piece, and two linear layers in a row as one."""
    final, classifier = theirs[f"{FINAL}.weight"].double(), theirs[f"{CLASSIFIER}.weight"].double()
    bias = classifier @ theirs[f"{FINAL}.bias"].double() + theirs[f"{CLASSIFIER}.bias"].double()
    return {
        **{our: theirs[their][0] for our, their in PADDING.items()},
        "head.query": torch.cat([theirs[name] for name in QUERY], dim=1),
        "head.out.weight": classifier @ final,
        "head.out.bias": bias,
    }
