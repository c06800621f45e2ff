"""Endless training windows: crops of the corpus, mixed, bent, filtered, echoed, and what is known of them.

A mixture is a function of (seed, index) and the corpus alone, so a pool can be resumed or checked at
any place. It knows nothing of teachers or files of its own.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from perceiverd.core.labels import ontology
from perceiverd.training.data.corpus import HOP, RATE_HZ, Clip, Corpus
from perceiverd.training.synthesis import tones

WINDOW = 20_480
"""Samples of one window, 1.28 s."""
WINDOW_HOPS = WINDOW // HOP  # 8 loudness values
assert WINDOW % HOP == 0
CLASSES = 527

Wave = NDArray[np.float32]
Truth = NDArray[np.int8]

SILENCE_SHARE = 0.06
SINGLE_SHARE = 0.20
"""Of all mixtures: nothing but silence; one clip. The rest have two clips or, one time in four, three."""
KIND_SHARES = {"environmental": 0.50, "labelled": 0.22, "rendered": 0.12, "background": 0.16}
"""How often a component is a clip of the main corpus; another labelled sound; an instrument or voice that was
rendered; speech, music, unlabelled. A kind that the corpus lacks leaves its share to the others."""
BACKGROUND_SHARES = {"Speech": 0.35, "Music": 0.35, "": 0.30}

AUDIBLE_DB = 18.0
"""A component this much below the loudest is no longer vouched for."""
VOUCHED_DB = 25.0
"""A crop this much below its own clip's loudest moment may not hold the labelled sound."""
SILENT_DB = 40.0
"""A crop this much below holds silence, and never its clip's label."""

# Everyday sounds that share a recording or a cause so often that one's presence says nothing against
# the other: rain in thunder, birds in the wind, the engine of a helicopter.
OFTEN_TOGETHER = (
    ("Rain", "Thunder", "Wind", "Waves, surf", "Drip", "Pour", "Toilet flush"),
    ("Engine", "Helicopter", "Fixed-wing aircraft, airplane", "Train", "Vehicle horn, car horn, honking", "Siren"),
    ("Engine", "Chainsaw", "Vacuum cleaner", "Mechanisms"),
    ("Bird", "Cricket", "Insect", "Frog", "Wind", "Crow"),
    ("Bird", "Chicken, rooster"),
    ("Breathing", "Snoring"),
    ("Typing", "Clicking", "Tick-tock"),
    ("Tick-tock", "Alarm clock", "Mechanisms"),
)

VOICES = (
    "Male speech, man speaking",
    "Female speech, woman speaking",
    "Male singing",
    "Female singing",
    "Battle cry",
    "Funny music",
)
"""What the teacher does not know. They are known to be absent where a sound's labels tell all that is heard."""
NEAR_VOICES = frozenset(
    "Laughter|Baby cry, infant cry|Cough|Sneeze|Breathing|Snoring|Clapping|Church bell|Toothbrush|Screaming".split("|")
)
"""Sounds whose recordings may hold a voice as well."""

# What may be heard in an empty room, or in a bad microphone; nothing else is in the noises that are made up here.
QUIET = (
    "Silence|Noise|Environmental noise|White noise|Pink noise|Static|Hum|Mains hum|Hiss|Buzz|Throbbing|Vibration|"
    "Rumble|Inside, small room|Inside, large room or hall|Inside, public space|Outside, urban or manmade|"
    "Outside, rural or natural|Field recording|Wind noise (microphone)|Air conditioning|Mechanical fan|Mechanisms|"
    "Sine wave|Distortion|Sidetone|Clicking|Crackle|Tick|Cacophony|Reverberation|Echo|Pulse"
).split("|")
ROOM_DB = -68.0
"""Noise below this is silence to anyone; above, the teacher says what it is."""
LOUDEST_ROOM_DB = -45.0


@dataclass(frozen=True)
class Mixture:
    """One window and what is known of it."""

    pcm: Wave
    """(20480,) within ±1, 16 kHz."""
    truth: Truth
    """(527,) 1 heard, 0 surely not, -1 unknown."""
    main: int
    """AudioSet index of the loudest labelled component's first label, -1 if there is none."""


