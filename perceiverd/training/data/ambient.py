"""Hours in which nothing happens, as audio and video from cheap devices.

Synthetic: a stream is a function of the seed and its number alone. If a model finds an event here, that is a false
alarm, except for labels that name the noise itself.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from perceiverd.config import WindowConfig
from perceiverd.core.media import NS_PER_S, Chunk, Frame, Media
from perceiverd.model.geometry import Geometry
from perceiverd.pipeline.windower import Window, Windower
from perceiverd.training.data.ambient_audio import AUDIO_KINDS, RATE_HZ, Wave, render_audio
from perceiverd.training.data.images import read_index, read_pixels

FIT_S, TEST_S = 40, 300
"""Seconds of a stream. Thresholds are set on many short streams, because they should differ much. False alarms are
counted in long streams, because a device runs without a pause."""
HOP_S = 0.5
CHUNK_S = 0.1
FPS = 12.5
FIT_SEED, TEST_SEED, QUIET_HEAD_SEED = 1, 2, 3
"""Thresholds are set on the first; false alarms are counted on the second; a model learns from the third."""

QUIET_LABELS = frozenset(
    {
        "Silence", "Hum", "Mains hum", "Buzz", "Noise", "Environmental noise", "White noise", "Pink noise", "Static",
        "Hiss", "Throbbing",
    }
)  # fmt: skip
"""Labels that name the audio of these streams. Their events are no false alarms."""
PLACES = frozenset(
    {
        "Inside, small room", "Inside, large room or hall", "Inside, public space", "Outside, urban or manmade",
        "Outside, rural or natural",
    }
)  # fmt: skip
"""Labels that name the microphone's place. The daemon makes no events of them."""
LABELS_OF_KIND = {
    "fan": frozenset({"Mechanical fan", "Air conditioning"}),
    "hum at 50 Hz": frozenset({"Sine wave"}),
    "hum at 60 Hz": frozenset({"Sine wave"}),
}
"""Labels that are correct for one kind of stream only."""
VIDEO_KINDS = ("black", "grey", "dark and noisy", "frozen scene", "still scene", "drifting light", "flicker")
MODALITIES = (
    "audio", "audio", "both", "audio", "audio", "video", "audio", "both", "audio", "audio", "audio",
)  # fmt: skip
"""What one stream after the other has. The lengths of this and of the kinds have no common factor, so that all
combinations occur."""

Pixels = NDArray[np.uint8]
"""(H, W, 3), RGB."""


@dataclass(frozen=True, eq=False)
class AmbientStream:
    """Some time without events."""

    kind: str
    """Of its audio and its video: `hiss`, `hiss + black`, `black`."""
    audio: Wave | None
    """16 kHz."""
    video: Iterator[Pixels] | None
    """FPS frames a second."""
    seconds: int

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(self.kind.split(" + "))

    @property
    def modality(self) -> str:
        """The name of its modalities in reports."""
        if self.audio is None:
            return "pictures alone"
        return "sound alone" if self.video is None else "sound and pictures"


def streams(
    geometry: Geometry, scenes: Sequence[Pixels], seed: int, hours: float, seconds: int
) -> Iterator[AmbientStream]:
    """This many hours of streams of this many seconds, with the modalities of this geometry."""
    for number in range(max(1, round(hours * 3600 / seconds))):
        rng = np.random.default_rng((seed, number))
        modality = MODALITIES[number % len(MODALITIES)]
        kinds, audio, video = [], None, None
        if geometry.audio and (modality != "video" or not geometry.video):
            kinds.append(list(AUDIO_KINDS)[number % len(AUDIO_KINDS)])
            audio = render_audio(kinds[-1], rng, seconds)
        if geometry.video and (modality != "audio" or not geometry.audio):
            kinds.append(VIDEO_KINDS[number % len(VIDEO_KINDS)])
            video = render_video(kinds[-1], rng, seconds, scenes, (geometry.video.height, geometry.video.width))
        yield AmbientStream(" + ".join(kinds), audio, video, seconds)


