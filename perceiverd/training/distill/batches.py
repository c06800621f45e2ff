"""Batches for distillation: windows of audio from shards, windows of video, and their targets.

A batch has one kind: audio only, video only, or both. So no time is spent on tokens that would be masked.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perceiverd.model.encoding import mel_tokens, video_tokens
from perceiverd.model.geometry import Geometry, Video
from perceiverd.training.data.camera_motion import VideoMixer
from perceiverd.training.distill.audio_shards import OTHERS, Arrays, AudioShards, dequantise

KINDS = ("audio", "both", "video")
REFRESH = 200
"""The reader looks for new shards after this many batches."""
UNKNOWN_WEIGHT = 0.1
"""Weight of a label that is unknown and counts as absent: without any weight its score would drift."""


class VideoWindows(Protocol):
    """A source of windows of video: `RenderedWindows` or `video_shards.VideoShards`."""

    def has(self, audioset_class: int) -> bool:
        """Whether a window shows this class."""

    def draw(self, rng: np.random.Generator, audioset_class: int | None) -> tuple[Tensor, NDArray[np.float16]]:
        """The values of one window for `Perceiver` (tokens, values), and targets (classes,); NaN is unknown."""


class RenderedWindows:
    """Windows of video that are rendered when they are drawn. For a stem that learns, or for no stem."""

    def __init__(self, mixer: VideoMixer, video: Video) -> None:
        self._mixer, self._video = mixer, video

    def has(self, audioset_class: int) -> bool:
        """Whether an image shows this class."""
        return self._mixer.has(audioset_class)

    def draw(self, rng: np.random.Generator, audioset_class: int | None) -> tuple[Tensor, NDArray[np.float16]]:
        """Values (tokens, values) and targets (classes,)."""
        frames, targets = self._mixer.draw(int(rng.integers(2**62)), audioset_class)
        return video_tokens(torch.from_numpy(frames)[None], self._video)[0], targets


@dataclass(frozen=True)
class Batch:
    """What the network gets, and what it should answer."""

    kind: str
    """One of KINDS."""
    contents: dict[str, Tensor]
    """For each modality (B, tokens, values)."""
    targets: Tensor
    """(B, classes), 0..1."""
    weights: Tensor
    """(B, classes), how much each target counts."""
    embedding: Tensor | None
    """(B, E) of the audio teachers, if the batch has audio."""
    convolved: frozenset[str] = frozenset()
    """The modalities whose contents are the output of their stem."""

    def to(self, device: torch.device) -> Batch:
        """The same batch on this device."""
        return Batch(
            self.kind,
            {name: values.to(device) for name, values in self.contents.items()},
            self.targets.to(device),
            self.weights.to(device),
            None if self.embedding is None else self.embedding.to(device),
            self.convolved,
        )


@dataclass(frozen=True)
class Mix:
    """How often each kind of batch comes.

    The paper leaves out the video of 30 % of its examples. Here there is more audio than video, so most batches have
    audio only.
    """

    audio: float = 0.5
    both: float = 0.2
    video: float = 0.3
    matched: float = 0.6
    """Share of the windows with both whose video shows the main label of the audio, if any video does."""


def audio_targets(teacher: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """(targets, weights), both (B, classes): the truth if it is known, else the teacher's probability.

    A label that neither knows counts a little as absent. (The teacher lacks six classes.)
    """
    unknown = teacher.isnan() & (truth < 0)
    taught = teacher.nan_to_num(-20.0).sigmoid()
    targets = torch.where(truth >= 0, truth.float(), taught)
    return targets, torch.where(unknown, UNKNOWN_WEIGHT, 1.0)


def video_targets(shown: Tensor) -> tuple[Tensor, Tensor]:
    """(targets, weights) of video alone; a label that no image can show counts a little as absent."""
    return shown.nan_to_num(0.0), torch.where(shown.isnan(), UNKNOWN_WEIGHT, 1.0)


def joint_targets(audible: Tensor, audible_weights: Tensor, shown: Tensor) -> tuple[Tensor, Tensor]:
    """(targets, weights) of both: the larger target of the two; a shown label has full weight."""
    known = ~shown.isnan()
    visible = shown.nan_to_num(0.0)
    return torch.maximum(audible, visible), torch.where(known & (visible > 0), 1.0, audible_weights)


class Batches:
    """An endless sequence of batches."""

    def __init__(
        self,
        geometry: Geometry,
        audio: AudioShards,
        video: VideoWindows | None,
        *,
        size: int,
        seed: int,
        mix: Mix,
        convolved: frozenset[str] = frozenset(),
    ) -> None:
        """`size`: windows in a batch. `convolved`: the modalities whose stem is the teacher's and does not learn."""
        assert geometry.audio is not None
        self._geometry, self._convolved = geometry.audio, convolved
        self._audio, self._video, self._size, self._seed, self._mix = audio, video, size, seed, mix

    def __call__(self, first: int, rank: int = 0, size: int = 1) -> Iterator[Batch]:
        """Every `size`-th batch from number `first` + `rank` on. A thread makes the next one during each step.

        A number gives the same batch as long as the shards are the same. New shards are used as they appear.
        """
        number = first + rank
        with ThreadPoolExecutor(1) as ahead:
            following = ahead.submit(self.make, number, size)
            while True:
                batch = following.result()
                number += size
                if number // size % REFRESH == 0:
                    self._audio.refresh()
                following = ahead.submit(self.make, number, size)
                yield batch

    def make(self, number: int, size: int = 1) -> Batch:
        """The batch of this number in a group of `size` processes.

        Processes that take a step together get the same kind, so that none waits long for the others.
        """
        kind = self._kind(number // size)
        rng = np.random.default_rng([self._seed, number, 1])
        if kind == "video":
            return self._video_batch(rng)
        drawn = self._audio.draw(rng, self._size)
        return self._audio_batch(drawn) if kind == "audio" else self._joint_batch(drawn, rng)

    def _kind(self, step: int) -> str:
        if self._video is None:
            return "audio"
        chances = np.array([self._mix.audio, self._mix.both, self._mix.video])
        return str(np.random.default_rng([self._seed, step]).choice(KINDS, p=chances / chances.sum()))

    def _audio_batch(self, drawn: Arrays) -> Batch:
        tokens = torch.from_numpy(drawn["tokens"]).float()
        if "audio" in self._convolved:
            contents = {"audio": tokens}
        else:
            contents = {"audio": mel_tokens(dequantise(torch.from_numpy(drawn["mel"])), self._geometry)}
        teacher, truth = torch.from_numpy(drawn["teacher"]).float(), torch.from_numpy(drawn["truth"])
        targets = audio_targets(teacher, truth)
        embedding = tokens.mean(dim=1)
        if OTHERS in drawn:
            embedding = torch.cat([embedding, torch.from_numpy(drawn[OTHERS]).float()], dim=1)
        return Batch("audio", contents, *targets, embedding, self._convolved)

    def _joint_batch(self, drawn: Arrays, rng: np.random.Generator) -> Batch:
        audible = self._audio_batch(drawn)
        values, shown = self._draw_video(rng, drawn["class"])
        contents = {**audible.contents, "video": values}
        targets = joint_targets(audible.targets, audible.weights, shown)
        return Batch("both", contents, *targets, audible.embedding, self._convolved)

    def _video_batch(self, rng: np.random.Generator) -> Batch:
        values, shown = self._draw_video(rng, None)
        return Batch("video", {"video": values}, *video_targets(shown), None, self._convolved)

    def _draw_video(self, rng: np.random.Generator, classes: NDArray[np.generic] | None) -> tuple[Tensor, Tensor]:
        assert self._video is not None
        values, shown = [], []
        for row in range(self._size):
            wanted = -1 if classes is None else int(classes[row])
            match = wanted >= 0 and rng.random() < self._mix.matched and self._video.has(wanted)
            window, target = self._video.draw(rng, wanted if match else None)
            values.append(window)
            shown.append(target)
        return torch.stack(values), torch.from_numpy(np.stack(shown)).float()
