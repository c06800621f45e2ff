"""Short generated pieces of music for one instrument each, as MIDI files.

A piece is a function of its seed alone. Knows the instruments of General MIDI and their AudioSet labels. Knows nothing
of soundfonts.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

TICKS_PER_S = 960
"""480 ticks a quarter at MIDI's default tempo of 120 quarters a minute. A piece has its tempo in its times."""
SECONDS = 16.0
"""Length of a piece; the last note may end a little later."""
DRUMS = 9
"""The MIDI channel of drums."""


@dataclass(frozen=True)
class Note:
    """One key, pressed and released."""

    start_s: float
    length_s: float
    key: int
    velocity: int
    channel: int = 0


@dataclass(frozen=True)
class Instrument:
    """Programs of General MIDI that have the same AudioSet label."""

    name: str
    programs: tuple[int, ...]
    """In bank 0; for drums in bank 128."""
    labels: tuple[str, ...]
    low: int = 48
    """Lowest key."""
    high: int = 84
    """Highest key."""
    styles: str = "scale arpeggio riff long repeat"
    """The styles it is played in, keys of STYLES. "chords" and "strum" need an instrument with several voices."""
    keys: tuple[int, ...] = ()
    """The keys of this drum in a drum kit; if empty, all keys in a rhythm."""
    drum: bool = False


_KEYS = "scale arpeggio chords chords riff repeat"
_PLUCKED = "scale arpeggio strum strum riff repeat"
_BLOWN = "scale arpeggio riff riff long repeat"
_STRUCK = "scale arpeggio riff repeat roll"

INSTRUMENTS = (
    Instrument("piano", (0, 1, 3), ("Piano",), 28, 96, _KEYS),
    Instrument("electric-piano", (4, 5), ("Electric piano",), 36, 88, _KEYS),
    Instrument("harpsichord", (6,), ("Harpsichord",), 36, 84, _KEYS),
    Instrument("glockenspiel", (9,), ("Glockenspiel",), 72, 103, _STRUCK),
    Instrument("vibraphone", (11,), ("Vibraphone",), 53, 89, _STRUCK + " chords"),
    Instrument("marimba", (12, 13), ("Marimba, xylophone",), 50, 92, _STRUCK),
    Instrument("tubular-bells", (14,), ("Tubular bells",), 60, 77, "scale arpeggio long"),
    Instrument("organ", (16, 17, 18, 19), ("Organ",), 36, 86, _KEYS + " long"),
    Instrument("accordion", (21, 23), ("Accordion",), 48, 88, _KEYS + " long"),
    Instrument("harmonica", (22,), ("Harmonica",), 60, 90, "scale arpeggio chords riff long"),
    Instrument("acoustic-guitar", (24, 25), ("Acoustic guitar",), 40, 79, _PLUCKED),
    Instrument("electric-guitar", (26, 27, 29, 30), ("Electric guitar",), 40, 81, _PLUCKED),
    Instrument("bass-guitar", (33, 34, 36), ("Bass guitar",), 28, 52, "scale arpeggio riff riff repeat"),
    Instrument("violin", (40, 110), ("Violin, fiddle",), 55, 96, _BLOWN),
    Instrument("cello", (42,), ("Cello",), 36, 69, _BLOWN),
    Instrument("bowed", (41, 43, 44, 48, 49), ("Bowed string instrument",), 40, 86, _BLOWN + " chords"),
    Instrument("pizzicato", (45,), ("Pizzicato",), 40, 86, "scale arpeggio chords riff repeat"),
    Instrument("harp", (46,), ("Harp",), 36, 92, "arpeggio arpeggio scale strum"),
    Instrument("timpani", (47,), ("Timpani",), 38, 57, "repeat roll roll arpeggio"),
    Instrument("trumpet", (56, 59), ("Trumpet",), 55, 84, _BLOWN),
    Instrument("trombone", (57,), ("Trombone",), 40, 70, _BLOWN),
    Instrument("brass", (58, 61, 62), ("Brass instrument",), 36, 79, _BLOWN + " chords"),
    Instrument("french-horn", (60,), ("French horn",), 41, 74, _BLOWN),
    Instrument("saxophone", (64, 65, 66, 67), ("Saxophone",), 44, 82, _BLOWN),
    Instrument("woodwind", (68, 69, 70), ("Wind instrument, woodwind instrument",), 50, 82, _BLOWN),
    Instrument("clarinet", (71,), ("Clarinet",), 50, 86, _BLOWN),
    Instrument("flute", (73, 72), ("Flute",), 60, 93, _BLOWN),
    Instrument("synthesizer", (80, 81, 82, 84, 87, 88, 90, 95), ("Synthesizer",), 36, 88, _KEYS + " long"),
    Instrument("banjo", (105,), ("Banjo",), 48, 79, "arpeggio arpeggio riff strum"),
    Instrument("bagpipes", (109,), ("Bagpipes",), 57, 79, "drone"),
    Instrument("steelpan", (114,), ("Steelpan",), 55, 86, _STRUCK),
    Instrument("wood-block", (115,), ("Wood block",), 60, 84, "repeat roll"),
    Instrument("orchestra", (48,), ("Orchestra",), 48, 79, "orchestra"),
    Instrument("drum-kit", (0, 8, 16, 25, 32), ("Drum kit",), drum=True, styles="groove"),
    Instrument("drum-machine", (24, 25), ("Drum machine",), drum=True, styles="groove"),
    Instrument("bass-drum", (0, 8, 16), ("Bass drum",), drum=True, styles="beats", keys=(35, 36)),
    Instrument("snare-drum", (0, 8, 16, 40), ("Snare drum",), drum=True, styles="beats beats press", keys=(38, 40)),
    Instrument("drum-roll", (0, 8, 16), ("Drum roll", "Snare drum"), drum=True, styles="press", keys=(38,)),
    Instrument("tom", (0, 8, 16), ("Drum",), drum=True, styles="beats", keys=(41, 43, 45, 47, 48, 50)),
    Instrument("hi-hat", (0, 8, 16), ("Hi-hat",), drum=True, styles="beats", keys=(42, 44, 46)),
    Instrument("cymbal", (0, 8, 16), ("Cymbal",), drum=True, styles="beats", keys=(49, 51, 55, 57, 59)),
    Instrument("tambourine", (0,), ("Tambourine",), drum=True, styles="beats", keys=(54,)),
    Instrument("cowbell", (0,), ("Cowbell",), drum=True, styles="beats", keys=(56,)),
    Instrument("maraca", (0,), ("Maraca",), drum=True, styles="beats", keys=(70, 82)),
    Instrument("wood-blocks", (0,), ("Wood block",), drum=True, styles="beats", keys=(76, 77)),
    Instrument("congas", (0,), ("Drum",), drum=True, styles="beats", keys=(60, 61, 62, 63, 64)),
)

