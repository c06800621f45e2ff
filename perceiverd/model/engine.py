"""What an engine is: it runs a model's network, arrays in, logits out. Loads none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

DEVICE_PATTERN = re.compile(r"auto|cpu|cuda(:\d{1,3})?")
EngineName = Literal["auto", "torch", "onnxruntime"]
Form = Literal["plain", "factorised"]
"""How cross-attends read the tokens; see `factorised`."""

Feature = Any
"""What a stem made of one frame. Only the engine that made it can read it."""


class Engine(Protocol):
    """A loaded network on its device."""

    name: str
    """`torch` or `onnxruntime`."""
    device: str
    """`cpu`, `cuda` or `cuda:N`."""
    form: Form
    has_features: bool
    """Whether `logits` takes the result of `features`, not frames."""

    def features(self, frames: Sequence[NDArray[np.uint8]]) -> list[Feature]:
        """What the stem makes of each frame (H, W, 3). A frame that is in two windows needs it once."""

    def logits(
        self, audio: NDArray[np.float32] | None, video: Sequence[Sequence[Feature]] | None
    ) -> NDArray[np.float32]:
        """Logits (B, classes) of windows that all have the same modalities; one that they lack is None.

        `audio`: samples (B, S), -1..1. `video`: of each window the features of its frames; the frames themselves
        (H, W, 3) if the engine has no features.
        """