@dataclass(frozen=True)
class _Part:
    clip: Clip
    wave: Wave
    """(20480,) scaled so that the clip's loudest 0.16 s would be at 0 dB."""
    below_db: float
    """How far the crop is below the clip's loudest window."""


class Labels:
    """What labels imply: their ancestors, and which everyday classes they exclude."""

    def __init__(self, everyday: frozenset[str]) -> None:
        known = ontology()
        assert len(known.labels) == CLASSES
        self.index = {label.name: label.index for label in known.labels}
        index_of_mid = {label.mid: label.index for label in known.labels}
        self._ancestors = [
            frozenset(index_of_mid[mid] for mid in known.ancestors(label.mid) if mid in index_of_mid)
            for label in known.labels
        ]
        self._everyday = frozenset(self.index[name] for name in everyday)
        groups = [frozenset(self.index[name] for name in group) for group in OFTEN_TOGETHER]
        self._together = {i: frozenset[int]().union(*(g for g in groups if i in g)) for i in range(CLASSES)}

    def truth(self, heard: Iterable[str], perhaps: Iterable[str], exclusive: bool) -> Truth:
        """(527,) of what is heard and perhaps heard, with all ancestors; exclusive: nothing else everyday is there.

        Where a label is present, its ancestors are too, its descendants may be, and so may what often
        comes with it. Other everyday classes are absent if the sound is exclusive.
        """
        sure, unsure = ({self.index[name] for name in names} for names in (heard, perhaps))
        present = sure | unsure
        out = np.full(CLASSES, -1, np.int8)
        if exclusive:
            possible = self._closed(present)
            everyday = self._everyday | self._unheard(present, possible)
            below = {i for i in everyday if (self._ancestors[i] | self._together[i]) & present}
            out[list(everyday - possible - below)] = 0
        out[list(self._closed(sure))] = 1
        return out

    def _closed(self, own: set[int]) -> frozenset[int]:
        return frozenset(own).union(*(self._ancestors[index] for index in own))

    def _unheard(self, present: set[int], possible: frozenset[int]) -> frozenset[int]:
        """Those of the labels unknown to the teacher that these sounds rule out, if they aren't among them."""
        if present & {self.index[name] for name in NEAR_VOICES}:
            return frozenset()
        music = self.index["Music"] in possible
        return frozenset(self.index[name] for name in VOICES if not (music and name == "Funny music"))

    def silence(self) -> Truth:
        """(527,) of what no one would call a sound."""
        out = np.zeros(CLASSES, np.int8)
        out[self.index["Silence"]] = 1
        return out

    def room(self) -> Truth:
        """(527,) of an empty room's noise: what such noise is called is unknown, all else is absent."""
        out = np.zeros(CLASSES, np.int8)
        out[list(self._closed({self.index[name] for name in QUIET}))] = -1
        return out


