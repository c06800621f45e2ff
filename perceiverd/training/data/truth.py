"""What a window's labels say about all 527 AudioSet labels: present, absent or unknown.

Knows the ontology and which sounds often come together. Knows nothing of audio.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from perceiverd.core.labels import ontology

CLASSES = 527

Truth = NDArray[np.int8]
"""(527,): 1 is present, 0 is certainly absent, -1 is unknown."""

# Everyday sounds that often share a recording or a cause: rain in thunder, birds in the wind, the engine of a
# helicopter. If one of them is present, that is no evidence against the others.
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

UNTAUGHT = (
    "Male speech, man speaking",
    "Female speech, woman speaking",
    "Male singing",
    "Female singing",
    "Battle cry",
    "Funny music",
)
"""The labels that the teacher lacks. They count as absent if a sound's labels name all that is audible in it."""
NEAR_VOICES = frozenset(
    "Laughter|Baby cry, infant cry|Cough|Sneeze|Breathing|Snoring|Clapping|Church bell|Toothbrush|Screaming".split("|")
)
"""Sounds whose recordings may also contain a voice."""

# The labels that may fit the noise of an empty room or of a bad microphone. The noises of `room_noise` have no other.
ROOM_NOISE = (
    "Silence|Noise|Environmental noise|White noise|Pink noise|Static|Hum|Mains hum|Hiss|Buzz|Throbbing|Vibration|"
    "Rumble|Inside, small room|Inside, large room or hall|Inside, public space|Outside, urban or manmade|"
    "Outside, rural or natural|Field recording|Wind noise (microphone)|Air conditioning|Mechanical fan|Mechanisms|"
    "Sine wave|Distortion|Sidetone|Clicking|Crackle|Tick|Cacophony|Reverberation|Echo|Pulse"
).split("|")


class TruthBuilder:
    """Builds the truth of windows from the names of their labels."""

    def __init__(self, everyday: frozenset[str]) -> None:
        """`everyday`: the labels that exclude each other, because each is the whole content of its clips."""
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

    def of(self, present: Iterable[str], possible: Iterable[str], exclusive: bool) -> Truth:
        """The truth of a window; `exclusive`: its labels name every everyday sound in it.

        The ancestors of a present label are present too. Its descendants are unknown, and so is what often comes with
        it. The other everyday labels are absent if the window is exclusive.
        """
        sure, unsure = ({self.index[name] for name in names} for names in (present, possible))
        both = sure | unsure
        out = np.full(CLASSES, -1, np.int8)
        if exclusive:
            implied = self._with_ancestors(both)
            candidates = self._everyday | self._excluded_untaught(both, implied)
            related = {i for i in candidates if (self._ancestors[i] | self._together[i]) & both}
            out[list(candidates - implied - related)] = 0
        out[list(self._with_ancestors(sure))] = 1
        return out

    def silence(self) -> Truth:
        """The truth of a window without an audible sound: Silence is present, all else is absent."""
        out = np.zeros(CLASSES, np.int8)
        out[self.index["Silence"]] = 1
        return out

    def room_noise(self) -> Truth:
        """The truth of an empty room's noise: the labels of such noise are unknown, all else is absent."""
        out = np.zeros(CLASSES, np.int8)
        out[list(self._with_ancestors({self.index[name] for name in ROOM_NOISE}))] = -1
        return out

    def _with_ancestors(self, own: set[int]) -> frozenset[int]:
        return frozenset(own).union(*(self._ancestors[index] for index in own))

    def _excluded_untaught(self, present: set[int], implied: frozenset[int]) -> frozenset[int]:
        """The labels that the teacher lacks and that these sounds rule out, unless they are among the sounds."""
        if present & {self.index[name] for name in NEAR_VOICES}:
            return frozenset()
        music = self.index["Music"] in implied
        return frozenset(self.index[name] for name in UNTAUGHT if not (music and name == "Funny music"))
