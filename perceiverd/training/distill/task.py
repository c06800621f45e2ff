"""What `train distil` is asked to do: its settings, the checks of them, and the whole run.

Knows where the material, the fit's state and the model lie. Knows nothing of the command line.
"""

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
from perceiverd.training.distill import output
from perceiverd.training.distill.audio_shards import AudioShards
from perceiverd.training.distill.batches import Batches, Mix, RenderedWindows, VideoWindows
from perceiverd.training.distill.distill import WARMUP, DistillStudent, distill
from perceiverd.training.distill.video_shards import VideoShards
from perceiverd.training.fitting import loop
from perceiverd.training.fitting.distributed import is_leader, own_device, process_count
from perceiverd.training.fitting.settings import FitSettings
from perceiverd.training.teachers.efficientnet import MAPPING
from perceiverd.training.teachers.transfer import transfer

STATE_FILE = "state.pt"
YAMNET_LAYERS = 14
WRITTEN_FILE = "model.sha256"
"""In the state's folder: the digest of the model that the fit wrote last. The fit may overwrite that model."""


@dataclass(frozen=True)
class DistillTask:
    """The settings of one fit. The command line builds them."""

    geometry: Geometry
    pools: tuple[Path, ...]
    """Folders of audio shards, which `train pool` writes."""
    pictures: Path | None
    """The folder that `train pictures` wrote; either this or `views`, if the model takes video."""
    views: Path | None
    """The folder of video shards, which `train views` writes."""
    audio_wheel: Path | None
    """YAMNet's wheel, if the stem for audio gets its first layers."""
    video_wheel: Path | None
    """EfficientNet-Lite0's wheel, if the stem for video gets its first layers."""
    frozen_audio: int
    """How many layers of the audio stem do not learn."""
    mix: Mix
    start: Card | None
    """The model to continue from; None: a new one."""
    rate: float
    """Peak learning rate."""
    batch: int
    """Windows in a batch. Under `torchrun` each process has a batch of its own in each step."""
    seed: int
    half: bool
    """Multiply in bfloat16."""
    batches: int | None
    """The budget in batches of all processes together; either this or `minutes`."""
    minutes: float | None
    """The budget in time, over all resumptions."""
    state: Path
    """Folder of the fit's state; a fit that was stopped continues from it."""
    out: Path
    """Folder of the model; its name is the model's name."""
    licence: str | None
    """SPDX name; None: that of `start`, else NOASSERTION."""
    logs: Path | None
    """Folder for TensorBoard."""
    device: str
    """`auto`, `cpu`, `cuda` or `cuda:N`."""

    @property
    def frozen(self) -> dict[str, int]:
        """For each stem that comes from a teacher, how many of its layers do not learn."""
        audio = self.geometry.audio
        found = {}
        if self.audio_wheel and audio and audio.stem:
            found["audio"] = min(self.frozen_audio, len(audio.stem.layers))
        if self.video_wheel and self.geometry.video and self.geometry.video.stem:
            found["video"] = len(self.geometry.video.stem.layers) if self.views else 0
        return found

    @property
    def convolved(self) -> frozenset[str]:
        """The modalities whose stem's output is stored, because the stem is the teacher's and does not learn.

        Pools store the output of the whole YAMNet, and views that of the video stem.
        """
        audio, found = self.geometry.audio, {"video"} if self.views else set[str]()
        if audio and audio.stem and len(audio.stem.layers) == self.frozen.get("audio") == YAMNET_LAYERS:
            found.add("audio")
        return frozenset(found)

    @property
    def fingerprint(self) -> str:
        """A digest of everything that decides the weights, except the budget and the material's own bytes.

        So folders of shards may grow and move between two runs of one fit.
        """
        mapping = hashlib.sha256(MAPPING.read_bytes()).hexdigest() if self.views else ""
        wheels = (bool(self.audio_wheel), bool(self.video_wheel))
        start = self.start and self.start.sha256
        material = (start, bool(self.pictures), bool(self.views), mapping, wheels, process_count())
        steps = (self.rate, self.batch, self.seed, self.half, repr(self.mix))
        return loop.fingerprint(self.geometry, self.frozen, *material, *steps)