class Mixtures:
    """The endless sequence of mixtures of some splits of a corpus."""

    def __init__(self, corpus: Corpus, *, seed: int, splits: frozenset[str]) -> None:
        self._corpus = corpus
        self._seed = seed
        clips = [clip for clip in corpus.clips if clip.split in splits]
        self.labels = Labels(everyday(clips))
        self._groups = {
            kind: _Balanced(clips, kind) for kind in KIND_SHARES if any(kind_of(clip) == kind for clip in clips)
        }
        if not self._groups:
            raise ValueError("the corpus has no clip to mix")
        shares = np.array([KIND_SHARES[kind] for kind in self._groups])
        self._shares = shares / shares.sum()

    def __getitem__(self, index: int) -> Mixture:
        rng = np.random.default_rng([self._seed, index])
        if rng.random() < SILENCE_SHARE:
            wave, level_db = quiet(rng)
            if level_db <= ROOM_DB:
                return Mixture(wave, self.labels.silence(), self.labels.index["Silence"])
            return Mixture(wave, self.labels.room(), -1)
        count = 1 if rng.random() < SINGLE_SHARE / (1 - SILENCE_SHARE) else int(rng.choice([2, 2, 2, 3]))
        parts = [self._part(rng) for _ in range(count)]
        gains_db = np.concatenate([[0.0], rng.uniform(-24, 0, count - 1)])
        levels_db = gains_db - [part.below_db for part in parts]
        mixed = sum((part.wave * _ratio(gain) for part, gain in zip(parts, gains_db, strict=True)), np.zeros(WINDOW))
        pcm = _finish(np.asarray(mixed, np.float32), rng)
        return Mixture(pcm, *self._truth(parts, levels_db))

    def _part(self, rng: np.random.Generator) -> _Part:
        kind = str(rng.choice(list(self._groups), p=self._shares))
        clip = self._groups[kind].draw(rng)
        speed = float(np.exp(rng.uniform(np.log(0.85), np.log(1.18)))) if rng.random() < 0.5 else 1.0
        wave, below_db = crop(self._corpus, clip, rng, speed)
        if rng.random() < 0.4:
            wave = _equalise(wave, rng)
        return _Part(clip, wave, below_db)

    def _truth(self, parts: list[_Part], levels_db: NDArray[np.float64]) -> tuple[Truth, int]:
        heard, perhaps, main = set[str](), set[str](), -1
        for at in np.argsort(-levels_db):
            part = parts[at]
            names = set(part.clip.labels)
            if levels_db[at] >= levels_db.max() - AUDIBLE_DB and part.below_db <= VOUCHED_DB:
                heard |= names
                if main < 0 and part.clip.labels:
                    main = self.labels.index[part.clip.labels[0]]
            elif part.below_db <= SILENT_DB:
                perhaps |= names
        exclusive = all(part.clip.group in {"environmental", "rendered"} and part.clip.labels for part in parts)
        return self.labels.truth(heard, perhaps, exclusive), main


def everyday(clips: list[Clip]) -> frozenset[str]:
    """The labels of the main corpus, one of which is each of its clips' whole content."""
    return frozenset(clip.labels[0] for clip in clips if clip.group == "environmental" and clip.labels)


def kind_of(clip: Clip) -> str:
    if clip.group in {"environmental", "rendered"}:
        return clip.group
    return "background" if not clip.labels or clip.labels[0] in BACKGROUND_SHARES else "labelled"


class _Balanced:
    """Draws a class, then a recording of it, then a clip: no class or long recording dominates."""

    def __init__(self, clips: list[Clip], kind: str) -> None:
        tree: dict[str, dict[str, list[Clip]]] = defaultdict(lambda: defaultdict(list))
        samples: dict[str, int] = defaultdict(int)
        for clip in clips:
            if kind_of(clip) == kind:
                name = self._class(clip, kind)
                tree[name][clip.recording].append(clip)
                samples[name] += clip.samples
        self._names = list(tree)
        self._recordings = {name: list(tree[name].values()) for name in tree}
        if kind == "background":
            shares = [BACKGROUND_SHARES[name.partition("/")[0]] for name in self._names]
            totals: dict[float, float] = defaultdict(float)
            for name, share in zip(self._names, shares, strict=True):
                totals[share if name.partition("/")[0] else -1] += samples[name] ** 0.5
            weights = [
                share * samples[name] ** 0.5 / totals[share if name.partition("/")[0] else -1]
                for name, share in zip(self._names, shares, strict=True)
            ]
        else:
            # A class of one recording is drawn a third as often as one of eight or more.
            weights = [min(len(self._recordings[name]), 8) ** 0.5 for name in self._names]
        self._shares = np.cumsum(weights) / np.sum(weights)

    @staticmethod
    def _class(clip: Clip, kind: str) -> str:
        """Environmental: the listed class (in the path); background: kind and package; else the first label."""
        if kind == "environmental":
            return clip.path.split("/")[1] if clip.path.count("/") == 3 else clip.labels[0]
        if kind == "background":
            return f"{clip.labels[0] if clip.labels else ''}/{clip.source}"
        return clip.labels[0]

    def draw(self, rng: np.random.Generator) -> Clip:
        name = self._names[min(int(np.searchsorted(self._shares, rng.random())), len(self._names) - 1)]
        recordings = self._recordings[name]
        clips = recordings[rng.integers(len(recordings))]
        return clips[rng.integers(len(clips))]


