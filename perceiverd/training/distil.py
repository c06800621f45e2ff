"""`perceiverd train distil`: a new Perceiver learns from a pool of taught mixtures and pictures.

Under `torchrun` every process takes its own batches, and all take the same step: the mean of their gradients.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perceiverd.attention import CrossAttend
from perceiverd.card import Card
from perceiverd.checkpoint import load_network
from perceiverd.errors import ConfigError
from perceiverd.geometry import Geometry
from perceiverd.labels import ontology
from perceiverd.perceiver import Perceiver
from perceiverd.training import loop
from perceiverd.training.adopt import adopt
from perceiverd.training.batches import Batch, Batches, Frames, Mix, Pictures, Sounds
from perceiverd.training.crew import Crew, members
from perceiverd.training.efficientnet import Dreamer
from perceiverd.training.loop import Budget, State
from perceiverd.training.motion import VideoMixer
from perceiverd.training.optimiser import decays
from perceiverd.training.plan import Fit
from perceiverd.training.progress import telling
from perceiverd.training.views import Views

STATE_FILE = "state.pt"
NOTHING: Mapping[str, int] = MappingProxyType({})
CPU = torch.device("cpu")
EMBEDDING = 1024  # channels of the sound teacher's embedding
IMITATION = 5.0
"""Weight of imitating the teacher's embedding, over that of the labels."""
STEM_RATE = 0.2
"""Learning rate of adopted stems over that of the rest."""
WARMUP = 0.03
"""Share of the budget over which the rate rises."""


class Student(nn.Module):
    """The Perceiver, and a head that imitates the teacher's embedding and is thrown away afterwards."""

    def __init__(self, geometry: Geometry, frozen: Mapping[str, int] = NOTHING) -> None:
        """`frozen`: for each adopted stem, the layers that do not learn; the others learn slowly."""
        super().__init__()
        self.adopted = tuple(frozen)
        self.perceiver = Perceiver(geometry.modalities, geometry.trunk, geometry.classes)
        # Most labels are absent from most windows; starting there saves the first hundred steps.
        nn.init.constant_(self.perceiver.head.out.bias, -6.0)
        # At first all latents read nearly the mean of the byte array, and so the same. Twice the queries spread the
        # scores over tokens to a sigma of 1.3, so that each head begins with tokens of its own.
        for cross in self.perceiver.crosses:
            assert isinstance(cross, CrossAttend)
            with torch.no_grad():
                cross.attention.query.weight *= 2
        self.imitate = nn.Linear(geometry.trunk.width, EMBEDDING)
        for name, layers in frozen.items():
            for layer in self.perceiver.bytes.stems[name].layers[:layers]:  # type: ignore[index]
                layer.requires_grad_(False)

    def forward(self, contents: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Logits (B, classes) and embedding (B, 1024)."""
        latents = self.perceiver.encode(contents)
        return self.perceiver.head(latents), self.imitate(latents.mean(dim=1))


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
        material = (self.start and self.start.sha256, bool(self.pictures), bool(self.views), mapping, wheels, members())
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


def loss_of(student: nn.Module, batch: Batch, *, half: bool) -> tuple[Tensor, float]:
    """(loss, its label part): cross-entropy summed over labels, plus the embedding's squared distance."""
    with torch.autocast(batch.targets.device.type, torch.bfloat16, enabled=half):
        logits, embedding = student(batch.contents)
    entropy = F.binary_cross_entropy_with_logits(logits.float(), batch.targets, batch.weights, reduction="none")
    labels = entropy.sum(dim=1).mean()
    if batch.embedding is None:
        return labels, float(labels.detach())
    return labels + IMITATION * F.mse_loss(embedding.float(), batch.embedding), float(labels.detach())


class Distiller:
    """Batch after batch: what `loop.run` fits."""

    def __init__(self, student: Student, batches: Batches, crew: Crew, *, half: bool, device: torch.device) -> None:
        """`half`: products in bfloat16."""
        self._student, self._batches, self._crew, self._half, self._device = student, batches, crew, half, device
        self._stream: Iterator[Batch] | None = None

    @property
    def module(self) -> nn.Module:
        return self._student

    def backward(self, step: int, scaler: torch.amp.GradScaler) -> dict[str, float]:
        if self._stream is None:
            self._stream = self._batches(step * self._crew.size, self._crew.rank, self._crew.size)
        batch = next(self._stream).to(self._device)
        loss, labels = loss_of(self._student, batch, half=self._half)
        scaler.scale(loss).backward()
        return {f"loss_{batch.kind}": labels}


def distil(
    student: Student,
    batches: Batches,
    how: Fit,
    budget: Budget,
    state: State,
    *,
    half: bool = True,
    device: torch.device = CPU,
    logs: Path | None = None,
) -> Perceiver:
    """Teach until the budget is spent, going on from the state where there is one; the network has its mean weights.

    The learning rate follows the share of the budget that is spent, so that a fit ends well whenever it ends. Raises
    ConfigError where the state is of another fit, StoppedError after Ctrl-C or SIGTERM. `logs`: for TensorBoard.
    """
    crew = Crew.join(device)
    student.to(device)
    try:
        with telling(logs, silent=crew.rank > 0) as teller, teller.stage("distil"):
            learner = Distiller(student, batches, crew, half=half, device=device)
            groups = _groups(student, how.decay)
            loop.run(learner, groups, how, budget, state, crew, teller, device=device)
    except (loop.StoppedError, loop.DivergedError):  # of a crew, all do; after another fault one would wait for them
        crew.leave()
        raise
    crew.leave()
    return student.perceiver.cpu().eval()


def _groups(student: Student, decay: float) -> list[dict[str, object]]:
    """Adopted stems learn slowly."""
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in student.named_parameters():
        if parameter.requires_grad:
            slow = any(name.startswith(f"perceiver.bytes.stems.{stem}.layers") for stem in student.adopted)
            key = (decay if decays(name, parameter) else 0.0, STEM_RATE if slow else 1.0)
            groups.setdefault(key, []).append(parameter)
    return [{"params": found, "weight_decay": decay, "share": share} for (decay, share), found in groups.items()]
