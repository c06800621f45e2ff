"""What the weights decide: window length, rates, patches, bands, widths. Read from `models/<name>/model.toml`.

Knows nothing of torch, so that sources, windower and command line can ask a model what it wants to see.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from perceiverd.media import NS_PER_S


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
    stem: tuple[int, ...] = ()
    """Channels of the convolutions that make a token from its patch and what surrounds it; none: the patch itself."""

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
        return self.stem[-1] if self.stem else self.values

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

    rate_hz: int
    samples: int
    """Samples of one window."""
    form: Literal["raw", "mel"]
    """`raw`: segments of samples; `mel`: patches of a log-mel spectrogram (`encoding.log_mel`)."""
    patch: tuple[int, ...]
    """raw: (samples,) of one token; mel: (spectrogram frames, mel bands) of one token."""
    bands: int
    stem: tuple[int, ...] = ()
    """Channels of 3 x 3 convolutions of stride 2 over the spectrogram; they halve both axes of `patch` each to 1."""
    mel_bands: int = 64
    mel_hop: int = 160
    """Samples between two spectrogram frames."""

    @property
    def modality(self) -> Modality:
        """The token grid: (segments,) or (time, frequency)."""
        extent = (self.samples,) if self.form == "raw" else (self.samples // self.mel_hop, self.mel_bands)
        grid = tuple(n // p for n, p in zip(extent, self.patch, strict=True))
        return Modality("audio", grid, self.patch, self.bands, stem=self.stem)

    def __post_init__(self) -> None:
        extent = (self.samples,) if self.form == "raw" else (self.samples // self.mel_hop, self.mel_bands)
        if len(self.patch) != len(extent) or any(n % p for n, p in zip(extent, self.patch, strict=True)):
            raise ValueError(f"audio.patch {self.patch} does not divide {extent}")
        if self.form == "mel" and self.samples % self.mel_hop:
            raise ValueError(f"audio.samples {self.samples} is not a multiple of mel_hop {self.mel_hop}")
        if self.stem and self.patch != (2 ** len(self.stem),) * 2:
            raise ValueError(
                f"audio.stem of {len(self.stem)} layers needs form mel and patch {(2 ** len(self.stem),) * 2}"
            )


class Video(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How pictures become tokens."""

    frames: int
    fps: float
    """Pictures a second; one window lasts frames / fps."""
    height: int
    width: int
    patch: tuple[int, int, int]
    """(frames, rows, columns) of one token; its channels run in that order, colour fastest."""
    bands: int
    stem: tuple[int, ...] = ()
    """Channels of 3 x 3 convolutions of stride 2 over each picture; they halve rows and columns of `patch` to 1."""

    @property
    def modality(self) -> Modality:
        """The token grid: (time, y, x)."""
        extent = (self.frames, self.height, self.width)
        grid = tuple(n // p for n, p in zip(extent, self.patch, strict=True))
        return Modality("video", grid, (*self.patch, 3), self.bands, stem=self.stem)

    def __post_init__(self) -> None:
        if any(n % p for n, p in zip((self.frames, self.height, self.width), self.patch, strict=True)):
            raise ValueError(f"video.patch {self.patch} does not divide {(self.frames, self.height, self.width)}")
        if self.stem and self.patch != (1, 2 ** len(self.stem), 2 ** len(self.stem)):
            raise ValueError(f"video.stem of {len(self.stem)} layers needs patch {(1, *(2 ** len(self.stem),) * 2)}")


class Trunk(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The network above the byte array (names as in the Perceiver paper)."""

    latents: int
    width: int
    """Channels of a latent (D)."""
    cross_attends: int
    layers: int
    """Self-attention layers after each cross-attend."""
    heads: int
    """Heads of self-attention."""
    cross_heads: int = 1
    cross_width: int = 0
    """Query, key and value channels of a cross-attend; 0 is the byte array's width, as published."""
    widening: int = 1
    """Hidden channels of an MLP over its width."""
    shared: bool = False
    """Published weight sharing: every latent block is one, and so is every cross-attend but the first."""
    head: Literal["mean", "query"] = "mean"
    """`mean`: mean over the latents, then linear (Perceiver); `query`: a label query attends to them (Perceiver IO)."""
    modality_channels: int = 4
    """Learned channels that the widest modality gets; narrower ones are padded to the common width."""


class Geometry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole model: what it sees, how it is built, how many labels it scores."""

    classes: int
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
