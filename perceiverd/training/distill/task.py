"""What `train distil` is asked for: refused where it can't be, else who learns, and from what."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from perceiverd.core.errors import ConfigError
from perceiverd.core.labels import ontology
from perceiverd.model.card import Card
from perceiverd.model.checkpoint import load_network
from perceiverd.model.geometry import Geometry
from perceiverd.training.data.camera_motion import VideoMixer
from perceiverd.training.distill.batches import Batches, Frames, Mix, Pictures, Sounds
from perceiverd.training.distill.distill import Student
from perceiverd.training.distill.video_shards import Views
from perceiverd.training.fitting import loop
from perceiverd.training.fitting.distributed import process_count
from perceiverd.training.teachers.efficientnet import Dreamer
from perceiverd.training.teachers.transfer import adopt


@dataclass(frozen=True)
class Lesson:
    """What a model is to learn, and from what."""

    geometry: Geometry
    pools: tuple[Path, ...]
    """Taught mixtures."""
    pictures: Path | None
    """As `train pictures` wrote them,"""
    views: Path | None
    """or what `train views` made of them."""
    teacher_sound: Path | None
    """The wheels whose first layers are adopted."""
    teacher_sight: Path | None
    frozen_sound: int
    """Adopted layers for sound that don't learn."""
    mapping: Path
    mix: Mix
    start: Card | None
    """The model to go on with; None: a new one."""
    rate: float
    batch: int
    """Windows of a batch, of which each process of a crew takes one a step."""
    seed: int
    half: bool
    """Products in bfloat16."""

    @property
    def frozen(self) -> dict[str, int]:
        """Of each stem that is adopted, the layers that don't learn."""
        found = {"audio": self.frozen_sound} if self.teacher_sound else {}
        if self.teacher_sight and self.geometry.video and self.geometry.video.stem:
            found["video"] = len(self.geometry.video.stem.layers) if self.views else 0
        return found

    @property
    def fingerprint(self) -> str:
        """Of all that decides the weights, but for how long and the material's own bytes: pools may grow and move."""
        mapping = hashlib.sha256(self.mapping.read_bytes()).hexdigest() if self.views else ""
        wheels = (bool(self.teacher_sound), bool(self.teacher_sight))
        material = (
            self.start and self.start.sha256,
            bool(self.pictures),
            bool(self.views),
            mapping,
            wheels,
            process_count(),
        )
        how = (self.rate, self.batch, self.seed, self.half, repr(self.mix))
        return loop.fingerprint(self.geometry, self.frozen, *material, *how)

    def check(self) -> None:
        """Raises ConfigError where this can't be learnt."""
        geometry, classes = self.geometry, len(ontology().labels)
        audio, video = geometry.audio, geometry.video
        if geometry.classes != classes:
            raise ConfigError(f"geometry: classes is {geometry.classes}; pools know AudioSet's {classes}")
        if audio is None or audio.form != "mel":
            raise ConfigError("geometry: needs audio of form mel, which is what pools hold")
        if self.teacher_sound and not audio.stem:
            raise ConfigError("--teacher-sound: the geometry has no audio.stem to adopt its layers")
        if self.teacher_sight and not (video and video.stem):
            raise ConfigError("--teacher-sight: the geometry has no video.stem to adopt its layers")
        if self.pictures and self.views:
            raise ConfigError("--pictures and --views: give one of them")
        if video and not (self.pictures or self.views):
            raise ConfigError("geometry: has video, and there is nothing to see; give --pictures or --views")
        if not video and (self.pictures or self.views):
            raise ConfigError("--pictures, --views: the geometry has no video")
        if self.views and not self.teacher_sight:
            raise ConfigError("--views needs --teacher-sight, whose layers made them")
        if self.start and self.start.geometry != geometry:
            raise ConfigError(f"geometry: is not that of {self.start.name}, which is to be gone on with")
        if self.start and (self.start.labels != ontology().labels or self.start.scores != "sigmoid"):
            raise ConfigError(f"{self.start.name}: has other labels than AudioSet's; pools know no others")

    def student(self) -> Student:
        """Who learns it, as it is at the beginning."""
        torch.manual_seed(self.seed)
        student = Student(self.geometry, self.frozen)
        adopt(student.perceiver, sound=self.teacher_sound, sight=self.teacher_sight)
        if self.start:
            student.perceiver.load_state_dict(load_network(self.start).state_dict())
        return student

    def batches(self) -> Batches:
        """What it is learnt from. Raises MediaError, ConfigError where that isn't there, or was made for another."""
        sounds = sounds_for(self.geometry, self.pools)
        pictures = pictures_for(self.geometry, self.pictures, self.views, self.seed)
        dream = None
        if self.views and self.teacher_sight and self.geometry.video:
            dream = Dreamer(self.teacher_sight, self.mapping, ontology(), self.geometry.video)
        return Batches(self.geometry, sounds, pictures, size=self.batch, seed=self.seed, mix=self.mix, dream=dream)


def sounds_for(geometry: Geometry, pools: Sequence[Path]) -> Sounds:
    """The pools; raises MediaError where one is none, ConfigError where they are of another form."""
    audio, sounds = geometry.audio, Sounds(*pools)
    wanted = audio and (audio.samples // audio.mel_hop, audio.mel_bands)
    if wanted != sounds.shape:
        raise ConfigError(f"{pools[0]}: holds log-mel of {sounds.shape}, and the geometry is for {wanted}")
    return sounds


def pictures_for(geometry: Geometry, pictures: Path | None, views: Path | None, seed: int) -> Pictures | None:
    """What a stem made of pictures, or else pictures that are moved on the fly; raises as `sounds_for` does."""
    video = geometry.video
    if video and views:
        made = Views(views)
        if made.shape != (wanted := (video.modality.tokens, video.modality.content)):
            raise ConfigError(f"{views}: holds tokens of {made.shape}, and the geometry is for {wanted}")
        return made
    if video and pictures:
        return Frames(VideoMixer(pictures, "train", seed, frames=video.frames, side=video.height), video)
    return None


def mix_of(shares: str, matched: float) -> Mix:
    """The mix of "A,B,V"; raises ConfigError."""
    try:
        found = [float(part) for part in shares.split(",")]
    except ValueError:
        found = []
    if len(found) != 3 or not all(map(math.isfinite, found)) or min(found) < 0 or not sum(found):
        raise ConfigError(f"--mix {shares!r}: is not three shares, such as 0.5,0.2,0.3")
    return Mix(*found, matched)  # type: ignore[call-arg]
