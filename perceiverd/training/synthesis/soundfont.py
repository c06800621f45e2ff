"""Instruments, rendered from soundfonts by FluidSynth. Their labels are exact; no figure counts them as real.

The same soundfont, FluidSynth release and seed give the same bytes.
"""

import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from perceiverd.training.synthesis import midi
from perceiverd.training.synthesis.programs import output

RENDER_HZ = 48_000
"""Three times the corpus's rate, so that the synthesiser's aliasing is above the band that the corpus keeps."""
LOUDNESS = 0.35
"""FluidSynth's gain; with it the loudest chords of the loudest font stay below full scale."""
PIECES = 6
"""Pieces of an instrument with one program. If it has several, each has fewer pieces, but at least two."""
TIMEOUT_S = 120


def sounds(font: Path, name: str, seed: int = 0) -> Iterator[tuple[str, Callable[[], bytes], tuple[str, ...]]]:
    """(path, function that renders a WAV file, AudioSet names) for each piece that the font has a preset for.

    The path is "instrument/program-number.wav". Each font has other pieces.
    """
    available = presets(font.read_bytes())
    for instrument in midi.INSTRUMENTS:
        bank = 128 if instrument.drum else 0
        programs = [program for program in instrument.programs if (bank, program) in available]
        for program in programs:
            for number in range(max(PIECES // len(programs), 2)):
                path = f"{instrument.name}/{program:03d}-{number}.wav"
                rng = np.random.default_rng([seed, zlib.crc32(f"{name}/{path}".encode())])
                yield path, partial(play, font, midi.piece(instrument, program, rng)), instrument.labels


def play(font: Path, midi: bytes) -> bytes:
    """A piece as a 48 kHz WAV file, without echo or chorus. Raises FetchError."""
    with tempfile.TemporaryDirectory() as folder:
        score, sound = Path(folder, "piece.mid"), Path(folder, "piece.wav")
        score.write_bytes(midi)
        options = ["synth.cpu-cores=1", "synth.dynamic-sample-loading=1", "synth.reverb.active=0"]
        options += ["synth.chorus.active=0", f"synth.gain={LOUDNESS}", f"synth.sample-rate={RENDER_HZ}"]
        options += ["audio.file.format=s16", "audio.file.type=wav", f"audio.file.name={sound}"]
        switches = [item for option in options for item in ("-o", option)]
        command = ["fluidsynth", "-n", "-i", "-q", *switches, "-F", str(sound), str(font), str(score)]
        output(command, timeout_s=TIMEOUT_S)
        return sound.read_bytes()


def presets(font: bytes) -> set[tuple[int, int]]:
    """(bank, program) of each preset in a SoundFont 2 file."""
    at = font.find(b"phdr")
    size = struct.unpack_from("<I", font, at + 4)[0]
    records = [struct.unpack_from("<20sHH", font, at + 8 + start) for start in range(0, size - 38, 38)]
    return {(bank, program) for _, program, bank in records}
