"""How well a bell is found after five rings: `python -m tests.support.taught_bells DATA`.

Each bell is taught with five rings in one hour of a busy room, and looked for with twenty rings in another hour, at
other levels, in a room that echoes. The last lines have the sums. `busy_hours` says what DATA must have.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import scipy.signal

from perceiverd.core.labels import Label
from perceiverd.core.media import NS_PER_S
from perceiverd.training.corrections.learning import LearntClip
from tests.support.busy_hours import RATE_HZ, Bench, Hour, Sound, arguments, heading, loudness

BELLS = ("0807", "0808", "0809", "0812", "0344", "2108", "2109", "0151")
"""Door bells, telephones and a desk bell in `sounds`."""
RINGS, HELD = 5, 20
TAUGHT_DBFS, TAUGHT_SPREAD_DB = -28.0, (-3.0, 3.0)
HELD_SPREAD_DB = (-8.0, 6.0)
LONGEST_S = 3
ECHO_S, DECAY_S, ECHO = 0.3, 0.06, 0.15
OVERLAP = 0.5
"""A window shows a ring if it has this share of it, or if the ring fills this share of the window."""


@dataclass(frozen=True, eq=False)
class Ring:
    """A ring in its background."""

    sound: Sound
    begin_s: float
    end_s: float
    above_db: float
    """How much louder it is than the background beside it."""


def echoes(rng: np.random.Generator) -> Sound:
    """The impulse response of a small room."""
    at_s = np.arange(int(ECHO_S * RATE_HZ)) / RATE_HZ
    response = rng.normal(0, 1, len(at_s)) * np.exp(-at_s / DECAY_S) * ECHO
    response[0] = 1
    return response.astype(np.float32)


def ring(bell: Sound, hour: Hour, rng: np.random.Generator, room: Sound, level_db: float, around_s: float) -> Ring:
    """The bell somewhere in an hour, with this much of the hour before and after it."""
    heard = scipy.signal.fftconvolve(bell, room)[: len(bell) + 3000].astype(np.float32)
    heard *= 10 ** (level_db / 20) / loudness(heard)
    first = int(around_s * RATE_HZ)
    sound = hour.cut(len(heard) + 2 * first, rng)
    place = slice(first, first + len(heard))
    above_db = level_db - 20 * np.log10(loudness(sound[place]))
    sound[place] += heard
    return Ring(np.clip(sound, -1, 1), around_s, around_s + len(heard) / RATE_HZ, float(above_db))


def example(bench: Bench, label: Label, taught: Ring, seed: int) -> LearntClip:
    """A ring as `perceiverd teach` marks it."""
    begin_ns, end_ns = taught.begin_s * NS_PER_S, taught.end_s * NS_PER_S
    shown = [
        each
        for each in bench.windows(taught.sound, 0.25)
        if min(end_ns, each.end_ns) - max(begin_ns, each.start_ns)
        >= OVERLAP * min(end_ns - begin_ns, bench.card.geometry.window_ns)
    ]
    return bench.clip("example", label, taught.sound, shown, seed)


def main() -> None:
    given = arguments(__doc__)
    bench = Bench.of(given.data, given.model)
    print(heading(bench), flush=True)
    label = Label(len(bench.card.labels), "user/bell", "Bell at home")
    labels = (*bench.card.labels, label)
    sums = np.zeros(6, int)
    for name in BELLS:
        began_s = time.perf_counter()
        rng = np.random.default_rng(int(name))
        bell = bench.sound(bench.data / "sounds" / f"{name}.opus")[: LONGEST_S * RATE_HZ]
        room = echoes(rng)
        taught = [
            ring(bell, bench.taught, rng, room, TAUGHT_DBFS + rng.uniform(*TAUGHT_SPREAD_DB), 2) for _ in range(RINGS)
        ]
        rows = bench.learner.learn([example(bench, label, each, seed) for seed, each in enumerate(taught)], labels)
        model = bench.corrected(labels, rows)
        held = [ring(bell, bench.held, rng, room, TAUGHT_DBFS + rng.uniform(*HELD_SPREAD_DB), 3) for _ in range(HELD)]
        found = np.array([label.index in bench.events(model, bench.vectors(each.sound)) for each in held])
        loud = np.array([each.above_db >= 0 for each in held])
        false = bench.events_of_hour(model, {label.index})
        sums += [found.sum(), (found & loud).sum(), loud.sum(), false, *rows[0].left_out]
        print(
            f"{name}: {found.sum()} of {HELD} found, {(found & loud).sum()} of {loud.sum()} as loud as the room, "
            f"{false} false alarms, {rows[0].left_out[0]} of {rows[0].left_out[1]} when left out, "
            f"{time.perf_counter() - began_s:.0f} s",
            flush=True,
        )
    found_, loud_, of_loud, false, left_out, tried = sums.tolist()
    print(f"{found_} of {HELD * len(BELLS)} rings found; {loud_} of {of_loud} as loud as the room;")
    print(f"{false} false alarms in {len(BELLS)} hours; {left_out} of {tried} when left out")


if __name__ == "__main__":
    main()
