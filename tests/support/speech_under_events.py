"""How often a clip with speech under an event is kept: `python -m tests.support.speech_under_events F.. --speech F..`.

Speech is mixed under each event so that its level, where it sounds, is -20 to 0 dB of the event's. A clip is kept if no
window that overlaps it has a score of speech at or above the limit, as `perceiverd.daemon.speech` judges it; the last
line has the same by the ten best labels of each window only.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from perceiverd.core.media import NS_PER_S
from perceiverd.daemon.speech import SpeechMemory, speech_indices
from perceiverd.model.card import load_card
from perceiverd.pipeline.tagger import Tagger
from perceiverd.pipeline.windower import Window

RATE_HZ = 16_000
LEVELS_DB = (-20, -15, -10, -5, 0)
LIMITS = (0.02, 0.05, 0.1, 0.2, 0.3)
CLIP_S = 5
HOP_S = 0.5
TOP = 10

Sound = NDArray[np.float32]


def read(path: Path) -> Sound:
    """A file as samples, (n,), at RATE_HZ."""
    resampler = av.AudioResampler("flt", "mono", RATE_HZ)
    with av.open(str(path)) as container:
        parts = [part.to_ndarray().ravel() for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    return np.concatenate(parts).astype(np.float32)


def fitted(sound: Sound, samples: int) -> Sound:
    """Repeated or cut to this length."""
    return np.tile(sound, -(-samples // len(sound)))[:samples]


def loudness(sound: Sound) -> float:
    """The RMS of the blocks of 50 ms that are within 30 dB of the loudest one: pauses do not count."""
    blocks = sound[: len(sound) // 800 * 800].reshape(-1, 800)
    levels = np.sqrt((blocks**2).mean(axis=1))
    return float(np.sqrt((levels[levels > levels.max() / 31.6] ** 2).mean()))


def mixed(event: Sound, speech: Sound | None, level_db: float) -> Sound:
    """The event with speech at this level relative to it."""
    if speech is None:
        return event
    return event + speech * (loudness(event) / loudness(speech) * 10 ** (level_db / 20))


def windows(sound: Sound, length: int) -> Iterator[Window]:
    """The windows of a clip, HOP_S apart, as a stream that only hears gives them."""
    hop = round(HOP_S * RATE_HZ)
    padded = np.pad(sound, (length - hop, length - hop))
    for at in range(0, len(padded) - length + 1, hop):
        start_ns = round((at - length + hop) * NS_PER_S / RATE_HZ)
        yield Window(start_ns, start_ns + round(length * NS_PER_S / RATE_HZ), padded[at : at + length], None)


def judged(tagger: Tagger, sound: Sound) -> tuple[list[Window], NDArray[np.float32]]:
    """The windows of a clip and their scores, (windows, labels)."""
    geometry = tagger.card.geometry
    assert geometry.audio is not None
    found = list(windows(sound, geometry.audio.samples))
    return found, tagger.tag(found)


def kept(tagger: Tagger, found: Sequence[Window], scores: NDArray[np.float32], limit: float) -> bool:
    """Whether the daemon would keep the clip."""
    memory = SpeechMemory(tagger.card.labels)
    for window, row in zip(found, scores, strict=True):
        memory.add(window, row)
    return memory.verdict(0, CLIP_S * NS_PER_S, limit) == "clear"


def kept_by_best(tagger: Tagger, scores: NDArray[np.float32], limit: float) -> bool:
    """The same by the best labels of each window only."""
    speech = set(speech_indices(tagger.card.labels).tolist())
    return not any(row[index] >= limit for row in scores for index in np.argsort(-row)[:TOP] if int(index) in speech)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("events", type=Path, nargs="+")
    parser.add_argument("--speech", type=Path, nargs="+", required=True)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--model", default="ear-and-eye-small")
    arguments = parser.parse_args()
    rng = random.Random(5)
    events = rng.sample(arguments.events, min(arguments.count, len(arguments.events)))
    tagger = Tagger(load_card(arguments.model), "cpu", 1)
    samples = CLIP_S * RATE_HZ
    voices = [read(path) for path in rng.sample(arguments.speech, min(50, len(arguments.speech)))]
    table: dict[object, dict[object, list[bool]]] = {}
    for path in events:
        event, voice = fitted(read(path), samples), rng.choice(voices)
        at = rng.randrange(max(1, len(voice) - samples))
        speech = fitted(voice[at:], samples)
        if not loudness(event) or not np.isfinite(loudness(event)):
            continue
        for level in (None, *LEVELS_DB):
            sound = mixed(event, None if level is None else speech, level or 0.0)
            found, scores = judged(tagger, sound)
            for limit in LIMITS:
                table.setdefault(limit, {}).setdefault(level, []).append(kept(tagger, found, scores, limit))
            best = kept_by_best(tagger, scores, 0.1)
            table.setdefault("best 10, 0.1", {}).setdefault(level, []).append(best)
    print("share of clips that are kept; `none` has no speech in it")
    print(f"{'limit':14}" + "".join(f"{'none' if each is None else f'{each} dB':>9}" for each in (None, *LEVELS_DB)))
    for name, row in table.items():
        print(f"{name!s:14}" + "".join(f"{np.mean(row[each]):9.3f}" for each in (None, *LEVELS_DB)))


if __name__ == "__main__":
    main()
