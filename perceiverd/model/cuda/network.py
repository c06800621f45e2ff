"""The whole network for inference on a GPU: samples and pixels in, logits out, for windows of any mix of modalities.

It gives what `Perceiver` gives, up to the rounding of the precision. All sizes are static and nothing waits for the
device, so that a CUDA graph can hold it. It also runs on a CPU.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import cast

import torch
from torch import Tensor, nn

from perceiverd.model.attention import CrossAttend
from perceiverd.model.cuda.cross import SeparableCrossAttend
from perceiverd.model.cuda.precision import halve
from perceiverd.model.cuda.reading import Content, GridTables, Layout, Reader
from perceiverd.model.cuda.stems import DeviceStem
from perceiverd.model.encoding import log_mel, mel_matrix
from perceiverd.model.factorised import FixedQueryCrossAttend
from perceiverd.model.geometry import Audio, Geometry, Modality, Video
from perceiverd.model.inference import token_grids
from perceiverd.model.perceiver import Perceiver, QueryHead, Stem
from perceiverd.model.senses import SensesHead
from perceiverd.model.tables import MEL_CENTRE, MEL_SPREAD


@dataclass(frozen=True, slots=True, eq=False)
class DeviceMedia:
    """A batch on the device; what the model does not use is None."""

    samples: Tensor | None
    """(B, S), -1..1, at the model's rate."""
    frames: Tensor | None
    """(B, T, H, W, 3), uint8 RGB."""
    present: dict[str, Tensor]
    """(B,) for each modality of the model, False for windows without it."""


class DeviceNetwork:
    """Logits of a network in evaluation mode."""

    @torch.inference_mode()
    def __init__(
        self,
        network: Perceiver,
        geometry: Geometry,
        device: torch.device,
        half: torch.dtype | None,
        reader: Reader,
    ) -> None:
        """`network` is on the CPU and stays as it is. `half`: the type of products; None keeps that of the weights."""
        network = copy.deepcopy(network).to(device)
        self._geometry, self._head = geometry, network.head
        byte_array, trunk, latents = network.bytes, network.trunk, network.latents
        indices = [min(index, len(network.crosses) - 1) for index in range(trunk.cross_attends)]
        crosses = [cast(CrossAttend, network.crosses[index]) for index in indices]
        grids, eps = token_grids(byte_array, trunk.latents * trunk.cross_heads), crosses[0].input_norm.eps
        tables = {name: GridTables(grid, eps, latents) for name, grid in grids.items()}
        constants = latents.new_zeros(0, byte_array.width) if byte_array.constants is None else byte_array.constants
        self._crosses = [
            SeparableCrossAttend(cross, grids, tables, constants, None if index else latents, reader, half)
            for index, cross in enumerate(crosses)
        ]
        self._query = None
        if isinstance(self._head, QueryHead):
            self._query = FixedQueryCrossAttend(self._head.attend, self._head.query)
        self._blocks = [network.blocks[min(index, len(network.blocks) - 1)] for index in range(trunk.cross_attends)]
        self._latents = latents
        for part in (network.crosses, network.blocks):  # after they were folded, in float64
            halve(part, half)
        self._stems = {name: DeviceStem(cast(Stem, stem), half) for name, stem in byte_array.stems.items()}
        self._layouts = {
            m.name: moved_layout(layout_of(m, geometry, is_stem=m.name in self._stems), device)
            for m in geometry.modalities
        }
        self._mel = mel_matrix(geometry.audio.mel_bands).to(device) if geometry.audio else None

    @torch.inference_mode()
    def __call__(self, media: DeviceMedia) -> Tensor:
        """Logits (B, classes)."""
        contents: dict[str, Content] = {}
        pooled: dict[str, Tensor] = {}
        for name, values in self._values(media):
            if name in self._stems:
                stem = self._stems[name]
                values = stem(values)
                pooled[name] = values.mean(dim=1)
                values = stem.norm(values)
            contents[name] = Content(values, self._layouts[name], media.present[name])
        if isinstance(self._head, SensesHead) and not self._head.reads_latents(pooled):
            return self._head(None, pooled, media.present)  # type: ignore[no-any-return]
        batch = len(next(iter(media.present.values())))
        latents = self._latents.expand(batch, -1, -1)
        for cross, block in zip(self._crosses, self._blocks, strict=True):
            latents = cross(latents, contents)
            for layer in cast(nn.ModuleList, block):
                latents = layer(latents)
        if isinstance(self._head, SensesHead):
            return self._head(latents, pooled, media.present)  # type: ignore[no-any-return]
        read = self._query(latents)[:, 0] if self._query else latents.mean(dim=1)
        return self._head.out(read)  # type: ignore[no-any-return] # (B, classes)

    def _values(self, media: DeviceMedia) -> Iterator[tuple[str, Tensor]]:
        """What stems or cross-attends read, for each modality: images for a stem, otherwise numbers of a `Layout`."""
        if self._geometry.audio and media.samples is not None:
            yield "audio", self._audio(media.samples, self._geometry.audio)
        if self._geometry.video and media.frames is not None:
            yield "video", self._video(media.frames)

    def _audio(self, samples: Tensor, audio: Audio) -> Tensor:
        if audio.form == "raw":
            return samples
        spectrogram = log_mel(samples, bands=audio.mel_bands, hop=audio.mel_hop, matrix=self._mel)
        return ((spectrogram - MEL_CENTRE) / MEL_SPREAD)[:, None]  # (B, 1, frames, bands)

    def _video(self, frames: Tensor) -> Tensor:
        if "video" not in self._stems:
            return frames
        images = frames.flatten(0, 1).permute(0, 3, 1, 2)  # (B * T, 3, Y, X), channels last in memory
        return images.to(self._latents.dtype) / 255.0


