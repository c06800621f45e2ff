"""`[fit]`: the optimiser, its learning rate, and how many steps a fit takes."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Share = Annotated[float, Meta(ge=0, le=1)]


Positive = Annotated[float, Meta(gt=0)]


class FitSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[fit]`: the optimiser, its learning rate, and how many steps a fit takes."""

    optimiser: Literal["adamw", "lamb"] = "adamw"
    rate: Positive = 1e-3
    """Peak learning rate when the whole network is trained."""
    head_rate: Positive = 3e-2
    """Peak learning rate when only the rows of labels are trained."""
    old_rate: Share = 0.1
    """Learning rate of a network that already existed, as a share of `rate`."""
    warmup: Share = 0.05
    """Share of the budget in which the rate rises to its peak."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """What the rate does after the warm-up."""
    decay: Annotated[float, Meta(ge=0)] = 0.05
    """Weight decay of matrices."""
    clip: Positive = 1.0
    """Largest norm of the gradient; a longer gradient is scaled down to it."""
    average: Annotated[float, Meta(ge=0, lt=1)] = 0.999
    """Decay of the running mean of the weights. The fit's result is this mean; 0 gives the last weights."""
    epochs: Positive = 20
    """How often each clip is used when the whole network is trained."""
    head_epochs: Positive = 800
    """How often each clip is used when only labels are trained, which costs very little."""
    batch: Annotated[int, Meta(ge=1)] = 32
    """Clips per step, over all processes."""
    slice: Annotated[int, Meta(ge=0)] = 0
    """Windows that go through the network at once, for GPUs with little memory; 0: all windows of the process."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of products. auto: bfloat16 on a GPU that has it, float16 on other GPUs, float32 on the CPU."""
    rehearsal: Annotated[float, Meta(ge=0)] = 4.0
    """Weight of windows without the new labels, relative to the labelled clips."""
    save_every_s: Positive = 120.0
    """Seconds between two saves of the fit's state."""
