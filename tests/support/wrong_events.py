"""What "this was no dog" does to the model: `python -m tests.support.wrong_events DATA`.

Real recordings that have a wrong event are corrected one by one. Each line says whether the recording is silent now,
whether the same sound is in other backgrounds, and how many real recordings of the label are still found.
`busy_hours` says what DATA must have.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perceiverd.core.labels import Label
from perceiverd.pipeline.rules import lineage
from perceiverd.training.corrections.replay import Classifier
from perceiverd.training.corrections.rows import Vectors
from tests.support.busy_hours import RATE_HZ, Bench, Sound, arguments, heading, table

CLASSES = {
    **{name: name for name in ("Dog", "Cat", "Crow", "Pig", "Sheep", "Siren", "Frog", "Snoring", "Clapping")},
    "Crying baby": "Baby cry, infant cry",
    "Glass breaking": "Shatter",
    "Door knock": "Knock",
    "Coughing": "Cough",
    "Sneezing": "Sneeze",
    "Rooster": "Chicken, rooster",
    "Church bells": "Church bell",
    "Car horn": "Vehicle horn, car horn, honking",
    "Footsteps": "Walk, footsteps",
    "Laughing": "Laughter",
    "Cow": "Cattle, bovinae",
}
"""Classes of `environmental`, and their labels."""
DOGS = 3
"""Wrong events of Dog; of every other label one."""
AGAIN, AGAIN_S, AGAIN_DB = 6, 5, (-6.0, 3.0)
"""Repetitions in other backgrounds, their longest time, and how much louder than the recording."""
AROUND_S = 1.5
LONGEST_S = 8


@dataclass(frozen=True, eq=False)
class WrongEvent:
    """A recording of something else that has an event of a label."""

    file: str
    what: str
    """What it really is."""
    sound: Sound


def padded(sound: Sound) -> Sound:
    """With half a second before it and a second after it."""
    return np.pad(sound, (RATE_HZ // 2, RATE_HZ))


def family(bench: Bench, label: Label) -> set[int]:
    """The label and those below it."""
    above, below = lineage(bench.card.labels)
    return {label.index, *below[above == label.index].tolist()}


def again(bench: Bench, sound: Sound) -> list[Vectors]:
    """The sound in places of the held-out hour."""
    rng, found = np.random.default_rng(7), []
    sound, first = sound[: AGAIN_S * RATE_HZ], int(AROUND_S * RATE_HZ)
    for _ in range(AGAIN):
        place = bench.held.cut(len(sound) + 2 * first, rng)
        place[first : first + len(sound)] += sound * 10 ** (rng.uniform(*AGAIN_DB) / 20)
        found.append(bench.vectors(np.clip(place, -1, 1)))
    return found


def corrected(bench: Bench, label: Label, wrong: WrongEvent) -> Classifier:
    """The model after "this was no ..."."""
    sound = padded(wrong.sound[: LONGEST_S * RATE_HZ])
    windows = bench.windows(sound, 0.25)
    scores = bench.old.scores(bench.embedder.vectors(windows))[:, sorted(family(bench, label))].max(axis=1)
    shown = [window for window, score in zip(windows, scores, strict=True) if score >= scores.max() / 2]
    rows = bench.learner.learn([bench.clip("wrong", label, sound, shown, 1)], bench.card.labels)
    return bench.corrected(bench.card.labels, rows)


def main() -> None:
    given = arguments(__doc__)
    bench = Bench.of(given.data, given.model)
    print(heading(bench), flush=True)
    labels = {label.name: label for label in bench.card.labels}
    rows = {row["file"]: row["class"] for row in table(bench.data / "environmental/clips.csv")}
    heard = {file: bench.vectors(padded(bench.sound(bench.data / "environmental" / file))) for file in rows}
    before = {file: bench.events(bench.old, vectors) for file, vectors in heard.items()}
    sums = {"Dog": np.zeros(6, int), "others": np.zeros(6, int)}
    for name, label_name in CLASSES.items():
        wanted, label = family(bench, labels[label_name]), labels[label_name]
        files = [file for file, what in rows.items() if what != name and before[file] & wanted]
        wrong = [WrongEvent(file, rows[file], bench.sound(bench.data / "environmental" / file)) for file in files]
        if name == "Dog":
            wrong += _no_dogs(bench, wanted)
        for each in wrong[: DOGS if name == "Dog" else 1]:
            model = corrected(bench, label, each)
            own = bool(bench.events(model, bench.vectors(padded(each.sound))) & wanted)
            places = [vectors for vectors in again(bench, each.sound) if bench.events(bench.old, vectors) & wanted]
            loud = sum(bool(bench.events(model, vectors) & wanted) for vectors in places)
            true = [file for file, what in rows.items() if what == name and before[file] & wanted]
            lost = sum(not bench.events(model, heard[file]) & wanted for file in true)
            sums["Dog" if name == "Dog" else "others"] += [1, not own, len(places), len(places) - loud, len(true), lost]
            hour = [bench.events_of_hour(classifier, wanted) for classifier in (bench.old, model)]
            print(
                f"{label_name}: {each.file} ({each.what}) is {'not silent' if own else 'silent'}, "
                f"{len(places) - loud} of {len(places)} repetitions silent, {lost} of {len(true)} real ones lost, "
                f"{hour[1]} events in another hour, {hour[0]} before",
                flush=True,
            )
    for which, (events, silent, places_, quiet, true_, lost_) in sums.items():
        print(f"{which}: {silent} of {events} recordings silent, {quiet} of {places_} repetitions silent,", end=" ")
        print(f"{lost_} of {true_} real ones lost")


def _no_dogs(bench: Bench, wanted: set[int]) -> list[WrongEvent]:
    """Recordings of `sounds` without a dog that have an event of one."""
    found = []
    for row in table(bench.data / "sounds/sounds.tsv"):
        if int(row["file"][:4]) % 4 or any(dog in row["labels"] for dog in ("Dog", "Bark", "Growl", "Howl")):
            continue
        sound = bench.sound(bench.data / "sounds" / row["file"])
        if bench.events(bench.old, bench.vectors(padded(sound))) & wanted:
            found.append(WrongEvent(row["file"], row["labels"], sound))
            if len(found) == DOGS:
                break
    return found


if __name__ == "__main__":
    main()
