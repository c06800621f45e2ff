"""`[fit]`: how the steps of any fit go."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Share = Annotated[float, Meta(ge=0, le=1)]


Positive = Annotated[float, Meta(gt=0)]


class FitSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[fit]`: the steps."""

    optimiser: Literal["adamw", "lamb"] = "adamw"
    rate: Positive = 1e-3
    """Peak learning rate of a whole network."""
    head_rate: Positive = 1e-2
    """The same of labels alone."""
    old_rate: Share = 0.1
    """Learning rate of a network that there was before, over `rate`."""
    warmup: Share = 0.05
    """Share of the budget over which the rate rises."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """What the rate does after it."""
    decay: Annotated[float, Meta(ge=0)] = 0.05
    """Weight decay of matrices."""
    clip: Positive = 1.0
    """Largest norm of a gradient."""
    average: Annotated[float, Meta(ge=0, lt=1)] = 0.999
    """Decay of the weights' running mean, which is what is kept; 0 keeps the last weights."""
    epochs: Positive = 20
    """How often each clip is seen, where all is trained."""
    head_epochs: Positive = 800
    """How often each clip is seen, where labels alone are trained, which costs next to nothing."""
    batch: Annotated[int, Meta(ge=1)] = 32
    """Clips of one step, over all processes."""
    slice: Annotated[int, Meta(ge=0)] = 0
    """Windows that go through the network at once, where memory is short; 0: all that a process has."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of products; auto: bfloat16 on a GPU that has it, else float16 there, and float32 on the processor."""
    rehearsal: Annotated[float, Meta(ge=0)] = 4.0
    """Weight of what holds none of the new labels, over that of the clips that do."""
    save_every_s: Positive = 120.0
