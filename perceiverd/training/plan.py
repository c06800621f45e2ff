"""How a fit goes, as its TOML file says: the geometry of a new model, steps, clips, augmentation.

Every value has a default, and a file need name only what differs. `configs/train-audioset.toml` names all.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from perceiverd.config import convert
from perceiverd.errors import ConfigError
from perceiverd.geometry import Geometry

Share = Annotated[float, Meta(ge=0, le=1)]
Positive = Annotated[float, Meta(gt=0)]


class Fit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
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


class Clips(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[clips]`: where windows come from."""

    keep: bool = True
    """Whether decoded clips are kept on disk; without, each is decoded anew whenever it is drawn."""
    threads: Annotated[int, Meta(ge=1, le=256)] = 4
    """That decode clips and cut windows."""
    skip: Share = 0.1
    """Share of clips that may be missing or unreadable; more of them are a fault."""
    views: Annotated[int, Meta(ge=0)] = 0
    """Windows of each clip, differently augmented, from which labels are trained; 0: 16, fewer of many clips."""


class Augment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[augment]`: what is done to a window before it is learnt from. Where in the clip it lies is always random."""

    gain_db: Annotated[float, Meta(ge=0, le=60)] = 6.0
    """The sound becomes up to so much louder or fainter."""
    noise: Share = 0.5
    """Of windows: those that get noise, 20 to 50 dB below their sound."""
    flip: Share = 0.5
    """Of windows: those whose pictures are mirrored, all of them."""
    without_video: Share = 0.3
    """Of windows with both: those that lose their pictures (Jaegle et al. 2021: 30 %)."""
    without_audio: Share = 0.1
    """Of windows with both: those that lose their sound."""

    def __post_init__(self) -> None:
        if self.without_video + self.without_audio > 1:
            raise ValueError("without_video and without_audio are more than 1 together")


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    geometry: Geometry | None = None
    """Of a new model; without it a fit starts from a model that there is."""
    fit: Fit = Fit()
    clips: Clips = Clips()
    augment: Augment = Augment()


def load(path: Path) -> Plan:
    """The plan in a TOML file. Raises ConfigError: one line with the file, the place in it and what to do."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the recipe: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    try:
        return convert(table, Plan, "$")
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
