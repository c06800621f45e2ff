"""What the weights decide: window length, rates, patches, bands, widths. Read from `models/<name>/model.toml`.

Knows nothing of torch, so that sources, windower and command line can ask a model what it wants to see.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from perceiverd.core.media import NS_PER_S, MediaFormat, VideoFormat

# No size is without a bound: a slip in a file must not build modules for hours or ask for more memory than there is.
Count = Annotated[int, Meta(ge=1, le=2**24)]
"""Along one axis: six minutes of sound at 48 kHz."""
Channels = Annotated[int, Meta(ge=1, le=2**16)]
Some = Annotated[int, Meta(ge=0, le=2**16)]
Bands = Annotated[int, Meta(ge=0, le=2**12)]
Depth = Annotated[int, Meta(ge=1, le=256)]
"""Of what is a module of its own each."""
LARGEST = 2**31
"""Numbers in a window's byte array, or in what it is made from: sixty times the public checkpoint's."""
MEL_RATE_HZ = 16_000
"""The only rate for which `encoding.log_mel` is made."""


LAYER = re.compile(r"(?P<kind>conv|separable|inverted) (?P<kernel>[35])(?:/(?P<stride>2))? (?P<channels>[1-9]\d{0,3})")


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a stem."""

    kind: Literal["conv", "separable", "inverted"]
    """A convolution; a depthwise one and a pointwise one (MobileNet, Howard et al. 2017); six times the channels, a
    depthwise one, and back without activation, the input added where its shape allows (MobileNetV2, Sandler et al.
    2018), where the first such layer of a stem doesn't widen."""
    kernel: int
    """Rows and columns."""
    stride: int
    channels: int


class StemGeometry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Convolutions that make a token's content from its patch and what surrounds it."""

    layers: Annotated[tuple[str, ...], Meta(min_length=1)]
    """Each `KIND KERNEL[/2] CHANNELS`, as `separable 3/2 128`: a layer of this kind (see `Layer`), of stride 2 or 1."""
    ceiling: Annotated[float, Meta(ge=0)] = 0.0
    """Activations are cut off below 0 and, where this is not 0, above it (6 is ReLU6)."""

    def __post_init__(self) -> None:
        for layer in self.layers:
            if not LAYER.fullmatch(layer):
                raise ValueError(f"stem.layers: {layer!r} is no layer; expected such as 'conv 3/2 32'")

    @property
    def parsed(self) -> tuple[Layer, ...]:
        """The layers, first to last."""
        found = [re.fullmatch(LAYER, layer) for layer in self.layers]
        return tuple(
            Layer(one["kind"], int(one["kernel"]), int(one["stride"] or 1), int(one["channels"]))  # type: ignore[arg-type]
            for one in found
            if one
        )

    @property
    def stride(self) -> int:
        """Rows and columns that become one."""
        return math.prod(layer.stride for layer in self.parsed)

    @property
    def channels(self) -> int:
        """Of what comes out."""
        return self.parsed[-1].channels


