"""Batches of windows with different modalities, for engines that take only one kind at a time. It knows no device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from perceiverd.model.engine import Engine, WindowMedia, is_featured


def grouped_logits(engine: Engine, windows: Sequence[WindowMedia]) -> NDArray[np.float32]:
    """Logits (windows, classes) by an engine whose batches have windows with the same modalities only."""
    kinds = [_kind(window) for window in windows]
    found: list[NDArray[np.float32] | None] = [None] * len(windows)
    for kind in dict.fromkeys(kinds):
        rows = [row for row, each in enumerate(kinds) if each == kind]
        audio = [samples for row in rows if (samples := windows[row].audio) is not None]
        frames = [pictures for row in rows if (pictures := windows[row].frames) is not None]
        video = [engine.features(each) for each in frames] if is_featured(engine) else frames
        logits = engine.logits(np.stack(audio) if audio else None, video or None)
        for row, one in zip(rows, logits, strict=True):
            found[row] = one
    return np.stack([one for one in found if one is not None])


def one_of_each(windows: Sequence[WindowMedia]) -> list[WindowMedia]:
    """A window for each mix of modalities that there is."""
    return list({_kind(window): window for window in windows}.values())


def _kind(window: WindowMedia) -> tuple[bool, bool]:
    return window.audio is not None, window.frames is not None
