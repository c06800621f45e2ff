"""What the weights fix: window length, rates, patches, bands, widths. It is a part of `models/<name>/model.toml`.

It does not load torch, so the windower and the command line can read which media a model needs.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from perceiverd.core.media import NS_PER_S, MediaFormat, VideoFormat

# Every size has a bound, so that a typing error in a file cannot build modules for hours or exhaust the memory.
AxisSize = Annotated[int, Meta(ge=1, le=2**24)]
"""A size along one axis; the largest is six minutes of audio at 48 kHz."""
Channels = Annotated[int, Meta(ge=1, le=2**16)]
ChannelsOrNone = Annotated[int, Meta(ge=0, le=2**16)]
Bands = Annotated[int, Meta(ge=0, le=2**12)]
Depth = Annotated[int, Meta(ge=1, le=256)]
"""A number of modules, one after another."""
MAX_VALUES = 2**31
"""Numbers in the byte array or in the media of one window: sixty times as many as the public checkpoint has."""
MAX_WIDTH = 2**20
"""Channels of a token."""
MEL_RATE_HZ = 16_000
"""The only sample rate that `encoding.log_mel` supports."""

LAYER_PATTERN = re.compile(
    r"(?P<kind>conv|separable|inverted) (?P<kernel>[135])(?:/(?P<stride>2))? (?P<channels>[1-9]\d{0,3})"
)


@dataclass(frozen=True, slots=True)
class LayerGeometry:
    """One layer of a stem."""

    kind: Literal["conv", "separable", "inverted"]
    """`conv`: a convolution. `separable`: a depthwise and a pointwise one (MobileNet, Howard et al. 2017). `inverted`:
    widen to six times the channels, depthwise, narrow without activation, and add the input if the shapes are equal
    (MobileNetV2, Sandler et al. 2018); a stem's first such layer does not widen."""
    kernel: int
    """Rows and columns."""
    stride: int
    channels: int


class StemGeometry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Convolutions that make a token's content from its patch and the surrounding patches."""

    layers: Annotated[tuple[str, ...], Meta(min_length=1)]
    """Each `KIND KERNEL[/2] CHANNELS`, such as `separable 3/2 128`; `/2` is stride 2. Kinds: `conv`, a convolution;
    `separable`, a depthwise and a pointwise one (MobileNet); `inverted`, widened six times in between (MobileNetV2)."""
    ceiling: Annotated[float, Meta(ge=0)] = 0.0
    """Upper bound of activations (6 is ReLU6), or 0 for none; the lower bound is 0."""
    border: tuple[float, ...] = ()
    """What is beyond the edge of the input, for each of its channels; 0 if empty. Public networks pad after they scale
    their input, so what they see there is not our 0."""

    def __post_init__(self) -> None:
        for layer in self.layers:
            if not LAYER_PATTERN.fullmatch(layer):
                raise ValueError(f"stem.layers: invalid layer {layer!r}; a layer looks like 'conv 3/2 32'")

    @property
    def parsed(self) -> tuple[LayerGeometry, ...]:
        """The layers, first to last."""
        found = [LAYER_PATTERN.fullmatch(layer) for layer in self.layers]
        return tuple(
            LayerGeometry(one["kind"], int(one["kernel"]), int(one["stride"] or 1), int(one["channels"]))  # type: ignore[arg-type]
            for one in found
            if one
        )

    @property
    def stride(self) -> int:
        """Rows, and columns, of the input that become one row or column of the output."""
        return math.prod(layer.stride for layer in self.parsed)

    @property
    def channels(self) -> int:
        """Channels of the output."""
        return self.parsed[-1].channels


class SenseGeometry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a modality alone says about the labels, from the mean of its stem's output (`trunk.head` is `senses`)."""

    labels: Channels
    """How many of the model's labels it scores: the first ones. Both modalities score the same number."""
    classes: ChannelsOrNone = 0
    """Classes of a softmax that a table maps to labels, such as ImageNet's 1000; 0: the labels are scored directly."""
    pooled: bool = False
    """Whether the last layer also reads the mean of the stem's output; zeros for a window without the modality."""