class Modality(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One grid of tokens as the network sees it."""

    name: str
    grid: tuple[int, ...]
    """Tokens along each axis, slowest first."""
    patch: tuple[int, ...]
    """Values of one token along each axis of the grid, then its colours if it has any."""
    bands: int
    """Fourier bands along each axis."""
    resolution: tuple[int, ...] = ()
    """Max resolution (mu) along each axis; the grid itself where empty."""
    stem: StemGeometry | None = None
    """What makes a token's content; None: the patch itself is it."""
    single: bool = False
    """Whether positions are worked out in single precision."""

    @property
    def tokens(self) -> int:
        """How many tokens one window has."""
        return math.prod(self.grid)

    @property
    def values(self) -> int:
        """How many values one token is given."""
        return math.prod(self.patch)

    @property
    def content(self) -> int:
        """Channels of a token before its position."""
        return self.stem.channels if self.stem else self.values

    @property
    def mu(self) -> tuple[int, ...]:
        """The max resolution that is in force."""
        return self.resolution or self.grid

    @property
    def width(self) -> int:
        """Channels of a token: content, then for each axis the raw position, K sines and K cosines."""
        return self.content + len(self.grid) * (2 * self.bands + 1)


class Audio(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How sound becomes tokens."""

    rate_hz: Count
    samples: Count
    """Samples of one window."""
    form: Literal["raw", "mel"]
    """`raw`: segments of samples; `mel`: patches of a log-mel spectrogram (`encoding.log_mel`)."""
    patch: tuple[Count, ...]
    """raw: (samples,) of one token; mel: (spectrogram frames, mel bands) of one token."""
    bands: Bands
    stem: StemGeometry | None = None
    """Over the whole spectrogram; its stride is both axes' of `patch`."""
    mel_bands: Count = 64
    mel_hop: Count = 160
    """Samples between two spectrogram frames."""
    resolution: tuple[Count, ...] = ()
    """Max resolution along each axis of the token grid; the grid itself where empty."""
    single: bool = False
    """Whether positions are worked out in single precision, as the published code does. At its highest frequencies that
    is off by 0.002, which weights that were made with it are used to."""

    @property
    def modality(self) -> Modality:
        """The token grid: (segments,) or (time, frequency)."""
        extent = (self.samples,) if self.form == "raw" else (self.samples // self.mel_hop, self.mel_bands)
        grid = tuple(n // p for n, p in zip(extent, self.patch, strict=True))
        return Modality("audio", grid, self.patch, self.bands, self.resolution, self.stem, self.single)

    def __post_init__(self) -> None:
        extent = (self.samples,) if self.form == "raw" else (self.samples // self.mel_hop, self.mel_bands)
        if len(self.patch) != len(extent) or any(n % p for n, p in zip(extent, self.patch, strict=True)):
            raise ValueError(f"audio.patch {self.patch} does not divide {extent}")
        if self.form == "mel" and self.rate_hz != MEL_RATE_HZ:
            raise ValueError(f"audio.rate_hz {self.rate_hz}: form mel is made for {MEL_RATE_HZ}")
        if self.form == "mel" and self.samples % self.mel_hop:
            raise ValueError(f"audio.samples {self.samples} is not a multiple of mel_hop {self.mel_hop}")
        if len(self.resolution) not in (0, len(extent)):
            raise ValueError(f"audio.resolution {self.resolution}: one number for each of {len(extent)} axes, or none")
        if self.stem and self.patch != (self.stem.stride,) * 2:
            raise ValueError(
                f"audio.stem of stride {self.stem.stride} needs form mel and patch {(self.stem.stride,) * 2}"
            )


class Video(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How pictures become tokens."""

    frames: Count
    fps: Annotated[float, Meta(gt=0, le=1000)]
    """Pictures a second; one window lasts frames / fps."""
    height: Count
    width: Count
    patch: tuple[Count, Count, Count]
    """(frames, rows, columns) of one token; its channels run in that order, colour fastest."""
    bands: Bands
    stem: StemGeometry | None = None
    """Over each picture by itself; its stride is rows and columns of `patch`."""
    resolution: tuple[Count, ...] = ()
    """Max resolution along time, y and x; the token grid itself where empty."""
    single: bool = False
    """Whether positions are worked out in single precision, see `Audio.single`."""

    @property
    def modality(self) -> Modality:
        """The token grid: (time, y, x)."""
        extent = (self.frames, self.height, self.width)
        grid = tuple(n // p for n, p in zip(extent, self.patch, strict=True))
        return Modality("video", grid, (*self.patch, 3), self.bands, self.resolution, self.stem, self.single)

    def __post_init__(self) -> None:
        if any(n % p for n, p in zip((self.frames, self.height, self.width), self.patch, strict=True)):
            raise ValueError(f"video.patch {self.patch} does not divide {(self.frames, self.height, self.width)}")
        if len(self.resolution) not in (0, 3):
            raise ValueError(f"video.resolution {self.resolution}: three numbers, or none")
        if self.stem and self.patch != (1, self.stem.stride, self.stem.stride):
            raise ValueError(f"video.stem of stride {self.stem.stride} needs patch {(1, *(self.stem.stride,) * 2)}")


class Trunk(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The network above the byte array (names as in the Perceiver paper)."""

    latents: Channels
    width: Channels
    """Channels of a latent (D)."""
    cross_attends: Depth
    layers: Annotated[int, Meta(ge=0, le=256)]
    """Self-attention layers after each cross-attend."""
    heads: Channels
    """Heads of self-attention."""
    cross_heads: Channels = 1
    cross_width: Some = 0
    """Query, key and value channels of a cross-attend; 0 is the byte array's width, as published."""
    widening: Depth = 1
    """Hidden channels of an MLP over its width."""
    shared: bool = False
    """Published weight sharing: every latent block is one, and so is every cross-attend but the first."""
    head: Literal["mean", "query"] = "mean"
    """`mean`: mean over the latents, then linear (Perceiver); `query`: a label query attends to them (Perceiver IO)."""
    modality_channels: Some = 4
    """Learned channels that the widest modality gets; narrower ones are padded to the common width."""
    constants: Some = 0
    """Learned tokens that every window has, after those of its modalities."""
    gelu: Literal["erf", "tanh"] = "erf"
    """GELU as it is defined, or as `tanh` comes near it; the weights were made with one of them."""
    query_width: Some = 0
    """Channels of the label query; 0 is `width`."""
    query_residual: bool = True
    """Whether the label query is added to what it reads."""

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"trunk.width {self.width} cannot be split over {self.heads} heads")


class Geometry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole model: what it sees, how it is built, how many labels it scores."""

    classes: Channels
    trunk: Trunk
    audio: Audio | None = None
    video: Video | None = None

    def __post_init__(self) -> None:
        if self.audio is None and self.video is None:
            raise ValueError("a model needs [audio] or [video]")
        if self.audio and self.video:
            sound, sight = self.audio.samples / self.audio.rate_hz, self.video.frames / self.video.fps
            if abs(sound - sight) > 1e-6:
                raise ValueError(f"audio lasts {sound:g} s and video {sight:g} s: one window has one length")
        for modality in self.modalities:
            numbers = modality.tokens * max(modality.values, modality.width + self.trunk.modality_channels)
            if numbers > LARGEST or modality.width > 2**20:
                raise ValueError(f"{modality.name}: {modality.tokens} tokens of {modality.width} channels are too many")
        across = self.trunk.cross_width or max(m.width for m in self.modalities) + self.trunk.modality_channels
        if across % self.trunk.cross_heads:
            raise ValueError(f"{across} channels of a cross-attend cannot be split over {self.trunk.cross_heads} heads")

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Audio before video, as the byte array has them."""
        return tuple(part.modality for part in (self.audio, self.video) if part is not None)

    @property
    def window_ns(self) -> int:
        """How long one window is."""
        if self.audio:
            return self.audio.samples * NS_PER_S // self.audio.rate_hz
        assert self.video
        return round(self.video.frames * NS_PER_S / self.video.fps)

    @property
    def media_format(self) -> MediaFormat:
        """What a source must deliver for this model: the rate of its audio, the size and rate of its pictures."""
        video = self.video
        return MediaFormat(
            audio_rate_hz=self.audio.rate_hz if self.audio else None,
            video=VideoFormat(video.height, video.width, video.fps) if video else None,
        )
