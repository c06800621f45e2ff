"""Records of a file that never was, for tests of what is done with records."""

from pathlib import Path

import numpy as np

from perceiverd.core.labels import ontology
from perceiverd.core.media import NS_PER_S
from perceiverd.model.card import Calibration, Card
from perceiverd.offline.writers.writer import FileFacts, Piece, TaggedWindow
from perceiverd.pipeline.windower import Window
from perceiverd.wire.messages import Model, Tag, best
from perceiverd.wire.records import FileEvent, FileExplanation, FileHeader, FileScores, FileSummary
from tests.support.clips import GEOMETRY

MODEL = Model("tiny", "f6e9")
DOG = Tag("/m/0bt9lr", 74, "Dog", 0.912345)
BARK = Tag("/m/05tny_", 75, "Bark", 0.5)
HEADER = FileHeader(
    file="a b.mp4",
    version="0.1.0",
    model=MODEL,
    window_s=1.28,
    hop_s=0.5,
    modalities=("audio",),
    length_s=None,
)


def scores(file: str = "a b.mp4", start_s: float = 0.64, labels: tuple[Tag, ...] = (DOG, BARK)) -> FileScores:
    """The scores of a window of 1.28 s that has only audio."""
    end_s = round(start_s + 1.28, 3)
    return FileScores(file=file, start_s=start_s, end_s=end_s, modalities=("audio",), model=MODEL, labels=labels)


def event(name: str = "Dog", start_s: float = 0.64, end_s: float = 3.2, file: str = "a b.mp4") -> FileEvent:
    """An event of a label of this name."""
    return FileEvent(
        file=file,
        id=f"74-{start_s * 1000:.0f}",
        mid="/m/0bt9lr",
        index=74,
        name=name,
        start_s=start_s,
        end_s=end_s,
        duration_s=round(end_s - start_s, 3),
        peak=0.912345,
        mean=0.8,
        modalities=("audio",),
        continues=None,
        explanation=FileExplanation(score=0.2, on=0.5, off=0.25, windows=4, reason="faded"),
        model=MODEL,
    )


def summary(file: str = "a b.mp4", windows: int = 7) -> FileSummary:
    """The summary of a file."""
    return FileSummary(file=file, windows=windows, end_s=4.48, labels=(DOG,), model=MODEL)


def card() -> Card:
    """A card with AudioSet's labels; its folder does not exist."""
    labels = ontology().labels
    return Card("tiny", Path("/nowhere"), "CC0-1.0", "f6e9", GEOMETRY, labels, (Calibration(),) * len(labels))


def pieces(windows: int = 7, file: str = "a b.mp4", seed: int = 0) -> list[Piece]:
    """What tagging a file could yield: windows 0.5 s apart with random scores, and two events."""
    rng, labels = np.random.default_rng(seed), ontology().labels
    found: list[Piece] = [FileFacts(HEADER, file, card(), None)]
    for number in range(windows):
        start_ns = number * NS_PER_S // 2
        window = Window(start_ns, start_ns + NS_PER_S, np.zeros(16_000, np.float32), None)
        each = rng.random(len(labels), np.float32)
        found.append(TaggedWindow(window, each, scores(file, start_ns / NS_PER_S, best(each, labels, 5))))
    return [*found, event(), event("Music", 1.0, 2.5), summary(file, windows)]
