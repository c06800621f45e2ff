"""What an engine is: it runs a model's network, arrays in, logits out. Loads none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray

DEVICE_PATTERN = re.compile(r"auto|cpu|cuda(:\d{1,3})?")
EngineName = Literal["auto", "torch", "onnxruntime"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
"""The type of products on a GPU; `auto` is the fastest type that its tensor cores have."""
Form = Literal["plain", "factorised"]
"""How cross-attends read the tokens; see `factorised`."""

Feature = Any
"""What a stem made of one frame. Only the engine that made it can read it."""


class Engine(Protocol):
    """A loaded network on its device."""

    name: str
    """`torch` or `onnxruntime`."""

    @property
    def device(self) -> str:
        """`cpu`, `cuda` or `cuda:N`."""

    form: Form

    def logits(
        self, audio: NDArray[np.float32] | None, video: Sequence[Sequence[Feature]] | None
    ) -> NDArray[np.float32]:
        """Logits (B, classes) of windows that all have the same modalities; one that they lack is None.

        `audio`: samples (B, S), -1..1. `video`: of each window the features of its frames; the frames themselves
        (H, W, 3) if the engine has no features; see `is_featured`.
        """


class FeatureEngine(Engine, Protocol):
    """An engine that may compute the stem of each frame by itself."""

    has_features: bool
    """Whether it does so for this model; then `logits` takes the result of `features`, not frames."""

    def features(self, frames: Sequence[NDArray[np.uint8]]) -> list[Feature]:
        """What the stem makes of each frame (H, W, 3). A frame that is in two windows needs it once."""


def is_featured(engine: Engine) -> TypeGuard[FeatureEngine]:
    """Whether `logits` of this engine takes features of frames, not frames."""
    return getattr(engine, "has_features", False)


@dataclass(frozen=True, slots=True, eq=False)
class WindowMedia:
    """What the network reads of one window; at least one of them."""

    audio: NDArray[np.float32] | None
    """(S,), -1..1."""
    frames: Sequence[NDArray[np.uint8]] | None
    """(H, W, 3) each."""


class PendingLogits(Protocol):
    """A batch that an engine computes."""

    @property
    def is_ready(self) -> bool:
        """Whether `logits` returns without waiting."""

    def logits(self) -> NDArray[np.float32]:
        """Logits (windows, classes); waits for them. It may be called again."""


class BatchEngine(Engine, Protocol):
    """An engine that computes while the caller does other work. A batch may mix windows with any modalities."""

    max_batch: int
    """The most windows that one `submit` takes."""

    def submit(self, windows: Sequence[WindowMedia]) -> PendingLogits:
        """Start a batch. At most two are computed at once: a third waits until the first is ready."""


@dataclass(frozen=True, slots=True, eq=False)
class Computed:
    """Logits that were computed at once."""

    found: NDArray[np.float32]
    is_ready: bool = True

    def logits(self) -> NDArray[np.float32]:
        """Logits (windows, classes)."""
        return self.found


@dataclass(frozen=True, slots=True)
class DeviceHealth:
    """What has happened to the device of an engine so far."""

    batch_limit: int
    """The most windows that go to it together now; 0 while the CPU does its work."""
    out_of_memory: int = 0
    """How often a batch did not fit into its memory."""
    windows_on_cpu: int = 0
    """Windows that the CPU computed in its place."""
    is_lost: bool = False
    """Whether it failed so that this process cannot use it any more."""
    is_preparing: bool = False
    """Whether its engine is being built again, or made ready for batches of other sizes."""
    builds: int = 0
    """How often its engine was built again after a failure, or the attempt has begun."""
    failed_builds: int = 0
    """Of these, the ones that failed."""
