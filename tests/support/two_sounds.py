"""An experiment with two new sounds: `perceiverd train fit` on 40 clips of sounds that AudioSet has no labels for.

`environmental` has recordings of everyday sounds. Two of its classes, opening a can and sipping a drink, are not among
AudioSet's 527. Each fold is held out in turn, by recording, and all clips of its 50 classes are tagged. The other 48
classes show false alarms of the new labels, and whether the old labels got worse. This is not a test: it takes minutes
and needs the recordings. Run it in the repository's folder, with clips.csv and its files in FOLDER:

    python tests/support/two_sounds.py FOLDER --model ear-and-eye-small --out /tmp/two-sounds
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

NEW = {"Can opening": "Can opening", "Drinking - sipping": "Sipping a drink"}
"""Class in clips.csv, and the label that a user might give it."""
EACH = 20
"""Clips of each new sound."""
CLIP_S, PIECE_S = 5.0, 2.5
"""Length of the collection's clips, and of the pieces that a user would cut from them."""
FOLDS = ("1", "2", "3")

Row = Mapping[str, str]


def pieces(rows: Iterable[Row], folder: Path) -> list[tuple[str, float, float, str]]:
    """EACH clips of each new sound: first halves, then second halves of its recordings."""
    rows, found = list(rows), []
    for name, label in NEW.items():
        files = [str(folder / row["file"]) for row in rows if row["class"] == name]
        starts = [0.0, CLIP_S - PIECE_S]
        cut = [(file, start, start + PIECE_S, label) for start in starts for file in files]
        found += cut[:EACH]
    return found


def whole(rows: Iterable[Row], folder: Path) -> list[tuple[str, float, float, str]]:
    """Every clip, with AudioSet's name of its class, or the label of the new one."""
    named = [(row, NEW.get(row["class"]) or row["audioset_name"].rpartition("->")[2].strip()) for row in rows]
    return [(str(folder / row["file"]), 0.0, CLIP_S, name) for row, name in named]


def write(path: Path, lines: Iterable[tuple[str, float, float, str]]) -> None:
    """A manifest."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["file", "start_s", "end_s", "labels"])
        table.writerows(lines)


def main() -> None:
    """Fit without each fold, and print the quality on the fold's clips."""
    parser = argparse.ArgumentParser(description="Teach a model two new sounds, and measure it on held-out recordings.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="ear-and-eye-small")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--folds", nargs="*", default=FOLDS, choices=FOLDS, help="Folds to hold out, one after the other."
    )
    arguments, more = parser.parse_known_args()  # the other options go to `perceiverd train fit`
    with (arguments.folder / "clips.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    folder = arguments.folder.resolve()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for fold in arguments.folds:
        clips, held = arguments.out / f"without-{fold}.csv", arguments.out / f"fold-{fold}.csv"
        write(clips, pieces([row for row in rows if row["fold"] != fold], folder))
        write(held, whole([row for row in rows if row["fold"] == fold], folder))
        command = ["--manifest", clips, "--held-out", held, "--from", arguments.model]
        out = ["--out", arguments.out / f"without-{fold}", "--cache", arguments.out / "cache"]
        print(f"\n## Fold {fold} held out\n", flush=True)
        subprocess.run(
            [sys.executable, "-m", "perceiverd", "train", "fit", *map(str, [*command, *out]), *more], check=True
        )


if __name__ == "__main__":
    main()
