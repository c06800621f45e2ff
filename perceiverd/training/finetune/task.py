"""What one fit is asked to do, and what its stages share. Opens no clip and trains nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec
import torch

from perceiverd.core.labels import Label, ontology
from perceiverd.evaluation.manifest import Manifest, ManifestRow
from perceiverd.model.card import Card
from perceiverd.model.geometry import Geometry
from perceiverd.training.finetune.settings import FinetuneSettings
from perceiverd.training.fitting.distributed import ProcessGroup, precision
from perceiverd.training.fitting.loop import fingerprint
from perceiverd.training.fitting.progress import ProgressReporter
from perceiverd.training.fitting.settings import FitSettings

Part = Literal["head", "all"]


def known_labels(start: Card | None) -> tuple[Label, ...]:
    """The labels of the model to start from; AudioSet's if there is none."""
    return start.labels if start else ontology().labels


def default_cache() -> Path:
    """The folder for decoded clips below the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "perceiverd" / "clips"


@dataclass(frozen=True)
class FitTask:
    """What is fitted, from which clips, and where the results go."""

    clips: Manifest
    out: Path
    """The new model's folder; its name is the model's."""
    start: Card | None
    """The model to start from; None: a new network with the geometry in `settings`."""
    settings: FinetuneSettings = field(default_factory=FinetuneSettings)
    train: Part = "head"
    """What is trained of an existing model: the rows of labels, or the whole network."""
    unlabelled: tuple[ManifestRow, ...] = ()
    """More clips, which have none of the manifest's new sounds."""
    held_out: Manifest | None = None
    """Clips to measure the model on."""
    cache: Path = field(default_factory=default_cache)
    """Where decoded clips are kept."""
    state: Path | None = None
    """Where the fit saves its state; None: beside the model, with the suffix `.fit`."""
    resume: bool = False
    minutes: float | None = None
    """Time limit over all resumptions; None: the settings' epochs decide."""
    logs: Path | None = None
    """Folder for TensorBoard."""
    licence: str | None = None
    """SPDX name of the weights' licence; None: that of the model to start from."""
    seed: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def whole(self) -> bool:
        """Whether the whole network is trained. A new network always is."""
        return self.start is None or self.train == "all"

    @property
    def state_folder(self) -> Path:
        return self.state or self.out.with_name(f"{self.out.name}.fit")

    @property
    def geometry(self) -> Geometry:
        """The model's geometry, with the new classes."""
        geometry = self.start.geometry if self.start else self.settings.geometry
        assert geometry
        return msgspec.structs.replace(geometry, classes=len(self.labels))

    @property
    def labels(self) -> tuple[Label, ...]:
        """The labels that are known already, then the new ones."""
        return (*known_labels(self.start), *self.clips.new)

    @property
    def weights_licence(self) -> str:
        return self.licence or (self.start.licence if self.start else "NOASSERTION")

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that determines the weights, except for the length of the fit."""
        fit = msgspec.structs.replace(self.settings.fit, epochs=1, head_epochs=1, save_every_s=1)
        settings = (self.geometry, fit, self.settings.augment, self.settings.clips.views)
        start = self.start and self.start.sha256
        return fingerprint(*settings, self.whole, self.seed, start, self.clips.rows, self.unlabelled)


@dataclass(frozen=True)
class FitContext:
    """What all stages of one fit share."""

    task: FitTask
    processes: ProcessGroup
    progress: ProgressReporter

    @property
    def settings(self) -> FitSettings:
        return self.task.settings.fit

    @property
    def precision(self) -> torch.dtype:
        """The number format of products. Raises ConfigError if the device lacks it."""
        return precision(self.settings.precision, self.task.device)
