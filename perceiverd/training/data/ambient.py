"""Hours in which nothing happens: silences, hums, hisses, clicks, and pictures of nothing, as cheap devices give them.

Made, not recorded: a stream is a function of the seed and its number alone. What a model calls an event here is a
false alarm, but for the labels that name the noise itself.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from perceiverd.config import WindowConfig
from perceiverd.core.media import NS_PER_S, Chunk, Frame, Media
from perceiverd.model.geometry import Geometry
from perceiverd.pipeline.windower import Window, Windower
from perceiverd.training.data.images import read_index, read_pixels
from perceiverd.training.synthesis.tones import coloured_noise

RATE_HZ = 16_000
FIT_S, TEST_S = 40, 300
"""Length of a stream. Thresholds are set on many short ones, for what matters is that they differ; false alarms are
counted in long ones, for a device goes on as it is."""
HOP_S = 0.5
CHUNK_S = 0.1
FPS = 12.5
FIT_SEED, TEST_SEED, HUSH_SEED = 1, 2, 3
"""Thresholds are set on the first; false alarms are counted on the second; a model learns from the third."""

ASIDE = frozenset(
    {
        "Silence", "Hum", "Mains hum", "Buzz", "Noise", "Environmental noise", "White noise", "Pink noise", "Static",
        "Hiss", "Throbbing",
    }
)  # fmt: skip
"""Labels that name what is heard in these streams; their events are no false alarms."""
PLACES = frozenset(
    {
        "Inside, small room", "Inside, large room or hall", "Inside, public space", "Outside, urban or manmade",
        "Outside, rural or natural",
    }
)  # fmt: skip
"""Labels that say where a microphone stands; the daemon makes no events of them."""
OWN = {
    "fan": frozenset({"Mechanical fan", "Air conditioning"}),
    "hum at 50 Hz": frozenset({"Sine wave"}),
    "hum at 60 Hz": frozenset({"Sine wave"}),
}
"""Labels that are right for one kind of stream."""

Wave = NDArray[np.float32]
Picture = NDArray[np.uint8]
"""(H, W, 3), RGB."""


@dataclass(frozen=True, eq=False)
class Stream:
    """Some time of nothing."""

    kind: str
    """Of its sound and its pictures: `hiss`, `hiss + black`, `black`."""
    sound: Wave | None
    """16 kHz."""
    sight: Iterator[Picture] | None
    """FPS a second."""
    seconds: int

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(self.kind.split(" + "))

    @property
    def sense(self) -> str:
        """What it has."""
        if self.sound is None:
            return "pictures alone"
        return "sound alone" if self.sight is None else "sound and pictures"


# ---------------------------------------------------------------------------------------------- sound
def _ratio(decibel: float | NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(10 ** (np.asarray(decibel) / 20))


def _time(seconds: int) -> NDArray[np.float64]:
    return np.arange(seconds * RATE_HZ) / RATE_HZ


def _drift(rng: np.random.Generator, seconds: int, spread: float) -> NDArray[np.float64]:
    """A slow walk about 0, of so many units, a knot every 5 s."""
    knots = rng.normal(0, spread / 3, seconds // 5 + 2)
    for at in range(1, len(knots)):  # drawn back, or it would have gone far after minutes
        knots[at] += 0.9 * knots[at - 1]
    return np.asarray(np.interp(_time(seconds), np.arange(len(knots)) * 5.0, knots))


def _noise(rng: np.random.Generator, seconds: int, slope: float) -> NDArray[np.float64]:
    return coloured_noise(rng, seconds * RATE_HZ, slope).astype(np.float64)


def _room(rng: np.random.Generator, seconds: int, low_db: float = -75, high_db: float = -45) -> NDArray[np.float64]:
    """Room tone: coloured noise whose level drifts."""
    noise = _noise(rng, seconds, rng.uniform(0.5, 2.0))
    return noise * _ratio(rng.uniform(low_db, high_db) + _drift(rng, seconds, 4.0))


def _hiss(rng: np.random.Generator, seconds: int) -> NDArray[np.float64]:
    noise = rng.standard_normal(seconds * RATE_HZ + 1)
    noise = np.diff(noise) if rng.random() < 0.5 else noise[1:]
    return np.asarray(noise * _ratio(rng.uniform(-75, -40) + _drift(rng, seconds, 2.0)))


def _hum(rng: np.random.Generator, seconds: int, mains_hz: float) -> NDArray[np.float64]:
    phase = 2 * np.pi * (mains_hz + rng.normal(0, 0.05)) * _time(seconds)
    wave = np.zeros(len(phase))
    for number in (1, 2, 3, 4, 5, 6, 8, 10):
        wave += rng.uniform(0, 1) / number ** rng.uniform(0.3, 1.5) * np.sin(number * phase + rng.uniform(0, 6))
    wave /= np.sqrt(np.mean(wave**2))
    level_db = rng.uniform(-65, -25) + _drift(rng, seconds, 1.0)
    return np.asarray(wave * _ratio(level_db) + _room(rng, seconds, -80, -60))


def _fan(rng: np.random.Generator, seconds: int) -> NDArray[np.float64]:
    """Turbulence, a blade's tone with overtones, and the slow beat of a bearing."""
    t = _time(seconds)
    phase = 2 * np.pi * rng.uniform(60, 400) * (t + 0.0005 * _drift(rng, seconds, 1.0))
    tone = sum(rng.uniform(0, 1) / n * np.sin(n * phase) for n in (1, 2, 3))
    beat = 1 + rng.uniform(0, 0.3) * np.sin(2 * np.pi * rng.uniform(0.5, 12) * t)
    wave = _noise(rng, seconds, rng.uniform(1, 2)) + rng.uniform(0, 0.7) * np.asarray(tone)
    return np.asarray(wave * beat * _ratio(rng.uniform(-65, -35)))


