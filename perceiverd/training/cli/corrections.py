"""`perceiverd train fit --corrections`: options become a task. Another module does the work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import typer

from perceiverd.core.paths import SERVICE_HISTORY, SERVICE_SNAPSHOTS

HOURS = 2.0
"""Of background, at most. On one core an hour takes some two minutes."""


def refuse(given: Iterable[str]) -> None:
    """Raises BadParameter if an option was given that corrections do not use."""
    for name in given:
        raise typer.BadParameter("does not go with --corrections", param_hint=f"'{name}'")


def run(
    corrections: Path,
    out: Path,
    start: str | None,
    recent: Sequence[Path] | None,
    rehearse: Sequence[Path] | None,
    history: Path | None,
    hours: float | None,
    threads: int,
) -> None:
    """Learn from corrections, and print what changes. Raises PerceiverdError."""
    import torch

    from perceiverd.model.card import DEFAULT, load_card
    from perceiverd.training.corrections import job

    if threads:
        torch.set_num_threads(threads)
    if recent is None:
        recent = [folder for folder in (SERVICE_SNAPSHOTS / "recent",) if _is_there(folder)]
    if history is None and _is_there(SERVICE_HISTORY):
        history = SERVICE_HISTORY
    task = job.CorrectionTask(
        corrections,
        out,
        load_card(start or DEFAULT),
        recent=tuple(recent),
        folders=tuple(rehearse or ()),
        history=history,
        hours=hours or HOURS,
    )
    print(job.run(task))


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:
        return False
