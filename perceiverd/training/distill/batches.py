"""Batches for a fit: windows of sound from the pool, windows of pictures made on the fly, and what to answer.

A batch is of one kind: sound only, pictures only, or both, so that no time goes into tokens that would be masked.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perceiverd.core.errors import MediaError
from perceiverd.model.encoding import mel_tokens, video_tokens
from perceiverd.model.geometry import Geometry, Video
from perceiverd.training.data.camera_motion import VideoMixer
from perceiverd.training.distill.audio_shards import dequantise

KINDS = ("audio", "both", "video")
REFRESH = 200  # batches between two looks at whether the pool has grown


class Pictures(Protocol):
    """What `Frames` and `training.views.Views` offer."""

    def has(self, audioset_class: int) -> bool:
        """Whether there is a picture of this class."""

    def draw(self, rng: np.random.Generator, audioset_class: int | None) -> tuple[Tensor, NDArray[np.float16]]:
        """What `Perceiver` takes of one window (tokens, values) and targets (classes,), NaN where nothing is known."""


class Dream(Protocol):
    """What `training.efficientnet.Dreamer` offers."""

    def __call__(self, features: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Features and targets (B, classes) of windows that never were."""


class Frames:
    """Windows of pictures made on the fly, for a stem that is learnt, or none."""

    def __init__(self, mixer: VideoMixer, video: Video) -> None:
        self._mixer, self._video = mixer, video

    def has(self, audioset_class: int) -> bool:
        """Whether there is a picture of this class."""
        return self._mixer.has(audioset_class)

    def draw(self, rng: np.random.Generator, audioset_class: int | None) -> tuple[Tensor, NDArray[np.float16]]:
        """Values (tokens, values) and targets (classes,)."""
        frames, targets = self._mixer.draw(int(rng.integers(2**62)), audioset_class)
        return video_tokens(torch.from_numpy(frames)[None], self._video)[0], targets


@dataclass(frozen=True)
class Batch:
    """What the network sees and what it should say."""

    kind: str
    contents: dict[str, Tensor]
    targets: Tensor
    """(B, classes), 0..1."""
    weights: Tensor
    """(B, classes), how much each target counts."""
    embedding: Tensor | None
    """(B, 1024) of the sound's teacher, where there is sound."""

    def to(self, device: torch.device) -> Batch:
        """The same, there."""
        return Batch(
            self.kind,
            {name: values.to(device) for name, values in self.contents.items()},
            self.targets.to(device),
            self.weights.to(device),
            None if self.embedding is None else self.embedding.to(device),
        )


@dataclass(frozen=True)
class Mix:
    """How often each kind of batch comes.

    The paper leaves out the video of 30 % of its examples; here sound, of which there is more, is alone in most.
    """

    audio: float = 0.5
    both: float = 0.2
    video: float = 0.3
    matched: float = 0.6
    """Of windows with both: how many have a picture of what is heard, where there is one."""


class Sounds:
    """The pool, as far as it has grown."""

    FIELDS = ("mel", "teacher", "truth", "embedding", "class")

    def __init__(self, *folders: Path) -> None:
        self._folders = folders
        self._shards: dict[str, dict[str, NDArray[np.generic]]] = {}
        self.refresh()
        if not self._shards:
            told = ", ".join(map(str, folders))
            raise MediaError(f"{told}: no shard of mixtures here; make some with `perceiverd train pool`")

    @property
    def shape(self) -> tuple[int, int]:
        """(frames, bands) of a spectrogram."""
        frames, bands = next(iter(self._shards.values()))["mel"].shape[1:]
        return frames, bands

    def refresh(self) -> int:
        """Take in shards that have appeared; returns how many windows there are."""
        for folder in self._folders:
            for path in sorted(folder.glob("[0-9]*.mel.npy")):
                number = path.name.split(".")[0]
                if (key := f"{folder}/{number}") not in self._shards:
                    self._shards[key] = {
                        field: np.load(folder / f"{number}.{field}.npy", mmap_mode="r") for field in self.FIELDS
                    }
        return sum(len(shard["mel"]) for shard in self._shards.values())

    def draw(self, rng: np.random.Generator, count: int) -> dict[str, NDArray[np.generic]]:
        """`count` windows from a few shards (reading from all would touch too many pages)."""
        names = list(self._shards)
        parts = []
        for piece in np.array_split(np.arange(count), min(8, count)):
            shard = self._shards[names[rng.integers(len(names))]]
            rows = rng.integers(len(shard["mel"]), size=len(piece))
            parts.append({field: shard[field][rows] for field in self.FIELDS})
        return {field: np.concatenate([part[field] for part in parts]) for field in self.FIELDS}


