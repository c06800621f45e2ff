"""The tagger: windows in, scores out. Loads the engine that the model runs in, but no library of its own."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from perceiverd.model.card import Card
from perceiverd.model.engine import (
    Computed,
    DeviceHealth,
    EngineName,
    Feature,
    PendingLogits,
    Precision,
    WindowMedia,
    is_featured,
)
from perceiverd.model.engine_choice import load_engine
from perceiverd.pipeline.windower import Window

Pixels = NDArray[np.uint8]


class Tagger:
    """A loaded model in its engine."""

    def __init__(
        self,
        card: Card,
        device: str = "auto",
        threads: int = 0,
        engine: EngineName = "auto",
        precision: Precision = "auto",
        max_batch: int = 0,
    ) -> None:
        """`device`: `auto`, `cpu`, `cuda` or `cuda:N`; `threads`: CPU threads, 0 for as many as there are cores.

        `precision` and `max_batch`, the most windows at once (0: as many as are useful), are for GPUs.
        Raises ModelError if the model is broken, ConfigError if the device or the engine is missing.
        """
        self.card = card
        self._engine = load_engine(card, engine, device, threads, precision, max_batch)
        self._features = FeatureCache()
        self._scale = np.array([one.scale for one in card.calibration], np.float32)
        self._shift = np.array([one.shift for one in card.calibration], np.float32)
        self.reused_frames: tuple[int, ...] = ()
        """Of each window of the last call: the frames that an earlier window had too."""
        self._submits = hasattr(self._engine, "submit")

    @property
    def engine(self) -> str:
        """`torch` or `onnxruntime`."""
        return self._engine.name

    @property
    def device(self) -> str:
        """`cpu`, `cuda` or `cuda:N`."""
        return self._engine.device

    @property
    def health(self) -> DeviceHealth | None:
        """What has happened to the GPU; None if the model runs on a CPU by choice."""
        return getattr(self._engine, "health", None)

    @property
    def max_batch(self) -> int | None:
        """The most windows that go through the network together; None if there is no limit."""
        return self.health.batch_limit or 1 if self.health else None

    def close(self) -> None:
        """End what the engine makes in the background; waits some seconds at most. Nothing is tagged after it."""
        close = getattr(self._engine, "close", None)
        if close is not None:
            close()

    def warm_up(self, kinds: Iterable[Collection[str]] = (("audio", "video"),)) -> None:
        """Tag an empty window of each kind: the first inference is slow, and it shows whether the model works.

        `kinds`: the modalities of the windows that will come. An engine may hold only what these need.
        """
        for kind in kinds:
            window = Window.empty(self.card.geometry, kind)
            if window.modalities:
                self.tag([window])

    def tag(self, windows: Sequence[Window]) -> NDArray[np.float32]:
        """Scores (windows, classes), 0..1, of windows of any mix of modalities.

        Raises ValueError if a window has neither modality.
        """
        return self.begin(windows).scores()

    def begin(self, windows: Sequence[Window]) -> PendingScores:
        """Start to tag windows, as `tag` does. A GPU works on while the caller does something else; a CPU is done.

        At most two batches are under way; a third waits for the first.
        """
        if not all(window.modalities for window in windows):
            raise ValueError("a window has neither audio nor video")
        # An array makes new objects each time it is taken apart, so once.
        pictures = [tuple(window.pictures) if window.pictures is not None else () for window in windows]
        if self._submits:
            self.reused_frames = (0,) * len(windows)
            media = [
                WindowMedia(window.audio, each if window.pictures is not None else None)
                for window, each in zip(windows, pictures, strict=True)
            ]
            return PendingScores(self._engine.submit(media), self._scores, self.reused_frames)  # type: ignore[attr-defined]
        self.reused_frames = self._see(pictures)
        return PendingScores(Computed(self._logits(windows, pictures)), self._scores, self.reused_frames)

    def _logits(self, windows: Sequence[Window], pictures: Sequence[Sequence[Pixels]]) -> NDArray[np.float32]:
        """Logits (windows, classes) by an engine that takes windows with the same modalities only."""
        logits = np.empty((len(windows), len(self.card.labels)), np.float32)
        for modalities in dict.fromkeys(window.modalities for window in windows):
            rows = [row for row, window in enumerate(windows) if window.modalities == modalities]
            audio = [samples for row in rows if (samples := windows[row].audio) is not None]
            video = [self._seen(pictures[row]) for row in rows if "video" in modalities]
            logits[rows] = self._engine.logits(np.stack(audio) if audio else None, video or None)
        return logits

    def _scores(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        scaled = self._scale * logits + self._shift
        return sigmoid(scaled) if self.card.scores == "sigmoid" else softmax(scaled)

    def _see(self, batch: Sequence[Sequence[Pixels]]) -> tuple[int, ...]:
        """Have features of all frames; of each window, how many frames had them before."""
        if not is_featured(self._engine):
            return (0,) * len(batch)
        reused = tuple(sum(frame in self._features for frame in frames) for frames in batch)
        new = list({id(frame): frame for frames in batch for frame in frames if frame not in self._features}.values())
        if new:
            self._features.add(new, self._engine.features(new))
        return reused

    def _seen(self, frames: Sequence[Pixels]) -> Sequence[Feature]:
        return [self._features[frame] for frame in frames] if is_featured(self._engine) else frames


@dataclass(frozen=True, slots=True, eq=False)
class PendingScores:
    """The scores of a batch of windows that the engine computes."""

    pending: PendingLogits
    scored: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    reused_frames: tuple[int, ...]
    """Of each window: the frames that an earlier window had too."""

    @property
    def is_ready(self) -> bool:
        """Whether `scores` returns without waiting."""
        return self.pending.is_ready

    def scores(self) -> NDArray[np.float32]:
        """Scores (windows, classes), 0..1; waits for them."""
        return self.scored(self.pending.logits())


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
