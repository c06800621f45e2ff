"""The graphs of a model: of its frames, of all that follows, and of both together. Follows `perceiver.Perceiver`.

A frame that is in two windows needs its stem only once, so a runtime gets two graphs. For other programs there is one.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from perceiverd.model.blocks import Blocks, choose_block
from perceiverd.model.geometry import Geometry, Video
from perceiverd.model.graph import proto
from perceiverd.model.graph.builder import GraphBuilder, Value
from perceiverd.model.graph.contents import (
    audio_content,
    audio_features,
    frame_features,
    stem_content,
    video_content,
    whole,
)
from perceiverd.model.graph.crosses import FactorisedCrossAttends, PlainCrossAttends, Sizes, finish
from perceiverd.model.graph.folding import folded_projections, projected_queries
from perceiverd.model.graph.layers import EPSILON, layer_norm, mlp, self_attend
from perceiverd.model.graph.senses import sense_inputs

FRAMES, FEATURES, AUDIO, VIDEO, LOGITS = "frames", "features", "audio", "video", "logits"
"""Names of inputs and outputs."""


def frames_graph(g: GraphBuilder, video: Video) -> None:
    """`frames` (batch, H, W, 3), uint8, to `features` (batch, tokens of a frame, channels), for a video with a stem."""
    frames = g.input(FRAMES, proto.UINT8, "batch", video.height, video.width, 3)
    modality = video.modality
    tokens = modality.tokens // modality.grid[0]
    g.output(frame_features(g, frames, video), FEATURES, "batch", tokens, modality.content)


def trunk_graph(g: GraphBuilder, geometry: Geometry, present: frozenset[str], *, factorised: bool) -> None:
    """`audio` and `video`, those that are `present`, to `logits` (batch, classes).

    `audio`: samples (batch, S), -1..1.
    `video`: features (batch, T, tokens of a frame, channels) if it has a stem, otherwise frames (batch, T, H, W, 3).
    """
    media = {}
    if geometry.audio and AUDIO in present:
        media[AUDIO] = g.input(AUDIO, proto.FLOAT, "batch", geometry.audio.samples)
    if geometry.video and VIDEO in present:
        kind = proto.FLOAT if geometry.video.stem else proto.UINT8
        media[VIDEO] = g.input(VIDEO, kind, "batch", *video_shape(geometry.video))
    _score(g, geometry, media, factorised)


def whole_graph(g: GraphBuilder, geometry: Geometry, *, factorised: bool) -> None:
    """Samples `audio` (batch, S) and `video` (batch, T, H, W, 3), uint8, to `logits` (batch, classes)."""
    media = {}
    if audio := geometry.audio:
        media[AUDIO] = g.input(AUDIO, proto.FLOAT, "batch", audio.samples)
    if video := geometry.video:
        frames = g.input(VIDEO, proto.UINT8, "batch", video.frames, video.height, video.width, 3)
        media[VIDEO] = frames
        if video.stem:
            one_by_one = g.reshape(frames, -1, video.height, video.width, 3)
            media[VIDEO] = g.reshape(frame_features(g, one_by_one, video), -1, *video_shape(video))
    _score(g, geometry, media, factorised)


def video_shape(video: Video) -> tuple[int, ...]:
    """Of one window's video as the trunk reads it."""
    if not video.stem:
        return (video.frames, video.height, video.width, 3)
    modality = video.modality
    return (modality.grid[0], modality.tokens // modality.grid[0], modality.content)


def _score(g: GraphBuilder, geometry: Geometry, media: Mapping[str, Value], factorised: bool) -> None:
    trunk = geometry.trunk
    features = _features(g, geometry, media)
    parts = {}
    if not trunk.complete_only or len(media) == len(geometry.modalities):
        parts["latents"] = _encoded(g, geometry, media, features, factorised)
    if trunk.head == "senses":
        means = {name: g.reduce("Mean", each, 1) for name, each in features.items()}
        parts |= {name: mean for name, mean in means.items() if name in geometry.vector_parts}
        parts["joint"] = sense_inputs(g, geometry, means)
    g.output(_last(g, geometry, parts), LOGITS, "batch", geometry.classes)


def _last(g: GraphBuilder, geometry: Geometry, parts: Mapping[str, Value]) -> Value:
    """Logits (B, classes) of the parts of the vector before the last layer; those that are left out are zero."""
    widths = geometry.vector_parts
    weight = g.weight("head.out.weight", geometry.classes, geometry.vector_width)
    if len(parts) < len(widths):
        pieces = g.split(weight, *widths.values(), axis=1)
        weight = g.concat(*(piece for name, piece in zip(widths, pieces, strict=True) if name in parts), axis=1)
    vector = g.concat(*(parts[name] for name in widths if name in parts), axis=1)
    return g.node("Gemm", vector, weight, g.weight("head.out.bias", geometry.classes), transB=1)


def _encoded(
    g: GraphBuilder, geometry: Geometry, media: Mapping[str, Value], features: Mapping[str, Value], factorised: bool
) -> Value:
    """(B, D) that the head makes of the latents."""
    trunk = geometry.trunk
    latents = g.weight("latents", trunk.latents, trunk.width)
    crosses = _crosses(g, geometry, media, features, factorised)
    last = 1 if trunk.shared else trunk.cross_attends - 1
    for index in range(trunk.cross_attends):
        name = f"crosses.{min(index, last)}"
        read = crosses.read(name, latents, fixed=index == 0)
        latents = finish(g, latents, read, name, trunk.latents, trunk.width, trunk)
        for layer in range(trunk.layers):
            latents = _self_attend(g, latents, f"blocks.{0 if trunk.shared else index}.{layer}", geometry)
    return _query(g, latents, geometry) if trunk.head == "query" else _mean(g, latents, geometry)


def _features(g: GraphBuilder, geometry: Geometry, media: Mapping[str, Value]) -> dict[str, Value]:
    """(B, tokens, channels) of each modality with a stem."""
    found = {}
    if geometry.audio and geometry.audio.stem and AUDIO in media:
        found[AUDIO] = audio_features(g, media[AUDIO], geometry.audio)
    if geometry.video and geometry.video.stem and VIDEO in media:
        modality = geometry.video.modality
        found[VIDEO] = g.reshape(media[VIDEO], -1, modality.tokens, modality.content)
    return found


def _crosses(
    g: GraphBuilder, geometry: Geometry, media: Mapping[str, Value], features: Mapping[str, Value], factorised: bool
) -> PlainCrossAttends | FactorisedCrossAttends:
    sizes = Sizes.of(geometry)
    modalities = tuple(modality for modality in geometry.modalities if modality.name in media)
    blocks = {
        m.name: Blocks(m.grid, choose_block(m.grid, m.content, sizes.rows), m.content) if factorised else whole(m)
        for m in modalities
    }
    contents = {m.name: stem_content(g, features[m.name], m, blocks[m.name]) for m in modalities if m.stem}
    if geometry.audio and AUDIO in media and AUDIO not in contents:
        contents[AUDIO] = audio_content(g, media[AUDIO], geometry.audio, blocks[AUDIO])
    if geometry.video and VIDEO in media and VIDEO not in contents:
        contents[VIDEO] = video_content(g, media[VIDEO], geometry.video, blocks[VIDEO])
    if factorised:
        return FactorisedCrossAttends(g, sizes, modalities, contents, blocks)
    return PlainCrossAttends(g, sizes, modalities, contents)


def _self_attend(g: GraphBuilder, x: Value, name: str, geometry: Geometry) -> Value:
    """One `attention.SelfAttend`."""
    trunk = geometry.trunk
    normal = layer_norm(g, x, f"{name}.norm", trunk.width)
    read = self_attend(g, normal, f"{name}.attention", trunk.latents, trunk.width, trunk.heads)
    x = g.node("Add", x, read)
    normal = layer_norm(g, x, f"{name}.mlp_norm", trunk.width)
    return g.node("Add", x, mlp(g, normal, f"{name}.mlp", trunk.width, trunk.widening, trunk.gelu))


def _mean(g: GraphBuilder, latents: Value, geometry: Geometry) -> Value:
    trunk = geometry.trunk
    return g.reduce("Mean", g.reshape(latents, -1, trunk.latents, trunk.width), 1)


def _query(g: GraphBuilder, latents: Value, geometry: Geometry) -> Value:
    """`factorised.FixedQueryCrossAttend`: rows (B, channels of the label query)."""
    trunk, name = geometry.trunk, "head.attend"
    width = trunk.query_width or trunk.width
    query = g.weight("head.query", 1, width)
    folded = folded_projections(g, name, trunk.width, trunk.width, 1, width)
    projected = projected_queries(g, name, query, width, trunk.width, 1, 1, exact=True)
    keyed = folded.single(g, g.node("MatMul", projected, folded.key))  # (1, 1, 1, D)
    tokens = g.reshape(latents, -1, 1, trunk.latents, trunk.width)
    ones = g.floats(np.ones(trunk.width))
    tokens = g.node("LayerNormalization", tokens, ones, axis=-1, epsilon=EPSILON)
    g.weight(f"{name}.input_norm.weight", trunk.width)
    shares = g.node("Softmax", g.node("MatMul", keyed, g.transpose(tokens, 0, 1, 3, 2)), axis=-1)
    read = g.node("MatMul", g.node("MatMul", shares, tokens), folded.single(g, folded.value))
    read = g.node("Add", g.reshape(read, -1, width), folded.single(g, folded.bias))
    return finish(g, query, read, name, 1, width, trunk, residual=trunk.query_residual)