def run(task: DistillTask) -> None:
    """Fit the model and write it. Raises ConfigError if the task is impossible, StoppedError if a signal stopped it."""
    check(task)
    state = loop.LoopState(
        task.state / STATE_FILE,
        task.fingerprint,
        depends_on="geometry, material, settings or number of processes",
        resume_with="the same command",
    )
    written = task.state / WRITTEN_FILE
    device = own_device(task.device)
    with output.claimed(task.out, task.start, written):
        network = distill(
            student_of(task),
            batches_of(task),
            FitSettings(rate=task.rate, warmup=WARMUP, batch=task.batch),
            loop.Budget(-(-(task.batches or 0) // process_count()), task.minutes),
            state,
            half=task.half,
            device=device,
            logs=task.logs,
        )
        if is_leader():
            licence = task.licence or (task.start.licence if task.start else "NOASSERTION")
            written.write_text(output.write(task.out, network, task.geometry, ontology().labels, licence))


def check(task: DistillTask) -> None:
    """Raises ConfigError if settings contradict each other."""
    _check_geometry(task.geometry)
    _check_material(task)
    start = task.start
    if start and start.geometry != task.geometry:
        raise ConfigError(f"geometry: is not that of {start.name}; give the geometry of the model to continue from")
    if start and (start.labels != ontology().labels or start.scores != "sigmoid"):
        raise ConfigError(f"{start.name}: has other labels than AudioSet's, which are the only ones that shards have")


def _check_geometry(geometry: Geometry) -> None:
    classes = len(ontology().labels)
    if geometry.classes != classes:
        raise ConfigError(
            f"geometry: classes is {geometry.classes}; give {classes}, because shards have all of AudioSet"
        )
    if geometry.audio is None or geometry.audio.form != "mel":
        raise ConfigError("geometry: needs audio of form mel, because shards hold log-mel")


def _check_material(task: DistillTask) -> None:
    audio, video = task.geometry.audio, task.geometry.video
    if task.audio_wheel and not (audio and audio.stem):
        raise ConfigError("--teacher-sound: the geometry has no audio.stem for the teacher's layers")
    if task.video_wheel and not (video and video.stem):
        raise ConfigError("--teacher-sight: the geometry has no video.stem for the teacher's layers")
    if task.pictures and task.views:
        raise ConfigError("--pictures and --views: give one of them")
    if video and not (task.pictures or task.views):
        raise ConfigError("geometry: has video, but there is no material for it; give --pictures or --views")
    if not video and (task.pictures or task.views):
        raise ConfigError("--pictures, --views: the geometry has no video")
    if task.views and not task.video_wheel:
        raise ConfigError("--views: needs --teacher-sight, whose layers made these windows")


def student_of(task: DistillTask) -> DistillStudent:
    """The student before its first step."""
    torch.manual_seed(task.seed)
    student = DistillStudent(task.geometry, task.frozen, AudioShards(task.pools).embedding)
    transfer(student.perceiver, audio_wheel=task.audio_wheel, video_wheel=task.video_wheel)
    if task.start:
        student.perceiver.load_state_dict(load_network(task.start).state_dict())
    return student


def batches_of(task: DistillTask) -> Batches:
    """The batches to learn from. Raises MediaError if they are missing, ConfigError if they fit another geometry."""
    audio = audio_of(task.geometry, task.pools)
    video = video_of(task.geometry, task.pictures, task.views, task.seed)
    return Batches(task.geometry, audio, video, size=task.batch, seed=task.seed, mix=task.mix, convolved=task.convolved)


def audio_of(geometry: Geometry, pools: Sequence[Path]) -> AudioShards:
    """The audio shards. Raises MediaError if there are none, ConfigError if they have another shape."""
    audio, shards = geometry.audio, AudioShards(pools)
    wanted = audio and (audio.samples // audio.mel_hop, audio.mel_bands)
    if wanted != shards.shape:
        raise ConfigError(f"{pools[0]}: holds log-mel of {shards.shape}, but the geometry needs {wanted}")
    return shards


def video_of(geometry: Geometry, pictures: Path | None, views: Path | None, seed: int) -> VideoWindows | None:
    """The video shards, or else windows that are rendered from pictures. Raises as `audio_of` does."""
    video = geometry.video
    if video and views:
        shards = VideoShards(views)
        if shards.shape != (wanted := (video.modality.tokens, video.modality.content)):
            raise ConfigError(f"{views}: holds tokens of {shards.shape}, but the geometry needs {wanted}")
        return shards
    if video and pictures:
        return RenderedWindows(VideoMixer(pictures, "train", seed, frames=video.frames, side=video.height), video)
    return None


def parse_mix(shares: str, matched: float) -> Mix:
    """The mix of the option `--mix A,B,V`. Raises ConfigError."""
    try:
        found = [float(part) for part in shares.split(",")]
    except ValueError:
        found = []
    if len(found) != 3 or not all(map(math.isfinite, found)) or min(found) < 0 or not sum(found):
        raise ConfigError(f"--mix {shares!r}: is not three shares; give three numbers such as 0.5,0.2,0.3")
    audio, both, video = found
    return Mix(audio, both, video, matched)
