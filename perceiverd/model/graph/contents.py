"""Nodes from media to the content of tokens, in blocks. One block of the whole grid has the order of the papers."""

from __future__ import annotations

import math

from perceiverd.model.blocks import Blocks
from perceiverd.model.geometry import Audio, Modality, Video
from perceiverd.model.graph import proto
from perceiverd.model.graph.builder import GraphBuilder, Value
from perceiverd.model.graph.layers import layer_norm
from perceiverd.model.graph.spectrogram import spectrogram
from perceiverd.model.graph.stems import stem
from perceiverd.model.tables import MEL_CENTRE, MEL_SPREAD


def frame_features(g: GraphBuilder, frames: Value, video: Video) -> Value:
    """Features (n, tokens of a frame, channels) of frames (n, H, W, 3), uint8, by the stem of the video."""
    assert video.stem
    images = g.transpose(g.cast(frames, proto.FLOAT), 0, 3, 1, 2)
    images = g.node("Mul", images, g.floats(1 / 255))
    return stem(g, images, "bytes.stems.video", video.stem, 3, math.prod(video.modality.grid[1:]))


def video_content(g: GraphBuilder, frames: Value, video: Video, blocks: Blocks) -> Value:
    """Content (B, blocks, tokens of a block, values), 0..1, of frames (B, T, H, W, 3), uint8."""
    pieces = zip(blocks.counts, blocks.block, video.patch, strict=True)
    sizes = [size for piece in pieces for size in piece]  # of each axis: blocks, tokens, pixels; then colours
    order = [axis + part for part in range(3) for axis in (0, 3, 6)]
    patches = _regroup(g, frames, [*sizes, 3], [*order, 9])
    patches = g.reshape(patches, -1, math.prod(blocks.counts), math.prod(blocks.block), blocks.content)
    return g.node("Mul", g.cast(patches, proto.FLOAT), g.floats(1 / 255))


def audio_features(g: GraphBuilder, samples: Value, audio: Audio) -> Value:
    """Features (B, tokens, channels) of samples (B, S), by the stem of the audio."""
    assert audio.stem
    images = g.node("Unsqueeze", _centred_mel(g, samples, audio), g.ints(1))
    return stem(g, images, "bytes.stems.audio", audio.stem, 1, audio.modality.tokens)


def audio_content(g: GraphBuilder, samples: Value, audio: Audio, blocks: Blocks) -> Value:
    """Content (B, blocks, tokens of a block, values) of samples (B, S), without a stem."""
    shape = (-1, math.prod(blocks.counts), math.prod(blocks.block), blocks.content)
    if audio.form == "raw":  # blocks of segments follow each other as they are
        return g.reshape(samples, *shape)
    sizes = [size for piece in zip(blocks.counts, blocks.block, audio.patch, strict=True) for size in piece]
    return g.reshape(_regroup(g, _centred_mel(g, samples, audio), sizes, [0, 3, 1, 4, 2, 5]), *shape)


def _centred_mel(g: GraphBuilder, samples: Value, audio: Audio) -> Value:
    """(B, frames, bands)."""
    centred = g.node("Sub", spectrogram(g, samples, audio), g.floats(MEL_CENTRE))
    return g.node("Mul", centred, g.floats(1 / MEL_SPREAD))


def stem_content(g: GraphBuilder, features: Value, modality: Modality, blocks: Blocks) -> Value:
    """Content (B, blocks, tokens of a block, channels) of what a stem gave (B, tokens, channels)."""
    normal = layer_norm(g, features, f"bytes.stems.{modality.name}.norm", modality.content)
    return _in_blocks(g, normal, blocks)


def _in_blocks(g: GraphBuilder, content: Value, blocks: Blocks) -> Value:
    axes = len(blocks.grid)
    sizes = [n for pair in zip(blocks.counts, blocks.block, strict=True) for n in pair]
    order = [2 * axis + part for part in (0, 1) for axis in range(axes)]
    regrouped = _regroup(g, content, [*sizes, blocks.content], [*order, 2 * axes])
    return g.reshape(regrouped, -1, math.prod(blocks.counts), math.prod(blocks.block), blocks.content)


def whole(modality: Modality) -> Blocks:
    """The grid as one block."""
    return Blocks(modality.grid, modality.grid, modality.content)


def _regroup(g: GraphBuilder, value: Value, sizes: list[int], order: list[int]) -> Value:
    """Split the axes after the first into `sizes` and put these in another order.

    Axes of size 1 are left out, and axes that stay neighbours are one: runtimes move few axes faster than many.
    """
    kept = [axis for axis in order if sizes[axis] > 1]
    runs: list[list[int]] = []
    for axis in kept:
        if runs and not [each for each in range(runs[-1][-1] + 1, axis) if sizes[each] > 1] and axis > runs[-1][-1]:
            runs[-1].append(axis)
        else:
            runs.append([axis])
    source = sorted(runs)
    shape = [math.prod(sizes[axis] for axis in run) for run in source]
    moved = g.reshape(value, -1, *shape)
    return g.transpose(moved, 0, *(1 + source.index(run) for run in runs))