_SCALES = (
    (0, 2, 4, 5, 7, 9, 11),
    (0, 2, 3, 5, 7, 8, 10),
    (0, 2, 3, 5, 7, 9, 10),
    (0, 2, 4, 7, 9),
    (0, 3, 5, 6, 7, 10),
)
_ORCHESTRA = ((48, 48, 84), (61, 48, 72), (60, 48, 70), (73, 70, 93), (47, 38, 50), (71, 55, 84))
"""Program, lowest and highest key of each voice. The first voice is the instrument itself."""


class Player:
    """Plays one piece: an instrument with a random tempo, scale and loudness."""

    def __init__(self, instrument: Instrument, rng: np.random.Generator) -> None:
        self.rng = rng
        self.keys = instrument.keys
        self.beat_s = 60 / float(rng.uniform(70, 170))
        self.loudness = int(rng.integers(60, 116))
        scale, root = _SCALES[rng.integers(len(_SCALES))], int(rng.integers(12))
        self.scale = _within(scale, root, instrument.low, instrument.high)
        span = int(rng.integers(8, 20))  # a piece uses a part of the instrument's range
        first = int(rng.integers(max(len(self.scale) - span, 1)))
        self.scale = self.scale[first : first + span]
        self.legato = float(rng.uniform(0.4, 1.05))

    def note(self, start_s: float, length_s: float, key: int, *, channel: int = 0, accent: int = 0) -> Note:
        """A note, a little off the beat, near the loudness of the piece."""
        velocity = int(np.clip(self.loudness + accent + self.rng.normal(0, 8), 20, 127))
        late_s = float(np.clip(self.rng.normal(0, 0.008), -0.02, 0.02))
        return Note(max(start_s + late_s, 0), max(length_s, 0.03), int(key), velocity, channel)

    def walk(self, steps: Sequence[int], lengths: Sequence[float]) -> list[Note]:
        """Notes that go up and down the scale by these steps, with these lengths in beats, repeated to the end."""
        notes, at, time_s, turn = [], int(self.rng.integers(len(self.scale))), 0.0, 0
        while time_s < SECONDS:
            length_s = lengths[turn % len(lengths)] * self.beat_s
            at += steps[turn % len(steps)]
            if not 0 <= at < len(self.scale):
                at = int(self.rng.integers(len(self.scale)))
            notes.append(self.note(time_s, length_s * self.legato, self.scale[at], accent=8 if turn % 4 == 0 else 0))
            time_s += length_s
            turn += 1
        return notes

    def chord(self, size: int) -> list[int]:
        """`size` keys at random, each two steps of the scale above the last one."""
        first = int(self.rng.integers(max(len(self.scale) - 2 * size, 1)))
        return self.scale[first : first + 2 * size : 2]