def _clicks(rng: np.random.Generator, seconds: int) -> NDArray[np.float64]:
    """Single clicks of up to 2 ms, at random, over room tone."""
    wave = _room(rng, seconds)
    for at in np.flatnonzero(rng.random(seconds * 10) < rng.uniform(0.02, 0.2)):
        length = int(rng.integers(1, 32))
        place = int((at + rng.random()) / 10 * RATE_HZ)
        burst = rng.standard_normal(length) * np.exp(-np.arange(length) / max(1.0, length / 4))
        wave[place : place + length] += (burst * _ratio(rng.uniform(-60, -20)))[: len(wave) - place]
    return wave


def _dropouts(rng: np.random.Generator, seconds: int) -> NDArray[np.float64]:
    """Stretches of zero, 5 ms to 3 s: lost packets and noise gates."""
    wave = _room(rng, seconds)
    for at in np.flatnonzero(rng.random(seconds) < rng.uniform(0.05, 0.5)):
        place, length = int((at + rng.random()) * RATE_HZ), int(np.exp(rng.uniform(np.log(80), np.log(48_000))))
        wave[place : place + length] = 0
    return wave


def _thumps(rng: np.random.Generator, seconds: int) -> NDArray[np.float64]:
    """Pops below 100 Hz, as of a plug or a knock on the stand, faint."""
    wave, t = _room(rng, seconds), _time(1)[: RATE_HZ // 8]
    for at in np.flatnonzero(rng.random(seconds) < rng.uniform(0.03, 0.2)):
        pop = np.sin(2 * np.pi * rng.uniform(25, 100) * t) * np.exp(-t * rng.uniform(40, 150))
        wave[at * RATE_HZ : at * RATE_HZ + len(t)] += pop * _ratio(rng.uniform(-55, -30))
    return wave


def _fades(rng: np.random.Generator, seconds: int) -> NDArray[np.float64]:
    swell = np.sin(2 * np.pi * _time(seconds) / rng.uniform(20, 90) + rng.uniform(0, 6))
    return _noise(rng, seconds, rng.uniform(0, 2)) * _ratio(-67 + 22 * swell)


def _coarse(rng: np.random.Generator, seconds: int) -> NDArray[np.float64]:
    """A faint sound in few steps, 8 to 12 bits of full scale."""
    step = 2.0 ** -(int(rng.integers(8, 13)) - 1)
    return np.asarray(np.round(_room(rng, seconds, -55, -40) / step) * step)


SOUNDS: dict[str, Callable[[np.random.Generator, int], NDArray[np.float64]]] = {
    "digital silence": lambda rng, seconds: np.zeros(seconds * RATE_HZ),
    "dithered silence": lambda rng, seconds: np.diff(rng.random(seconds * RATE_HZ + 1)) / 32768,
    "room tone": _room,
    "hiss": _hiss,
    "hum at 50 Hz": lambda rng, seconds: _hum(rng, seconds, 50.0),
    "hum at 60 Hz": lambda rng, seconds: _hum(rng, seconds, 60.0),
    "fan": _fan,
    "clicks": _clicks,
    "dropouts": _dropouts,
    "thumps": _thumps,
    "coarse steps": _coarse,
    "constant offset": lambda rng, seconds: _room(rng, seconds) + rng.uniform(-0.3, 0.3),
    "slow fades": _fades,
}


def listen(kind: str, rng: np.random.Generator, seconds: int) -> Wave:
    """A sound of SOUNDS as a converter of 16 bits gives it."""
    wave = np.clip(np.round(SOUNDS[kind](rng, seconds) * 32768), -32768, 32767)
    return np.asarray(wave / 32768, np.float32)


# ---------------------------------------------------------------------------------------------- pictures
SIGHTS = ("black", "grey", "dark and noisy", "frozen scene", "still scene", "drifting light", "flicker")


def look(
    kind: str, rng: np.random.Generator, seconds: int, scenes: Sequence[Picture], height: int, width: int
) -> Iterator[Picture]:
    """Pictures (height, width, 3), FPS a second, of a kind in SIGHTS; without scenes a flat colour is one."""
    still = np.full((height, width, 3), rng.uniform(0, 4) if kind != "grey" else rng.uniform(50, 210), np.float32)
    if kind == "dark and noisy":
        still += rng.uniform(5, 25)
    elif kind not in ("black", "grey"):
        flat = rng.integers(0, 256, (1, 1, 3)).astype(np.uint8)
        scene = _square(scenes[int(rng.integers(len(scenes)))], rng) if len(scenes) else flat
        still = np.asarray(cv2.resize(scene, (width, height), interpolation=cv2.INTER_AREA), np.float32)
    t = np.arange(round(seconds * FPS)) / FPS
    light = np.ones(len(t))
    if kind == "drifting light":
        light = np.exp(0.25 * np.sin(2 * np.pi * t / rng.uniform(15, 100) + rng.uniform(0, 6)))
    elif kind == "flicker":
        # Lamps at twice the mains frequency beat with the shutter.
        light = 1 + rng.uniform(0.02, 0.15) * np.sin(2 * np.pi * rng.uniform(0.2, 6) * t)
    sigma = rng.uniform(6, 20) if kind == "dark and noisy" else rng.uniform(0.5, 5)
    field = rng.normal(0, sigma * (kind != "frozen scene"), (height + 64, width + 64, 3)).astype(np.float32)
    for now in light:
        y, x = rng.integers(0, 64, 2)
        yield np.clip(still * np.float32(now) + field[y : y + height, x : x + width], 0, 255).astype(np.uint8)


def _square(scene: Picture, rng: np.random.Generator) -> Picture:
    """A square out of a picture (H, W, 3), as the daemon crops one or from nearer, now and then mirrored."""
    side = round(min(scene.shape[:2]) * rng.uniform(0.5, 1))
    y, x = (int(rng.integers(n - side + 1)) for n in scene.shape[:2])
    return np.ascontiguousarray(scene[y : y + side, x : x + side, :: (1 if rng.random() < 0.5 else -1)][..., :3])


def read_scenes(cache: Path | None, seed: int) -> list[Picture]:
    """Backgrounds of the training material for HUSH_SEED; else ones never trained on, of one seed never the other's.

    None without a cache.
    """
    if cache is None:
        return []
    split = "train" if seed == HUSH_SEED else "validation"
    found = sorted((p for p in read_index(cache) if (p.kind, p.split) == ("background", split)), key=lambda p: p.sha256)
    mine = found if seed == HUSH_SEED else found[seed % 2 :: 2]
    return [read_pixels(cache, picture)[..., :3] for picture in mine]


# ---------------------------------------------------------------------------------------------- streams
SENSES = ("ear", "ear", "both", "ear", "ear", "eye", "ear", "both", "ear", "ear", "ear")
"""What stream after stream has; as many as neither the sounds nor the pictures, so that all come together."""


def streams(geometry: Geometry, scenes: Sequence[Picture], seed: int, hours: float, seconds: int) -> Iterator[Stream]:
    """So many hours of streams of so many seconds, for a model that hears, sees or does both."""
    for number in range(max(1, round(hours * 3600 / seconds))):
        rng = np.random.default_rng((seed, number))
        sense = SENSES[number % len(SENSES)]
        kinds, sound, sight = [], None, None
        if geometry.audio and (sense != "eye" or not geometry.video):
            kinds.append(list(SOUNDS)[number % len(SOUNDS)])
            sound = listen(kinds[-1], rng, seconds)
        if geometry.video and (sense != "ear" or not geometry.audio):
            kinds.append(SIGHTS[number % len(SIGHTS)])
            sight = look(kinds[-1], rng, seconds, scenes, geometry.video.height, geometry.video.width)
        yield Stream(" + ".join(kinds), sound, sight, seconds)


def cut(geometry: Geometry, stream: Stream) -> Iterator[Window]:
    """The windows that the daemon would cut."""
    windower = Windower(geometry, round(HOP_S * NS_PER_S), WindowConfig().tolerance)
    for item in heapq.merge(_chunks(stream), _frames(stream), key=lambda item: item.start_ns):
        yield from windower.push(item)
    yield from windower.flush()


def _chunks(stream: Stream) -> Iterator[Media]:
    sound, size = stream.sound if stream.sound is not None else (), round(CHUNK_S * RATE_HZ)
    for at in range(0, len(sound), size):
        yield Chunk(at * NS_PER_S // RATE_HZ, np.asarray(sound[at : at + size]), RATE_HZ)


def _frames(stream: Stream) -> Iterator[Media]:
    for number, pixels in enumerate(stream.sight or ()):
        yield Frame(round(number * NS_PER_S / FPS), pixels)


def right(stream: Stream) -> frozenset[str]:
    """The labels whose events are no false alarms in a stream."""
    return ASIDE.union(PLACES, *(OWN.get(kind, frozenset()) for kind in stream.kinds))
