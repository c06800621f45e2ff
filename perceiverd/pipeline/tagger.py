"""The tagger: windows in, scores out. Loads the engine that the model runs in, but no library of its own."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from perceiverd.model.card import Card
from perceiverd.model.engine import EngineName, Feature
from perceiverd.model.engine_choice import load_engine
from perceiverd.pipeline.windower import Window

Pixels = NDArray[np.uint8]


class Tagger:
    """A loaded model in its engine."""

    def __init__(self, card: Card, device: str = "auto", threads: int = 0, engine: EngineName = "auto") -> None:
        """`device`: `auto`, `cpu`, `cuda` or `cuda:N`; `threads`: CPU threads, 0 for as many as there are cores.

        Raises ModelError if the model is broken, ConfigError if the device or the engine is missing.
        """
        self.card = card
        self._engine = load_engine(card, engine, device, threads)
        self._features = FeatureCache()
        self._scale = np.array([one.scale for one in card.calibration], np.float32)
        self._shift = np.array([one.shift for one in card.calibration], np.float32)
        self.reused_frames: tuple[int, ...] = ()
        """Of each window of the last call: the frames that an earlier window had too."""

    @property
    def engine(self) -> str:
        """`torch` or `onnxruntime`."""
        return self._engine.name

    @property
    def device(self) -> str:
        """`cpu`, `cuda` or `cuda:N`."""
        return self._engine.device

    def warm_up(self) -> None:
        """Tag one empty window: the first inference is slow, and it shows whether the model works."""
        self.tag([Window.empty(self.card.geometry)])

    def tag(self, windows: Sequence[Window]) -> NDArray[np.float32]:
        """Scores (windows, classes), 0..1, of windows of any mix of modalities.

        Raises ValueError if a window has neither modality.
        """
        if not all(window.modalities for window in windows):
            raise ValueError("a window has neither audio nor video")
        # An array makes new objects each time it is taken apart, so once.
        pictures = [tuple(window.pictures) if window.pictures is not None else () for window in windows]
        self.reused_frames = self._see(pictures)
        logits = np.empty((len(windows), len(self.card.labels)), np.float32)
        for modalities in dict.fromkeys(window.modalities for window in windows):
            rows = [row for row, window in enumerate(windows) if window.modalities == modalities]
            audio = [samples for row in rows if (samples := windows[row].audio) is not None]
            video = [self._seen(pictures[row]) for row in rows if "video" in modalities]
            logits[rows] = self._engine.logits(np.stack(audio) if audio else None, video or None)
        scaled = self._scale * logits + self._shift
        return sigmoid(scaled) if self.card.scores == "sigmoid" else softmax(scaled)

    def _see(self, batch: Sequence[Sequence[Pixels]]) -> tuple[int, ...]:
        """Have features of all frames; of each window, how many frames had them before."""
        if not self._engine.has_features:
            return (0,) * len(batch)
        reused = tuple(sum(frame in self._features for frame in frames) for frames in batch)
        new = list({id(frame): frame for frames in batch for frame in frames if frame not in self._features}.values())
        if new:
            self._features.add(new, self._engine.features(new))
        return reused

    def _seen(self, frames: Sequence[Pixels]) -> Sequence[Feature]:
        return [self._features[frame] for frame in frames] if self._engine.has_features else frames


class FeatureCache:
    """What the engine made of frames, as long as anybody holds the frame. Frames are told apart by identity."""

    def __init__(self) -> None:
        self._found: dict[int, tuple[weakref.ref[Pixels], Feature]] = {}

    def __contains__(self, frame: Pixels) -> bool:
        return id(frame) in self._found

    def __getitem__(self, frame: Pixels) -> Feature:
        return self._found[id(frame)][1]

    def __len__(self) -> int:
        return len(self._found)

    def add(self, frames: Sequence[Pixels], features: Sequence[Feature]) -> None:
        for frame, feature in zip(frames, features, strict=True):
            # The callback runs before another object can get this id.
            self._found[id(frame)] = (weakref.ref(frame, partial(self._forget, id(frame))), feature)

    def _forget(self, key: int, _: object) -> None:
        self._found.pop(key, None)


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 / (1 + exp(-x)), without overflow."""
    small = np.exp(-np.abs(logits))
    found: NDArray[np.float32] = np.where(logits >= 0, 1, small) / (1 + small)
    return found


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Over the last axis."""
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    found: NDArray[np.float32] = shares / shares.sum(axis=-1, keepdims=True)
    return found
