"""The settings file of `train fit`: geometry of a new model, optimiser steps, clips, augmentation.

Every value has a default, so a file names only what differs. `configs/train-audioset.toml` names all of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from perceiverd.config.hints import convert
from perceiverd.config.toml import read_table
from perceiverd.core.errors import ConfigError
from perceiverd.model.geometry import Geometry
from perceiverd.training.fitting.settings import FitSettings, Share


class ClipSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[clips]`: how clips are read."""

    keep: bool = True
    """Whether decoded clips are kept on disk. If not, a clip is decoded each time it is used."""
    threads: Annotated[int, Meta(ge=1, le=256)] = 4
    """Threads that decode clips and cut windows."""
    skip: Share = 0.1
    """Share of clips that may be missing or unreadable. If there are more, the fit ends with an error."""
    views: Annotated[int, Meta(ge=0)] = 0
    """Windows per clip, each augmented differently, that train the labels. 0: 16, or fewer if there are many clips."""


class AugmentSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[augment]`: random changes of a window before it is used. Its place in the clip is always random."""

    gain_db: Annotated[float, Meta(ge=0, le=60)] = 6.0
    """The audio becomes louder or quieter by up to this much."""
    noise: Share = 0.5
    """Share of windows that get noise, 20 to 50 dB below their audio."""
    flip: Share = 0.5
    """Share of windows whose frames are all mirrored."""
    without_video: Share = 0.3
    """Share of windows with both modalities that lose their video (Jaegle et al. 2021: 30 %)."""
    without_audio: Share = 0.1
    """Share of windows with both modalities that lose their audio."""

    def __post_init__(self) -> None:
        if self.without_video + self.without_audio > 1:
            raise ValueError("without_video and without_audio are more than 1 together")


class FinetuneSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    geometry: Geometry | None = None
    """Of a new model. Without it a fit starts from an existing model."""
    fit: FitSettings = FitSettings()
    clips: ClipSettings = ClipSettings()
    augment: AugmentSettings = AugmentSettings()


def load(path: Path) -> FinetuneSettings:
    """Read a TOML file. Raises ConfigError: one line with the file, the place in it and what to do."""
    table = read_table(path, "the settings")
    try:
        return convert(table, FinetuneSettings, "$")
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def overridden(
    settings: FinetuneSettings,
    *,
    epochs: float | None = None,
    batch: int | None = None,
    precision: str | None = None,
    skip: float | None = None,
) -> FinetuneSettings:
    """The settings with each value that is not None in place of the file's; `epochs` replaces `head_epochs` too."""
    given = {"epochs": epochs, "head_epochs": epochs, "batch": batch, "precision": precision}
    fit = {name: value for name, value in given.items() if value is not None}
    clips = {} if skip is None else {"skip": skip}
    return msgspec.structs.replace(
        settings,
        fit=msgspec.structs.replace(settings.fit, **fit),
        clips=msgspec.structs.replace(settings.clips, **clips),
    )
