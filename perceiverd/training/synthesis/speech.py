"""Synthetic voices: our own sentences, spoken by espeak-ng, flite and festival.

The same release of the program and the same seed give the same bytes. This module does not know whether a voice is a
man's or a woman's; the recipe says so if the voice's documentation does.
"""

import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from perceiverd.training.synthesis.programs import output
from perceiverd.training.synthesis.sentences import SENTENCES

TIMEOUT_S = 60
ENCODINGS = {"cs": "iso-8859-2", "fi": "iso-8859-1", "it": "iso-8859-1", "ca": "iso-8859-15"}
"""Festival reads bytes. These voices expect an older encoding of their language; the others expect UTF-8."""
AT_ONCE = {"espeak-ng": 1, "flite": 1, "festival": 8}
"""Sentences in one sound. Festival speaks several, because it takes long to start."""


def sounds(
    engine: str, voices: Sequence[str], seed: int = 0
) -> Iterator[tuple[str, Callable[[], bytes], tuple[str, ...]]]:
    """(path, function that renders a WAV file, AudioSet names) for each voice "language:voice" and sentence.

    The path is "voice/language-number.wav". Each sound has its own speed, and its own pitch if the program can set it.
    """
    for voice in voices:
        language, _, name = voice.partition(":")
        for number, text in enumerate(_paragraphs(SENTENCES[language], AT_ONCE[engine])):
            path = f"{name}/{language}-{number:02d}.wav"
            rng = np.random.default_rng([seed, zlib.crc32(f"{engine}/{path}".encode())])
            speed, pitch = float(np.exp(rng.uniform(-0.25, 0.25))), float(rng.uniform(0.35, 0.65))
            render = partial(_SPEAKERS[engine], language, name, text, round(speed, 3), round(pitch, 3))
            yield path, render, ("Speech", "Speech synthesizer")


def _paragraphs(sentences: Sequence[str], size: int) -> list[str]:
    return [" ".join(sentences[first : first + size]) for first in range(0, len(sentences), size)]


def _espeak(language: str, voice: str, text: str, speed: float, pitch: float) -> bytes:
    """A voice is one of espeak-ng's names with a variant, such as en-gb+f2."""
    rate, high = str(round(165 * speed)), str(round(100 * pitch))
    return output(
        ["espeak-ng", "-v", voice, "-s", rate, "-p", high, "--stdout"], text=text.encode(), timeout_s=TIMEOUT_S
    )


def _flite(language: str, voice: str, text: str, speed: float, pitch: float) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        sound = Path(folder, "speech.wav")
        stretch = f"duration_stretch={1 / speed:.3f}"
        output(["flite", "-voice", voice, "--setf", stretch, "-t", text, "-o", str(sound)], timeout_s=TIMEOUT_S)
        return sound.read_bytes()


def _festival(language: str, voice: str, text: str, speed: float, pitch: float) -> bytes:
    """A voice is one of festival's names without the leading "voice_"."""
    with tempfile.TemporaryDirectory() as folder:
        sound, file = Path(folder, "speech.wav"), Path(folder, "text")
        file.write_bytes(text.encode(ENCODINGS.get(language, "utf-8"), "ignore"))
        setting = f"(begin (voice_{voice}) (Parameter.set 'Duration_Stretch {1 / speed:.3f}))"
        output(["text2wave", "-eval", setting, "-o", str(sound), str(file)], timeout_s=TIMEOUT_S)
        return sound.read_bytes()


_SPEAKERS: dict[str, Callable[[str, str, str, float, float], bytes]] = {
    "espeak-ng": _espeak,
    "flite": _flite,
    "festival": _festival,
}