def render_video(
    kind: str, rng: np.random.Generator, seconds: int, scenes: Sequence[Pixels], size: tuple[int, int]
) -> Iterator[Pixels]:
    """Frames (*size, 3), FPS a second, of a kind in VIDEO_KINDS. Without scenes, a flat colour is the scene."""
    height, width = size
    still = np.full((height, width, 3), rng.uniform(0, 4) if kind != "grey" else rng.uniform(50, 210), np.float32)
    if kind == "dark and noisy":
        still += rng.uniform(5, 25)
    elif kind not in ("black", "grey"):
        flat = rng.integers(0, 256, (1, 1, 3)).astype(np.uint8)
        scene = _square(scenes[int(rng.integers(len(scenes)))], rng) if len(scenes) else flat
        still = np.asarray(cv2.resize(scene, (width, height), interpolation=cv2.INTER_AREA), np.float32)
    light = _light(kind, rng, np.arange(round(seconds * FPS)) / FPS)
    sigma = rng.uniform(6, 20) if kind == "dark and noisy" else rng.uniform(0.5, 5)
    # The sensor noise of each frame is cut from one larger field.
    field = rng.normal(0, sigma * (kind != "frozen scene"), (height + 64, width + 64, 3)).astype(np.float32)
    for now in light:
        y, x = rng.integers(0, 64, 2)
        yield np.clip(still * np.float32(now) + field[y : y + height, x : x + width], 0, 255).astype(np.uint8)


def _light(kind: str, rng: np.random.Generator, t: NDArray[np.float64]) -> NDArray[np.float64]:
    """The brightness at each time in seconds, 1 at rest."""
    if kind == "drifting light":
        return np.asarray(np.exp(0.25 * np.sin(2 * np.pi * t / rng.uniform(15, 100) + rng.uniform(0, 6))))
    if kind == "flicker":  # lamps flicker at twice the mains frequency, which beats with the shutter
        return np.asarray(1 + rng.uniform(0.02, 0.15) * np.sin(2 * np.pi * rng.uniform(0.2, 6) * t))
    return np.ones(len(t))


def _square(scene: Pixels, rng: np.random.Generator) -> Pixels:
    """A random square of an image (H, W, 3), half its shorter side or more; half of them mirrored."""
    side = round(min(scene.shape[:2]) * rng.uniform(0.5, 1))
    y, x = (int(rng.integers(n - side + 1)) for n in scene.shape[:2])
    return np.ascontiguousarray(scene[y : y + side, x : x + side, :: (1 if rng.random() < 0.5 else -1)][..., :3])


def read_scenes(cache: Path | None, seed: int) -> list[Pixels]:
    """Backgrounds for the streams of this seed; none without a cache.

    For QUIET_HEAD_SEED these are backgrounds of the training material. For other seeds they were never trained on, and
    seeds 1 and 2 share none.
    """
    if cache is None:
        return []
    split = "train" if seed == QUIET_HEAD_SEED else "validation"
    found = sorted((p for p in read_index(cache) if (p.kind, p.split) == ("background", split)), key=lambda p: p.sha256)
    mine = found if seed == QUIET_HEAD_SEED else found[seed % 2 :: 2]
    return [read_pixels(cache, image)[..., :3] for image in mine]


def windows_of(geometry: Geometry, stream: AmbientStream) -> Iterator[Window]:
    """The windows that the daemon would cut."""
    windower = Windower(geometry, round(HOP_S * NS_PER_S), WindowConfig().tolerance)
    for item in heapq.merge(_chunks(stream), _frames(stream), key=lambda item: item.start_ns):
        yield from windower.push(item)
    yield from windower.flush()


def _chunks(stream: AmbientStream) -> Iterator[Media]:
    audio, size = stream.audio if stream.audio is not None else (), round(CHUNK_S * RATE_HZ)
    for at in range(0, len(audio), size):
        yield Chunk(at * NS_PER_S // RATE_HZ, np.asarray(audio[at : at + size]), RATE_HZ)


def _frames(stream: AmbientStream) -> Iterator[Media]:
    for number, pixels in enumerate(stream.video or ()):
        yield Frame(round(number * NS_PER_S / FPS), pixels)


def correct_labels(stream: AmbientStream) -> frozenset[str]:
    """The labels whose events in this stream are no false alarms."""
    return QUIET_LABELS.union(PLACES, *(LABELS_OF_KIND.get(kind, frozenset()) for kind in stream.kinds))
