"""The folder of a fitted model: weights, labels, calibration and a README.md that describes its origin."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from perceiverd.core.labels import Label
from perceiverd.model.card import CALIBRATION_FILE, Card
from perceiverd.model.checkpoint import save_model
from perceiverd.model.perceiver import Perceiver
from perceiverd.training.distill import rehearsal
from perceiverd.training.finetune.task import FitTask

THRESHOLD = 0.4
"""Of a new label. It is low because rehearsal outweighs the label's own clips, so its scores are low."""


def write(task: FitTask, network: Perceiver) -> None:
    """Write the model. Calibration and rehearsal vectors of the old model are copied if they still hold."""
    out, start = task.out, task.start
    out.mkdir(parents=True, exist_ok=True)
    if start:
        _copy_rehearsal(task, start)
        (out / CALIBRATION_FILE).write_text(calibration_table(start, task.clips.new), encoding="utf-8")
    save_model(out, network, task.geometry, task.labels, name=out.name, licence=task.weights_licence)
    (out / "README.md").write_text(description(task), encoding="utf-8")


def _copy_rehearsal(task: FitTask, start: Card) -> None:
    """The vectors stay valid as long as nothing before the last layer has changed."""
    bank: Path = start.folder / rehearsal.REHEARSAL_FILE
    if not task.whole and bank.exists():
        shutil.copyfile(bank, task.out / rehearsal.REHEARSAL_FILE)


def calibration_table(start: Card, new: Sequence[Label]) -> str:
    """The calibration.tsv of the old model, with a line for each new label."""
    path = start.folder / CALIBRATION_FILE
    table = path.read_text(encoding="utf-8") if path.exists() else "mid\tscale\tshift\tthreshold\n"
    columns = table.partition("\n")[0].split("\t")
    for label in new:
        cells = {"mid": label.mid, "name": label.name, "scale": "1", "shift": "0", "threshold": f"{THRESHOLD:g}"}
        table += "\t".join(cells.get(column, "") for column in columns) + "\n"
    return table


def description(task: FitTask) -> str:
    """The new model's README.md: from which clips and which model it was made."""
    clips, start = task.clips, task.start
    digest = hashlib.sha256(clips.path.read_bytes()).hexdigest()
    origin = f"{start.name} (sha256 {start.sha256[:12]}…)" if start else "random weights"
    part = "the whole network was" if task.whole else "only the rows of the labels below were"
    more = f", and to {len(task.unlabelled)} without a label" if task.unlabelled else ""
    lines = [
        f"# {task.out.name}",
        "",
        f"Fitted with `perceiverd train fit` to {len(clips.rows)} clips{more}.",
        f"The clips are those of {clips.path.name}, sha256 {digest[:12]}….",
        f"The fit started from {origin}; {part} trained. Seed {task.seed}.",
        f"Licence of the weights: {task.weights_licence}.",
        "",
        "| label | mid | new | clips |",
        "|---|---|---|--:|",
        *_label_rows(task),
        "",
    ]
    if start and task.whole:
        lines += [f"The thresholds of the older labels are those of {start.name}; they were not fitted again.", ""]
    return "\n".join(lines)


def _label_rows(task: FitTask) -> list[str]:
    names = {label.mid: label.name for label in task.labels}
    new = {label.mid for label in task.clips.new}
    counts = {mid: sum(mid in row.labels for row in task.clips.rows) for mid in task.clips.mids}
    return [f"| {names[mid]} | `{mid}` | {'yes' if mid in new else 'no'} | {count} |" for mid, count in counts.items()]