def crop(corpus: Corpus, clip: Clip, rng: np.random.Generator, speed: float) -> tuple[Wave, float]:
    """1.28 s of a clip played at `speed`, and how many dB it is below the clip's loudest window.

    Five times in six a place is chosen that is within 20 dB of the loudest; a clip shorter than a
    window is laid somewhere in it. The clip's loudest 0.16 s comes out at 0 dB of full scale.
    """
    power = 10 ** (corpus.levels(clip) / 10.0)  # (hops,)
    hops = max(len(power) - WINDOW_HOPS + 1, 1)
    total = np.concatenate([[0], np.cumsum(power)])
    window_power = total[np.minimum(np.arange(hops) + WINDOW_HOPS, len(power))] - total[:hops]
    places = np.arange(hops)
    if rng.random() < 5 / 6:
        places = np.flatnonzero(window_power >= window_power.max() * _ratio(-20) ** 2)
    place = int(places[rng.integers(len(places))])
    start = place * HOP + (int(rng.integers(HOP)) if hops > 1 else 0)
    wanted = round(WINDOW * speed / 512) * 512  # a length that Fourier transforms are quick with
    wave: Wave = corpus.samples(clip)[start : start + wanted].astype(np.float32) / np.float32(32768)
    if wanted != WINDOW:
        wave = _stretch(wave, round(len(wave) * WINDOW / wanted))
    if len(wave) < WINDOW:
        before = int(rng.integers(WINDOW - len(wave) + 1))
        wave = np.pad(wave, (before, WINDOW - len(wave) - before))
    below_db = 10 * np.log10(window_power.max() / max(window_power[place], 1e-15))
    return wave * np.float32(power.max() ** -0.5), float(below_db)


def _stretch(wave: Wave, samples: int) -> Wave:
    """The wave played faster or slower so that it has this many samples; pitch moves with it."""
    short = 4 * max(samples, len(wave)) < WINDOW
    if short or samples < 2:
        return np.asarray(np.interp(np.linspace(0, len(wave) - 1, samples), np.arange(len(wave)), wave), np.float32)
    return np.asarray(np.fft.irfft(np.fft.rfft(wave), samples) * (samples / len(wave)), np.float32)


def _finish(wave: Wave, rng: np.random.Generator) -> Wave:
    """Room, microphone and converter: reverberation, equalisation, noise, gain, 16 bits."""
    if rng.random() < 0.3:
        wave = _reverberate(wave, rng)
    if rng.random() < 0.5:
        wave = _equalise(wave, rng)
    power = float(np.mean(wave**2))
    if rng.random() < 0.35:
        wave = wave + _noise(rng) * np.float32(power**0.5 * _ratio(-rng.uniform(10, 50)))
    peak_db = float(np.clip(rng.normal(-12, 9), -40, 0))
    if rng.random() < 0.03:
        peak_db += 6  # overdriven: the converter clips
    wave = wave * np.float32(_ratio(peak_db) / max(float(np.abs(wave).max()), 1e-6))
    return _sixteen_bits(wave)


def _sixteen_bits(wave: Wave) -> Wave:
    return np.asarray(np.clip(np.round(wave * 32767), -32768, 32767) / 32768, np.float32)


def quiet(rng: np.random.Generator) -> tuple[Wave, float]:
    """(20480,) of a place where nothing happens, and its level in dB of full scale.

    One in eight each is digital zero and the last bit flickering; a quarter is noise below ROOM_DB, a half
    noise up to LOUDEST_ROOM_DB.
    """
    kind = rng.random()
    if kind < 1 / 8:
        return np.zeros(WINDOW, np.float32), -np.inf
    if kind < 1 / 4:
        return _sixteen_bits(np.asarray(rng.triangular(-1, 0, 1, WINDOW) / 32768, np.float32)), -95.0
    level_db = float(rng.uniform(-95, ROOM_DB) if kind < 1 / 2 else rng.uniform(ROOM_DB, LOUDEST_ROOM_DB))
    return _sixteen_bits(_room(rng, level_db)), level_db


