"""The memory through which windows reach the device and logits come back: one slot for each batch under way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perceiverd.model.cuda.lanes import Fence, Lanes
from perceiverd.model.cuda.network import DeviceMedia
from perceiverd.model.engine import WindowMedia
from perceiverd.model.geometry import Geometry


@dataclass(frozen=True, slots=True, eq=False)
class MediaBuffers:
    """Media of up to `size` windows, on the host or on the device."""

    media: DeviceMedia

    @classmethod
    def on_host(cls, geometry: Geometry, size: int, lanes: Lanes) -> MediaBuffers:
        """Buffers that the device can read. A window that was never filled has silence and black."""
        audio, video = geometry.audio, geometry.video
        samples = lanes.buffer(size, audio.samples, dtype=torch.float32) if audio else None
        frames = None
        if video:
            frames = lanes.buffer(size, video.frames, video.height, video.width, 3, dtype=torch.uint8)
        present = {m.name: lanes.buffer(size, dtype=torch.bool) for m in geometry.modalities}
        return cls(DeviceMedia(samples, frames, present))

    @classmethod
    def on_device(cls, like: MediaBuffers, device: torch.device) -> MediaBuffers:
        """Buffers of the same sizes on the device, zeroed."""
        media = like.media
        samples, frames = (
            None if x is None else torch.zeros(x.shape, dtype=x.dtype, device=device)
            for x in (media.samples, media.frames)
        )
        present = {name: torch.zeros_like(here, device=device) for name, here in media.present.items()}
        return cls(DeviceMedia(samples, frames, present))

    def first(self, size: int) -> DeviceMedia:
        """The first windows, as views."""
        media = self.media
        samples, frames = (None if x is None else x[:size] for x in (media.samples, media.frames))
        return DeviceMedia(samples, frames, {name: here[:size] for name, here in media.present.items()})

    def fill(self, windows: Sequence[WindowMedia], size: int) -> None:
        """Write windows, and mark the rest up to `size` as complete: their results are not used."""
        media = self.media
        for name, values in (("audio", media.samples), ("video", media.frames)):
            if values is None:
                continue
            here = media.present[name].numpy()
            here[len(windows) : size] = True
            for row, window in enumerate(windows):
                given = window.audio if name == "audio" else window.frames
                here[row] = given is not None
                if given is not None:
                    _write(values[row].numpy(), given)

    def copy_from(self, other: MediaBuffers, size: int) -> None:
        """Copy the first windows of other buffers, in the current queue of the device."""
        mine, theirs = self.first(size), other.first(size)
        for target, source in (
            (mine.samples, theirs.samples),
            (mine.frames, theirs.frames),
            *((mine.present[name], theirs.present[name]) for name in mine.present),
        ):
            if target is not None and source is not None:
                target.copy_(source, non_blocking=True)


def _write(target: NDArray[np.generic], given: NDArray[np.float32] | Sequence[NDArray[np.uint8]]) -> None:
    if isinstance(given, np.ndarray):
        np.copyto(target, given)
        return
    for place, frame in zip(target, given, strict=True):
        np.copyto(place, frame)


class Slot:
    """A batch under way: its media on the host and on the device, and its logits on the host."""

    def __init__(self, geometry: Geometry, size: int, lanes: Lanes, device: torch.device) -> None:
        self.host = MediaBuffers.on_host(geometry, size, lanes)
        self.device = MediaBuffers.on_device(self.host, device)
        self.logits: Tensor = lanes.buffer(size, geometry.classes, dtype=torch.float32)
        self.batch: SlotLogits | None = None
        """The batch that is or was last in this slot."""

    def free(self) -> None:
        """Wait for the batch in this slot and keep its logits, so that another may take the slot."""
        if self.batch is not None:
            self.batch.take()
            self.batch = None


class SlotLogits:
    """See `engine.PendingLogits`."""

    def __init__(self, slot: Slot, rows: int, done: Fence) -> None:
        self._slot, self._rows, self._done = slot, rows, done
        self._found: NDArray[np.float32] | None = None
        self._error: BaseException | None = None

    @property
    def is_ready(self) -> bool:
        return self._found is not None or self._error is not None or self._done.is_passed

    def take(self) -> None:
        """Wait, and copy the logits out of the slot. Keeps an error of the device for `logits`."""
        if self._found is None and self._error is None:
            try:
                self._done.wait()
                self._found = self._slot.logits[: self._rows].numpy().copy()
            except RuntimeError as error:
                self._error = error

    def logits(self) -> NDArray[np.float32]:
        self.take()
        if self._found is None:
            assert self._error is not None
            raise self._error
        return self._found