def layout_of(modality: Modality, geometry: Geometry, *, is_stem: bool) -> Layout:
    """Where the content of a modality's tokens lies: in a stem's output, a spectrogram, samples or pixels."""
    if is_stem:
        return _strided(modality.grid, (modality.content,))
    if modality.name == "video":
        assert geometry.video
        return _pixels(geometry.video)
    assert geometry.audio
    if geometry.audio.form == "raw":
        return _strided(modality.grid, modality.patch)
    return _spectrogram(geometry.audio)


def _strided(grid: tuple[int, ...], patch: tuple[int, ...]) -> Layout:
    """Tokens one after another, each with its values one after another."""
    values, tokens = 1, 1
    for size in patch:
        values *= size
    for size in grid:
        tokens *= size
    return Layout(torch.arange(tokens, dtype=torch.int32) * values, torch.arange(values, dtype=torch.int32))


def _pixels(video: Video) -> Layout:
    """Patches of (T, H, W, 3)."""
    t, y, x = video.patch
    _, grid_y, grid_x = video.modality.grid
    frame, row = video.height * video.width * 3, video.width * 3
    starts = [
        a * t * frame + b * y * row + c * x * 3
        for a, b, c in product(range(video.modality.grid[0]), range(grid_y), range(grid_x))
    ]
    inside = [a * frame + b * row + c * 3 + d for a, b, c, d in product(range(t), range(y), range(x), range(3))]
    return Layout(torch.tensor(starts, dtype=torch.int32), torch.tensor(inside, dtype=torch.int32), 1 / 255)


def _spectrogram(audio: Audio) -> Layout:
    """Patches of (frames, bands)."""
    rows, columns = audio.patch
    grid_t, grid_f = audio.modality.grid
    starts = [a * rows * audio.mel_bands + b * columns for a, b in product(range(grid_t), range(grid_f))]
    inside = [a * audio.mel_bands + b for a, b in product(range(rows), range(columns))]
    return Layout(torch.tensor(starts, dtype=torch.int32), torch.tensor(inside, dtype=torch.int32))


def moved_layout(layout: Layout, device: torch.device) -> Layout:
    """The same on the device."""
    return Layout(layout.tokens.to(device), layout.channels.to(device), layout.scale)