class Modality(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One grid of tokens, as the network reads it."""

    name: str
    grid: tuple[int, ...]
    """Tokens along each axis, slowest first."""
    patch: tuple[int, ...]
    """Values of one token along each axis of the grid, then its colours if it has any."""
    bands: int
    """Fourier bands along each axis."""
    resolution: tuple[int, ...] = ()
    """Max resolution (mu) along each axis; if empty, the grid."""
    stem: StemGeometry | None = None
    """Makes a token's content; if None, the content is the patch itself."""
    single: bool = False
    """Whether positions are computed in single precision."""
    sense: SenseGeometry | None = None
    """What the modality alone says about the labels, for the head `senses`."""

    @property
    def tokens(self) -> int:
        """The number of tokens in one window."""
        return math.prod(self.grid)

    @property
    def values(self) -> int:
        """The number of values in one token's patch."""
        return math.prod(self.patch)

    @property
    def content(self) -> int:
        """Channels of a token before its position."""
        return self.stem.channels if self.stem else self.values

    @property
    def mu(self) -> tuple[int, ...]:
        """Max resolution along each axis."""
        return self.resolution or self.grid

    @property
    def width(self) -> int:
        """Channels of a token: content, then for each axis the raw position, K sines and K cosines."""
        return self.content + len(self.grid) * (2 * self.bands + 1)


class Audio(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How audio becomes tokens."""

    rate_hz: AxisSize
    """Sample rate."""
    samples: AxisSize
    """Samples in one window."""
    form: Literal["raw", "mel"]
    """`raw`: segments of samples; `mel`: patches of a log-mel spectrogram (`encoding.log_mel`)."""
    patch: tuple[AxisSize, ...]
    """Size of one token. `raw`: (samples,); `mel`: (spectrogram frames, mel bands)."""
    bands: Bands
    """Fourier bands of positions, along each axis (K)."""
    stem: StemGeometry | None = None
    """Runs over the whole spectrogram; both sizes of `patch` are its stride."""
    mel_bands: AxisSize = 64
    """Bands of the log-mel spectrogram."""
    mel_hop: AxisSize = 160
    """Samples between two spectrogram frames."""
    resolution: tuple[AxisSize, ...] = ()
    """Max resolution along each axis of the token grid; if empty, the grid."""
    single: bool = False
    """Whether positions are computed in single precision, as in the published code. At the highest frequencies that is
    off by 0.002, and weights that were trained with it need it."""
    sense: SenseGeometry | None = None
    """What the audio alone says about the labels; needs a stem."""

    @property
    def modality(self) -> Modality:
        """The token grid: (segments,) or (time, frequency)."""
        grid = tuple(n // p for n, p in zip(self._extent, self.patch, strict=True))
        return Modality("audio", grid, self.patch, self.bands, self.resolution, self.stem, self.single, self.sense)

    @property
    def _extent(self) -> tuple[int, ...]:
        """Samples, or spectrogram frames and mel bands."""
        return (self.samples,) if self.form == "raw" else (self.samples // self.mel_hop, self.mel_bands)

    def __post_init__(self) -> None:
        extent = self._extent
        if len(self.patch) != len(extent) or any(n % p for n, p in zip(extent, self.patch, strict=True)):
            raise ValueError(f"audio.patch {self.patch} does not divide {extent}")
        if self.form == "mel" and self.rate_hz != MEL_RATE_HZ:
            raise ValueError(f"audio.rate_hz {self.rate_hz}: form mel needs {MEL_RATE_HZ}")
        if self.form == "mel" and self.samples % self.mel_hop:
            raise ValueError(f"audio.samples {self.samples} is not a multiple of mel_hop {self.mel_hop}")
        if len(self.resolution) not in (0, len(extent)):
            raise ValueError(f"audio.resolution {self.resolution}: expected {len(extent)} numbers, or none")
        if self.stem and len(self.stem.border) not in (0, 1):
            raise ValueError(f"audio.stem.border {self.stem.border}: expected one number, or none")
        if self.stem and self.patch != (self.stem.stride,) * 2:
            raise ValueError(
                f"audio.stem of stride {self.stem.stride} needs form mel and patch {(self.stem.stride,) * 2}"
            )


class Video(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How video becomes tokens."""

    frames: AxisSize
    """Frames in one window."""
    fps: Annotated[float, Meta(gt=0, le=1000)]
    """Frames per second; one window lasts frames / fps seconds."""
    height: AxisSize
    """Rows of pixels."""
    width: AxisSize
    """Columns of pixels."""
    patch: tuple[AxisSize, AxisSize, AxisSize]
    """Size of one token: (frames, rows, columns). Its values are in that order, with colour last and fastest."""
    bands: Bands
    """Fourier bands of positions, along each axis (K)."""
    stem: StemGeometry | None = None
    """Runs over each frame separately; the rows and columns of `patch` are its stride."""
    resolution: tuple[AxisSize, ...] = ()
    """Max resolution along time, y and x; if empty, the token grid."""
    single: bool = False
    """Whether positions are computed in single precision; see `Audio.single`."""
    sense: SenseGeometry | None = None
    """What the video alone says about the labels; needs a stem."""

    @property
    def modality(self) -> Modality:
        """The token grid: (time, y, x)."""
        grid = tuple(n // p for n, p in zip(self._extent, self.patch, strict=True))
        patch = (*self.patch, 3)
        return Modality("video", grid, patch, self.bands, self.resolution, self.stem, self.single, self.sense)

    @property
    def _extent(self) -> tuple[int, int, int]:
        return self.frames, self.height, self.width

    def __post_init__(self) -> None:
        if any(n % p for n, p in zip(self._extent, self.patch, strict=True)):
            raise ValueError(f"video.patch {self.patch} does not divide {self._extent}")
        if len(self.resolution) not in (0, 3):
            raise ValueError(f"video.resolution {self.resolution}: expected three numbers, or none")
        if self.stem and len(self.stem.border) not in (0, 3):
            raise ValueError(f"video.stem.border {self.stem.border}: expected three numbers, or none")
        if self.stem and self.patch != (1, self.stem.stride, self.stem.stride):
            raise ValueError(f"video.stem of stride {self.stem.stride} needs patch {(1, *(self.stem.stride,) * 2)}")


class Trunk(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The network above the byte array (names as in the Perceiver paper)."""

    latents: Channels
    """The number of latents (N)."""
    width: Channels
    """Channels of a latent (D)."""
    cross_attends: Depth
    """How often the latents read the byte array."""
    layers: Annotated[int, Meta(ge=0, le=256)]
    """Self-attention layers after each cross-attend."""
    heads: Channels
    """Heads of self-attention."""
    cross_heads: Channels = 1
    """Heads of a cross-attend."""
    cross_width: ChannelsOrNone = 0
    """Query, key and value channels of a cross-attend; 0 means the byte array's width, as published."""
    widening: Depth = 1
    """Hidden channels of an MLP divided by its width."""
    shared: bool = False
    """Published weight sharing: all latent blocks share weights, and so do all cross-attends except the first."""
    head: Literal["mean", "query", "senses"] = "mean"
    """`mean`: mean over the latents, then linear (Perceiver); `query`: a label query attends to them (Perceiver IO);
    `senses`: linear over that mean and over what each modality alone says about the labels."""
    modality_channels: ChannelsOrNone = 4
    """Learned channels of the widest modality; narrower modalities get more, up to the same width."""
    constants: ChannelsOrNone = 0
    """Learned tokens that every window has, after those of its modalities."""
    gelu: Literal["erf", "tanh"] = "erf"
    """`erf`: the exact GELU; `tanh`: its approximation. Use the one with which the weights were trained."""
    query_width: ChannelsOrNone = 0
    """Channels of the label query; 0 means `width`."""
    query_residual: bool = True
    """Whether the label query is added to what it reads."""
    complete_only: bool = False
    """Whether the latents read only windows that have all modalities. The head `senses` then judges other windows from
    what their modalities alone say, with zeros for the mean of the latents, so these windows cost less."""

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"trunk.width {self.width} cannot be split over {self.heads} heads")
        if self.complete_only and self.head != "senses":
            raise ValueError(f"trunk.complete_only needs head senses, not {self.head}")


class Geometry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole model: its inputs, its network, and how many labels it scores."""

    classes: Channels
    """The number of labels."""
    trunk: Trunk
    audio: Audio | None = None
    video: Video | None = None

    def __post_init__(self) -> None:
        if self.audio is None and self.video is None:
            raise ValueError("a model needs [audio] or [video]")
        if self.audio and self.video:
            audio_s, video_s = self.audio.samples / self.audio.rate_hz, self.video.frames / self.video.fps
            if abs(audio_s - video_s) > 1e-6:
                raise ValueError(f"audio lasts {audio_s:g} s but video {video_s:g} s; both must have the same length")
        for modality in self.modalities:
            numbers = modality.tokens * max(modality.values, modality.width + self.trunk.modality_channels)
            if numbers > MAX_VALUES or modality.width > MAX_WIDTH:
                raise ValueError(f"{modality.name}: {modality.tokens} tokens of {modality.width} channels are too many")
        self._check_senses()
        across = self.trunk.cross_width or max(m.width for m in self.modalities) + self.trunk.modality_channels
        if across % self.trunk.cross_heads:
            raise ValueError(f"{across} channels of a cross-attend cannot be split over {self.trunk.cross_heads} heads")

    def _check_senses(self) -> None:
        wanted = self.trunk.head == "senses"
        for modality in self.modalities:
            if wanted != (modality.sense is not None):
                state = "missing, but trunk.head is senses" if wanted else "given, but trunk.head is not senses"
                raise ValueError(f"{modality.name}.sense is {state}")
            if modality.sense and not modality.stem:
                raise ValueError(f"{modality.name}.sense needs {modality.name}.stem")
        counts = {modality.sense.labels for modality in self.modalities if modality.sense}
        if counts and (len(counts) > 1 or max(counts) > self.classes):
            raise ValueError(f"sense.labels is {sorted(counts)}; give one number, at most {self.classes} (classes)")

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Audio, then video: the order in the byte array."""
        return tuple(part.modality for part in (self.audio, self.video) if part is not None)

    @property
    def vector_width(self) -> int:
        """Channels of a window's vector before the last layer."""
        return sum(self.vector_parts.values())

    @property
    def vector_parts(self) -> dict[str, int]:
        """Channels of each part of that vector, in order.

        `latents`, then for the head `senses` a part for each modality with `sense.pooled`, and `joint`: the labels.
        """
        if self.trunk.head == "query":
            return {"latents": self.trunk.query_width or self.trunk.width}
        parts = {"latents": self.trunk.width}
        for modality in self.modalities:
            if modality.sense and modality.sense.pooled:
                parts[modality.name] = modality.content
        labels = {modality.sense.labels for modality in self.modalities if modality.sense}
        return parts | ({"joint": max(labels)} if labels else {})

    @property
    def window_ns(self) -> int:
        """The length of one window."""
        if self.audio:
            return self.audio.samples * NS_PER_S // self.audio.rate_hz
        assert self.video
        return round(self.video.frames * NS_PER_S / self.video.fps)

    @property
    def media_format(self) -> MediaFormat:
        """What a source must deliver for this model: the rate of the audio, and the size and rate of the video."""
        video = self.video
        return MediaFormat(
            audio_rate_hz=self.audio.rate_hz if self.audio else None,
            video=VideoFormat(video.height, video.width, video.fps) if video else None,
        )