def _within(scale: tuple[int, ...], root: int, low: int, high: int) -> list[int]:
    return [key for key in range(low, high + 1) if (key - root) % 12 in scale]


def _scale(player: Player) -> list[Note]:
    length = float(player.rng.choice([0.25, 0.5, 0.5, 1]))
    up = [1] * int(player.rng.integers(5, 9))
    return player.walk([*up, *(-step for step in up)], [length])


def _arpeggio(player: Player) -> list[Note]:
    turns = ([2, 2, 2, -6], [2, 2, -2, -2], [2, 2, 3, -3, -2, -2], [4, -2, 3, -2])
    return player.walk(turns[player.rng.integers(4)], [float(player.rng.choice([0.25, 0.5, 0.5]))])


def _riff(player: Player) -> list[Note]:
    """A short random melody with a random rhythm, repeated; the two may have different lengths."""
    size = int(player.rng.integers(5, 9))
    lengths = [float(length) for length in player.rng.choice([0.25, 0.5, 0.5, 0.75, 1, 1.5], size)]
    return player.walk([int(step) for step in player.rng.integers(-3, 4, size + int(player.rng.integers(2)))], lengths)


def _long(player: Player) -> list[Note]:
    player.legato = 0.95
    return player.walk([int(step) for step in player.rng.integers(-3, 4, 7)], [2, 4, 3])


def _repeat(player: Player) -> list[Note]:
    length = float(player.rng.choice([0.25, 0.25, 0.5]))
    return player.walk([0, 0, 0, 0, 0, 0, 0, int(player.rng.integers(-4, 5))], [length])


def _roll(player: Player) -> list[Note]:
    """Fast strokes on one or two keys that become louder."""
    notes, time_s = [], 0.0
    while time_s < SECONDS:
        keys = [player.scale[player.rng.integers(len(player.scale))] for _ in range(player.rng.integers(1, 3))]
        strokes = int(player.rng.integers(12, 40))
        for stroke in range(strokes):
            swell = int(30 * stroke / strokes) - 20
            notes.append(player.note(time_s, 0.1, keys[stroke % len(keys)], accent=swell))
            time_s += float(player.rng.uniform(0.06, 0.075))
        time_s += float(player.rng.uniform(0.2, 1.5))
    return notes


def _chords(player: Player) -> list[Note]:
    notes, time_s = [], 0.0
    progression = [player.chord(int(player.rng.integers(3, 5))) for _ in range(4)]
    length_s = player.beat_s * float(player.rng.choice([1, 2, 4]))
    while time_s < SECONDS:
        for chord in progression:
            notes += [player.note(time_s, length_s * player.legato, key) for key in chord]
            time_s += length_s
    return notes


def _strum(player: Player) -> list[Note]:
    """Chords whose keys start shortly after one another, alternately upwards and downwards."""
    notes, time_s = [], 0.0
    progression = [player.chord(int(player.rng.integers(4, 6))) for _ in range(4)]
    rhythm = [float(length) for length in player.rng.choice([0.5, 0.5, 1, 1, 1.5], 4)]
    while time_s < SECONDS:
        for chord in progression:
            for turn, length in enumerate(rhythm):
                apart_s = float(player.rng.uniform(0.008, 0.03))
                order = chord if turn % 2 == 0 else chord[::-1]
                notes += [
                    player.note(time_s + apart_s * place, length * player.beat_s, key)
                    for place, key in enumerate(order)
                ]
                time_s += length * player.beat_s
    return notes


def _drone(player: Player) -> list[Note]:
    """A melody over two long low notes."""
    held = [Note(0, SECONDS, player.scale[0] - 12, player.loudness), Note(0, SECONDS, player.scale[0], 70)]
    player.legato = 1.0
    return held + _riff(player)


def _orchestra(player: Player) -> list[Note]:
    """Strings, brass, horn, flute, timpani and clarinet over the same chords."""
    notes, time_s = [], 0.0
    length_s = player.beat_s * float(player.rng.choice([2, 4]))
    classes = {key % 12 for key in player.scale}
    while time_s < SECONDS:
        chord = {key % 12 for key in player.chord(3)} or classes
        for channel, (_, low, high) in enumerate(_ORCHESTRA):
            if channel and player.rng.random() < 0.3:
                continue
            keys = [key for key in range(low, high + 1) if key % 12 in chord]
            count = int(player.rng.choice([1, 2, 4]))
            chosen = player.rng.choice(keys, min(len(keys), 4 if channel == 0 else 1), replace=False)
            for turn in range(count):
                notes += [
                    player.note(time_s + turn * length_s / count, length_s / count * 0.95, key, channel=channel)
                    for key in chosen
                ]
        time_s += length_s
    return notes


