"""Windows of pictures as a stem's convolutions leave them, in shards on disk: made once, seen many times.

For a stem that is adopted from the teacher and not learnt on: its convolutions take most of a step's time, and give
the same for the same window whenever they are asked. Each shard NNNNN holds 512 windows in three arrays, the
features last, so that a fit may read while it grows.
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
from perceiverd.model.geometry import Geometry
from perceiverd.model.perceiver import Perceiver, Stem
from perceiverd.training.data import processes
from perceiverd.training.data.camera_motion import VideoMixer
from perceiverd.training.teachers.transfer import adopt

log = logging.getLogger(__name__)

SHARD = 512
"""Windows of a shard."""
BATCH = 16
FIELDS = ("targets", "features")


def build(pictures: Path, out: Path, geometry: Geometry, *, wheel: Path, count: int, seed: int, threads: int) -> None:
    """Write the shards of windows 0 .. count - 1 of the training split that aren't there yet; one process a thread.

    `wheel` holds the teacher whose layers the stem adopts.
    """
    if not (geometry.video and geometry.video.stem):
        raise ConfigError("geometry: has no video.stem, whose views are wanted")
    adopted(geometry, wheel)  # what is wrong with the wheel is told before a process begins
    out.mkdir(parents=True, exist_ok=True)
    missing = [n for n in range(-(-count // SHARD)) if not (out / f"{n:05d}.features.npy").exists()]
    arguments = [(pictures, out, geometry, wheel, seed, missing[part::threads]) for part in range(threads)]
    processes.run(_work, arguments)


def _work(pictures: Path, out: Path, geometry: Geometry, wheel: Path, seed: int, numbers: list[int]) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    video = geometry.video
    assert video
    stem = adopted(geometry, wheel).bfloat16()  # more than twice as fast; features move by 3 % on average
    mixer = VideoMixer(pictures, "train", seed, frames=video.frames, side=video.height)
    for number in numbers:
        begun = time.monotonic()
        features, targets = [], []
        for first in range(number * SHARD, (number + 1) * SHARD, BATCH):
            drawn = [mixer.draw(index) for index in range(first, first + BATCH)]
            tokens = video_tokens(torch.from_numpy(np.stack([frames for frames, _ in drawn])), video)
            with torch.inference_mode():
                features.append(stem.convolve(tokens.bfloat16()).half().numpy())
            targets += [seen for _, seen in drawn]
        for field, array in zip(FIELDS, (np.stack(targets), np.concatenate(features)), strict=True):
            hidden = out / f".{number:05d}.{field}.npy"
            np.save(hidden, array)
            hidden.replace(out / f"{number:05d}.{field}.npy")
        log.info("shard=%05d windows_per_s=%.1f", number, SHARD / (time.monotonic() - begun))


def adopted(geometry: Geometry, wheel: Path) -> Stem:
    """The geometry's stem for pictures as the teacher has it."""
    network = Perceiver(geometry.modalities, geometry.trunk, geometry.classes).eval()
    adopt(network, sight=wheel)
    stem = network.bytes.stems["video"]
    assert isinstance(stem, Stem)
    return stem


class Views:
    """The shards in a folder, drawn from at random or by what they show."""

    def __init__(self, folder: Path) -> None:
        names = sorted(path.name.split(".")[0] for path in folder.glob("[0-9]*.features.npy"))
        if not names:
            raise MediaError(f"{folder}: no windows of pictures here; make some with `perceiverd train views`")
        self._features = [np.load(folder / f"{name}.features.npy", mmap_mode="r") for name in names]
        self.targets: NDArray[np.float16] = np.concatenate([np.load(folder / f"{name}.targets.npy") for name in names])
        showing = self.targets == 1
        self._of_class = {int(c): np.flatnonzero(showing[:, c]) for c in np.flatnonzero(showing.any(axis=0))}

    @property
    def shape(self) -> tuple[int, int]:
        """(tokens, channels) of a window."""
        tokens, channels = self._features[0].shape[1:]
        return tokens, channels

    def has(self, audioset_class: int) -> bool:
        """Whether a window shows this class or one below it."""
        return audioset_class in self._of_class

    def draw(self, rng: np.random.Generator, audioset_class: int | None = None) -> tuple[Tensor, NDArray[np.float16]]:
        """Features (tokens, channels) and targets (classes,), NaN where nothing is known, of one window."""
        rows = None if audioset_class is None else self._of_class[audioset_class]
        row = int(rng.integers(len(self.targets))) if rows is None else int(rng.choice(rows))
        shard, place = divmod(row, SHARD)
        return torch.from_numpy(np.array(self._features[shard][place], np.float32)), self.targets[row]
