"""How a fit goes, as its TOML file says: the geometry of a new model, steps, clips, augmentation.

Every value has a default, and a file need name only what differs. `configs/train-audioset.toml` names all.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from perceiverd.config.hints import convert
from perceiverd.core.errors import ConfigError
from perceiverd.model.geometry import Geometry
from perceiverd.training.fitting.settings import FitSettings, Share


class ClipSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[clips]`: where windows come from."""

    keep: bool = True
    """Whether decoded clips are kept on disk; without, each is decoded anew whenever it is drawn."""
    threads: Annotated[int, Meta(ge=1, le=256)] = 4
    """That decode clips and cut windows."""
    skip: Share = 0.1
    """Share of clips that may be missing or unreadable; more of them are a fault."""
    views: Annotated[int, Meta(ge=0)] = 0
    """Windows of each clip, differently augmented, from which labels are trained; 0: 16, fewer of many clips."""


class AugmentSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
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


class FinetuneSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    geometry: Geometry | None = None
    """Of a new model; without it a fit starts from a model that there is."""
    fit: FitSettings = FitSettings()
    clips: ClipSettings = ClipSettings()
    augment: AugmentSettings = AugmentSettings()


def load(path: Path) -> FinetuneSettings:
    """The plan in a TOML file. Raises ConfigError: one line with the file, the place in it and what to do."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the recipe: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    try:
        return convert(table, FinetuneSettings, "$")
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