def _beats(player: Player) -> list[Note]:
    """A rhythm on the keys of one drum."""
    steps = int(player.rng.choice([8, 12, 16]))
    pattern = player.rng.random(steps) < player.rng.uniform(0.25, 0.7)
    pattern[0] = True
    keys = player.rng.choice(player.keys, int(player.rng.integers(1, 3)))
    notes, time_s, step = [], 0.0, 0
    while time_s < SECONDS:
        if pattern[step % steps]:
            key = int(keys[player.rng.integers(len(keys))])
            notes.append(player.note(time_s, 0.2, key, channel=DRUMS, accent=10 if step % 4 == 0 else -6))
        time_s += player.beat_s / 4
        step += 1
    return notes


def _press(player: Player) -> list[Note]:
    """Drum rolls with pauses."""
    player.scale = [int(player.keys[0])]
    return [Note(one.start_s, 0.05, one.key, one.velocity, DRUMS) for one in _roll(player)]


def _groove(player: Player) -> list[Note]:
    """Bass drum, snare drum and a cymbal in bars of sixteen steps, with fills."""
    rng = player.rng
    kick = rng.random(16) < np.where(np.arange(16) % 4 == 0, 0.7, 0.18)
    snare = rng.random(16) < np.where(np.arange(16) % 8 == 4, 0.95, 0.06)
    every, ride = int(rng.choice([1, 2, 2, 4])), int(rng.choice([42, 42, 46, 51]))
    notes, time_s, step = [], 0.0, 0
    while time_s < SECONDS:
        place, bar = step % 16, step // 16
        struck = [36] * int(kick[place]) + [38] * int(snare[place]) + [ride] * int(place % every == 0)
        if bar % 4 == 3 and place >= 8:
            struck.append(int(rng.choice([38, 41, 43, 45, 47, 48])))
        if bar % 4 == 0 and place == 0:
            struck.append(49)
        notes += [player.note(time_s, 0.2, key, channel=DRUMS) for key in struck]
        time_s += player.beat_s / 4
        step += 1
    return notes


STYLES: dict[str, Callable[[Player], list[Note]]] = {
    "scale": _scale,
    "arpeggio": _arpeggio,
    "riff": _riff,
    "long": _long,
    "repeat": _repeat,
    "roll": _roll,
    "chords": _chords,
    "strum": _strum,
    "drone": _drone,
    "orchestra": _orchestra,
    "beats": _beats,
    "press": _press,
    "groove": _groove,
}


def piece(instrument: Instrument, program: int, rng: np.random.Generator) -> bytes:
    """A standard MIDI file of about 16 s, with one style, one tempo and one scale."""
    player = Player(instrument, rng)
    styles = instrument.styles.split()
    notes = STYLES[styles[rng.integers(len(styles))]](player)
    programs = {DRUMS: program} if instrument.drum else {0: program}
    if "orchestra" in styles:
        programs = {channel: voice[0] for channel, voice in enumerate(_ORCHESTRA)}
    return midi(notes, programs)


def midi(notes: Sequence[Note], programs: dict[int, int]) -> bytes:
    """Notes as a standard MIDI file with one track, which ends a second after the last note."""
    events: list[tuple[int, int, bytes]] = [(0, 0, bytes([0xC0 | c, program])) for c, program in programs.items()]
    for note in notes:
        start = round(note.start_s * TICKS_PER_S)
        end = round((note.start_s + note.length_s) * TICKS_PER_S)
        # At the same tick, keys are released before they are pressed again.
        events.append((start, 2, bytes([0x90 | note.channel, note.key, note.velocity])))
        events.append((max(end, start + 1), 1, bytes([0x80 | note.channel, note.key, 0])))
    track, last = b"", 0
    for tick, _, message in sorted(events):
        track += _variable(tick - last) + message
        last = tick
    track += _variable(TICKS_PER_S) + b"\xff\x2f\x00"
    head = struct.pack(">4sIHHH", b"MThd", 6, 0, 1, TICKS_PER_S // 2)
    return head + struct.pack(">4sI", b"MTrk", len(track)) + track


def _variable(number: int) -> bytes:
    """A number in MIDI's variable length: seven bits in each byte; the high bit is set in all but the last."""
    out = bytes([number & 0x7F])
    while number := number >> 7:
        out = bytes([0x80 | number & 0x7F]) + out
    return out