def sound_targets(teacher: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """(targets, weights), both (B, classes): the truth where it is known, else the teacher's probability.

    A label that neither knows (six classes the teacher lacks) counts a little as absent, else it would drift.
    """
    unknown = teacher.isnan() & (truth < 0)
    targets = torch.where(truth >= 0, truth.float(), teacher.nan_to_num(-20.0).sigmoid())
    return targets, torch.where(unknown, 0.1, 1.0)


def sight_targets(seen: Tensor) -> tuple[Tensor, Tensor]:
    """(targets, weights) of pictures alone; what can't be told from a picture counts a little as absent."""
    return seen.nan_to_num(0.0), torch.where(seen.isnan(), 0.1, 1.0)


def joint_targets(heard: Tensor, heard_weights: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """What is heard or seen is there: the larger of both; a seen label counts wherever sound knew nothing."""
    known = ~seen.isnan()
    sight = seen.nan_to_num(0.0)
    return torch.maximum(heard, sight), torch.where(known & (sight > 0), 1.0, heard_weights)


class Batches:
    """An endless row of batches, the next one made while the last is learnt from."""

    def __init__(
        self,
        geometry: Geometry,
        sounds: Sounds,
        pictures: Pictures | None,
        *,
        size: int,
        seed: int,
        mix: Mix,
        dream: Dream | None = None,
    ) -> None:
        """`dream` makes half of the windows of a batch of pictures alone."""
        assert geometry.audio is not None
        self._audio, self._dream = geometry.audio, dream
        self._sounds, self._pictures, self._size, self._seed, self._mix = sounds, pictures, size, seed, mix

    def __call__(self, first: int, rank: int = 0, size: int = 1) -> Iterator[Batch]:
        """Every `size`th batch from number `first` + `rank` on, the next one made while the last is learnt from.

        A number always gives the same batch from the same pool. What the pool has grown by is taken in on the way.
        """
        number = first + rank
        with ThreadPoolExecutor(1) as ahead:
            following = ahead.submit(self.make, number, size)
            while True:
                batch = following.result()
                number += size
                if number // size % REFRESH == 0:
                    self._sounds.refresh()
                following = ahead.submit(self.make, number, size)
                yield batch

    def make(self, number: int, size: int = 1) -> Batch:
        """The batch of this number, in a crew of `size`: who steps together gets one kind, so that none waits long."""
        rng = np.random.default_rng([self._seed, number // size])
        chances = np.array([self._mix.audio, self._mix.both, self._mix.video])
        kind = "audio" if self._pictures is None else str(rng.choice(KINDS, p=chances / chances.sum()))
        rng = np.random.default_rng([self._seed, number, 1])
        contents: dict[str, Tensor] = {}
        embedding = None
        drawn = None
        if kind != "video":
            drawn = self._sounds.draw(rng, self._size)
            mel = dequantise(torch.from_numpy(drawn["mel"]))
            contents["audio"] = mel_tokens(mel, self._audio)
            embedding = torch.from_numpy(drawn["embedding"]).float()
            targets, weights = sound_targets(
                torch.from_numpy(drawn["teacher"]).float(), torch.from_numpy(drawn["truth"])
            )
        if kind != "audio":
            values, seen = self._draw_pictures(rng, None if drawn is None else drawn["class"])
            if kind == "video" and self._dream:
                half = self._size // 2
                values[:half], seen[:half] = self._dream(values[:half], rng)
            contents["video"] = values
            targets, weights = sight_targets(seen) if kind == "video" else joint_targets(targets, weights, seen)
        return Batch(kind, contents, targets, weights, embedding)

    def _draw_pictures(self, rng: np.random.Generator, classes: NDArray[np.generic] | None) -> tuple[Tensor, Tensor]:
        assert self._pictures is not None
        values, seen = [], []
        for row in range(self._size):
            wanted = -1 if classes is None else int(classes[row])
            match = wanted >= 0 and rng.random() < self._mix.matched and self._pictures.has(wanted)
            picture, target = self._pictures.draw(rng, wanted if match else None)
            values.append(picture)
            seen.append(target)
        return torch.stack(values), torch.from_numpy(np.stack(seen)).float()
