"""How many windows go through a GPU together: sizes of batches, and the bytes of a window. Values only."""

from __future__ import annotations

from perceiverd.model.geometry import Geometry

SIZES = (1, 2, 4, 8, 16, 32, 64)
"""Windows of a batch after padding. Padding costs at most half of a batch, and each size some seconds at the start."""
SLOT_BYTES = 512 << 20
"""Windows of the largest batch that is chosen for a model. The host pins memory for two batches, which it cannot swap
out, and the device has room for three. 64 windows of the bundled model have 19 MB."""
SAMPLE_BYTES, PIXEL_BYTES = 4, 3


def window_bytes(geometry: Geometry) -> int:
    """Bytes of one window: samples in float32, frames in uint8. Windows that share frames need less."""
    audio, video = geometry.audio, geometry.video
    found = audio.samples * SAMPLE_BYTES if audio else 0
    return found + (video.frames * video.height * video.width * PIXEL_BYTES if video else 0)


def batch_sizes(geometry: Geometry, max_batch: int = 0) -> tuple[int, ...]:
    """Sizes of batches, ascending, up to `max_batch`; 0: 64, or fewer if the windows of the model are large."""
    if max_batch:
        return (*(size for size in SIZES if size < max_batch), max_batch)
    most = SLOT_BYTES // window_bytes(geometry)
    return SIZES[:1] + tuple(size for size in SIZES[1:] if size <= most)
