"""The network in ONNX Runtime, on the CPU. The graph is built from the card; the weights stay in the model's file.

Importing it loads ONNX Runtime.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from perceiverd.core.errors import ModelError
from perceiverd.model.blocks import is_factorised_cheaper, token_width
from perceiverd.model.card import Card
from perceiverd.model.engine import Feature, Form
from perceiverd.model.geometry import Geometry
from perceiverd.model.graph import network
from perceiverd.model.graph.builder import GraphBuilder
from perceiverd.model.graph.weights import WeightsIndex, read_index
from perceiverd.model.onnx_runtime import onnxruntime

MAX_LATENTS = 4096
"""Latents that go through the network together, unless one window has more: memory does not grow with the batch."""
MAX_WINDOWS, MAX_FRAMES = 8, 2
"""Windows and frames that go through the network, and through the stem, together. With the bundled sizes a window of 8
takes three fifths of the CPU time of one alone. A frame of 2 takes as long as one of 4, with half the memory. One of 8
takes twice as long: their first layers no longer fit into a cache."""
ARENA_BYTES = 16 << 20
"""If the tokens of a window take more, ONNX Runtime keeps its memory from one window to the next, and takes one window
at a time. Else the C library gives blocks of 32 MB and more back to the kernel, which clears them again: with the
public sizes this was a quarter of the CPU time. An arena holds the memory of its largest batch for ever."""
ERROR = 3
"""Of ONNX Runtime's log levels. Its warnings are about graphs, which users cannot change."""


class OnnxEngine:
    """See `engine.Engine`.

    What a kind of window needs is loaded with the first such window, in some 30 to 100 ms. So a stream without pictures
    does not hold the weights for them, which with the bundled model are a third of the process.
    """

    name = "onnxruntime"
    device = "cpu"

    def __init__(self, card: Card, threads: int = 0, factorised: bool | None = None) -> None:
        """`factorised`: the form of the cross-attends; None takes the cheaper one. Raises ModelError."""
        self._card = card
        self._weights: WeightsIndex = read_index(card)
        self._factorised = (
            is_factorised_cheaper(card.geometry.modalities, card.geometry.trunk) if factorised is None else factorised
        )
        self.form: Form = "factorised" if self._factorised else "plain"
        self._threads = threads or len(os.sched_getaffinity(0))
        self._keeps_memory = _token_bytes(card.geometry) > ARENA_BYTES
        self._windows = (
            1 if self._keeps_memory else max(1, min(MAX_WINDOWS, MAX_LATENTS // card.geometry.trunk.latents))
        )
        self._check()
        video = card.geometry.video
        self.has_features = bool(video and video.stem)
        self._frames: onnxruntime.InferenceSession | None = None
        self._held: list[object] = []
        """Weights in the file's memory; the runtime uses those in float32 where they are."""
        self._trunks: dict[frozenset[str], onnxruntime.InferenceSession] = {}

    def features(self, frames: Sequence[NDArray[np.uint8]]) -> list[Feature]:
        """Of each frame (H, W, 3): (tokens of a frame, channels)."""
        if self._frames is None:
            self._frames = self._frames_session()
        found: list[Feature] = []
        for first in range(0, len(frames), MAX_FRAMES):
            inputs = {network.FRAMES: np.stack(frames[first : first + MAX_FRAMES])}
            # Copies, because a part of an array holds all of it.
            found += [each.copy() for each in self._frames.run(None, inputs)[0]]
        return found

    def logits(
        self, audio: NDArray[np.float32] | None, video: Sequence[Sequence[Feature]] | None
    ) -> NDArray[np.float32]:
        """Logits (B, classes); see `engine.Engine.logits`."""
        batch, parts = max(len(media) for media in (audio, video) if media is not None), []
        for first in range(0, batch, self._windows):
            some, media = slice(first, first + self._windows), {}
            if audio is not None:
                media[network.AUDIO] = audio[some]
            if video is not None:
                media[network.VIDEO] = np.array(video[some])
            parts.append(self._trunk(frozenset(media)).run(None, media)[0])
        found: NDArray[np.float32] = np.concatenate(parts) if len(parts) > 1 else parts[0]
        return found

    def _trunk(self, present: frozenset[str]) -> onnxruntime.InferenceSession:
        """What scores windows with these modalities."""
        if present not in self._trunks:
            g = GraphBuilder(self._weights)
            network.trunk_graph(g, self._card.geometry, present, factorised=self._factorised)
            self._trunks[present] = self._session(g)
        return self._trunks[present]

    def _frames_session(self) -> onnxruntime.InferenceSession:
        g = GraphBuilder(self._weights)
        assert self._card.geometry.video
        network.frames_graph(g, self._card.geometry.video)
        return self._session(g)

    def _session(self, g: GraphBuilder) -> onnxruntime.InferenceSession:
        weights = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(
                self._weights.values(name), self._weights.tensors[name].element_type
            )
            for name in g.read
        }
        self._held.append(weights)
        options = _options(self._threads, keeps_memory=self._keeps_memory)
        options.add_external_initializers(list(weights), list(weights.values()))
        try:
            return onnxruntime.InferenceSession(g.model(self._card.name), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have no common type
            raise ModelError(f"{self._card.folder}: ONNX Runtime cannot load the network ({error})") from error
        finally:
            self._weights.forget_pages()

    def _check(self) -> None:
        """Raises ModelError unless the file has exactly the tensors that the geometry needs."""
        g = GraphBuilder(self._weights)
        network.whole_graph(g, self._card.geometry, factorised=self._factorised)
        self._weights.check_all_used(g.used)


def _token_bytes(geometry: Geometry) -> int:
    """What the tokens of one window take in float32, in the width of the byte array."""
    tokens = sum(modality.tokens for modality in geometry.modalities)
    return 4 * tokens * token_width(geometry.modalities, geometry.trunk)


def _options(threads: int, *, keeps_memory: bool) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = ERROR
    options.enable_cpu_mem_arena = keeps_memory
    # Threads that spin while they wait take the cores from others; see docs/decisions/0011.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
