"""Synthetic voices: our own sentences spoken by espeak-ng, flite and festival.

The same release of the program and the same seed give the same bytes. Whose voice it is, man's or
woman's, is not for this module to say; the recipe does where the voice's documentation does.
"""

import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from perceiverd.training.synthesis.programs import output
from perceiverd.training.synthesis.sentences import PHRASES

TIMEOUT_S = 60
ENCODINGS = {"cs": "iso-8859-2", "fi": "iso-8859-1", "it": "iso-8859-1", "ca": "iso-8859-15"}
"""Festival reads bytes; its voices expect their language's old encoding, where they don't expect UTF-8."""
AT_ONCE = {"espeak-ng": 1, "flite": 1, "festival": 8}
"""Sentences of one sound; festival takes long to begin."""


def sounds(
    engine: str, voices: Sequence[str], seed: int = 0
) -> Iterator[tuple[str, Callable[[], bytes], tuple[str, ...]]]:
    """Each (path, what speaks it as a WAV file, AudioSet names) of voices "language:voice", every phrase once.

    The path is "voice/language-number.wav". Speed, and pitch where the program has one, differ from
    sound to sound.
    """
    for voice in voices:
        language, _, name = voice.partition(":")
        for number, phrase in enumerate(_paragraphs(PHRASES[language], AT_ONCE[engine])):
            path = f"{name}/{language}-{number:02d}.wav"
            rng = np.random.default_rng([seed, zlib.crc32(f"{engine}/{path}".encode())])
            speed, pitch = float(np.exp(rng.uniform(-0.25, 0.25))), float(rng.uniform(0.35, 0.65))
            say = partial(_SPEAKERS[engine], language, name, phrase, round(speed, 3), round(pitch, 3))
            yield path, say, ("Speech", "Speech synthesizer")


def _paragraphs(phrases: Sequence[str], size: int) -> list[str]:
    return [" ".join(phrases[first : first + size]) for first in range(0, len(phrases), size)]


def _espeak(language: str, voice: str, phrase: str, speed: float, pitch: float) -> bytes:
    """Voices are espeak-ng's names with a variant, such as en-gb+f2."""
    rate, high = str(round(165 * speed)), str(round(100 * pitch))
    return output(
        ["espeak-ng", "-v", voice, "-s", rate, "-p", high, "--stdout"], text=phrase.encode(), timeout_s=TIMEOUT_S
    )


def _flite(language: str, voice: str, phrase: str, speed: float, pitch: float) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        sound = Path(folder, "said.wav")
        stretch = f"duration_stretch={1 / speed:.3f}"
        output(["flite", "-voice", voice, "--setf", stretch, "-t", phrase, "-o", str(sound)], timeout_s=TIMEOUT_S)
        return sound.read_bytes()


def _festival(language: str, voice: str, phrase: str, speed: float, pitch: float) -> bytes:
    """Speaks with one of festival's voices, given without its leading "voice_"."""
    with tempfile.TemporaryDirectory() as folder:
        sound, text = Path(folder, "said.wav"), Path(folder, "text")
        text.write_bytes(phrase.encode(ENCODINGS.get(language, "utf-8"), "ignore"))
        setting = f"(begin (voice_{voice}) (Parameter.set 'Duration_Stretch {1 / speed:.3f}))"
        output(["text2wave", "-eval", setting, "-o", str(sound), str(text)], timeout_s=TIMEOUT_S)
        return sound.read_bytes()


_SPEAKERS: dict[str, Callable[[str, str, str, float, float], bytes]] = {
    "espeak-ng": _espeak,
    "flite": _flite,
    "festival": _festival,
}