def _room(rng: np.random.Generator, level_db: float) -> Wave:
    """Hiss, hum, or both, through a random response, drifting in level; clicks and an offset at times."""
    wave = _noise(rng)
    if rng.random() < 0.4:
        wave = wave + _noise(rng) * np.float32(_ratio(rng.uniform(-20, 0)))
    if rng.random() < 0.6:
        wave = _equalise(wave, rng)
    if rng.random() < 0.5:
        drift_db = np.interp(np.arange(WINDOW), np.linspace(0, WINDOW, 6), np.cumsum(rng.normal(0, 1.5, 6)))
        wave = wave * np.asarray(10 ** (drift_db / 20), np.float32)
    wave = wave * np.float32(_ratio(level_db) / max(float(np.sqrt(np.mean(wave**2))), 1e-9))
    if rng.random() < 0.25:
        for start in rng.integers(0, WINDOW - 200, rng.integers(1, 4)):
            decay = np.exp(-np.arange(200) / rng.uniform(2, 40)) * rng.standard_normal(200)
            wave[start : start + 200] += np.asarray(decay * _ratio(level_db + rng.uniform(6, 20)), np.float32)
    if rng.random() < 0.2:
        wave = wave + np.float32(rng.uniform(-0.02, 0.02))
    return np.asarray(wave, np.float32)


def _noise(rng: np.random.Generator) -> Wave:
    """(20480,) white, pink or brown noise, or mains hum, of unit root mean square."""
    kind = rng.integers(4)
    if kind < 3:
        return tones.coloured_noise(rng, WINDOW, float(kind))
    phase = 2 * np.pi * rng.choice([50, 60]) * np.arange(WINDOW) / RATE_HZ + rng.uniform(0, 6)
    wave = sum(rng.uniform(0, 1) * np.sin(n * phase) for n in (1, 2, 3, 4, 6))
    return np.asarray(wave / np.sqrt(np.mean(np.square(wave)) + 1e-9), np.float32)


def _equalise(wave: Wave, rng: np.random.Generator) -> Wave:
    """A random smooth response, and sometimes the band limits of a poorer source."""
    frequency = _octaves()
    knots = rng.normal(0, 4, 7)
    gain_db = np.interp(frequency, np.linspace(5.5, 13, 7), knots)  # 45 Hz to 8 kHz
    limits = rng.random()
    if limits < 0.20:
        low_hz, high_hz = (300, 3400) if limits < 0.05 else (rng.uniform(20, 300), rng.uniform(2500, 7500))
        gain_db -= 24 * np.maximum(np.log2(low_hz) - frequency, 0)  # 24 dB an octave
        gain_db -= 80 * np.maximum(frequency - np.log2(high_hz), 0)
    return np.asarray(np.fft.irfft(np.fft.rfft(wave) * _amplitudes(gain_db), WINDOW), np.float32)


def _reverberate(wave: Wave, rng: np.random.Generator) -> Wave:
    """The wave with an echo of exponentially decaying noise, 2 to 20 dB below it."""
    length = RATE_HZ // 2
    decay_s = np.exp(rng.uniform(np.log(0.1), np.log(1.2)))  # to -60 dB
    tail = rng.standard_normal(length) * np.exp(-6.9 * np.arange(length) / (RATE_HZ * decay_s))
    tail[: int(rng.uniform(0.002, 0.02) * RATE_HZ)] = 0
    tail *= _ratio(-rng.uniform(2, 20)) / np.sqrt(np.sum(tail**2))
    tail[0] = 1
    size = 1 << 15
    spectrum = np.fft.rfft(wave, size) * np.fft.rfft(tail.astype(np.float32), size)
    return np.asarray(np.fft.irfft(spectrum, size)[:WINDOW], np.float32)


@cache
def _octaves() -> NDArray[np.float64]:
    """log2 of the frequency in Hz of each bin of a window's spectrum; bin 0 counts as 1 Hz."""
    return np.asarray(np.log2(np.maximum(np.fft.rfftfreq(WINDOW, 1 / RATE_HZ), 1)))


def _amplitudes(gain_db: NDArray[np.float64]) -> Wave:
    return np.asarray(10 ** (np.maximum(gain_db, -120) / 20), np.float32)


def _ratio(decibel: float) -> float:
    """The amplitude ratio of a level difference."""
    return float(10 ** (decibel / 20))
