"""One run of `perceiverd train fit`: check the task, fit, write the model, measure it.

Faults of manifests, models and folders show before any clip is opened.
"""

from __future__ import annotations

from pathlib import Path

from perceiverd.core.errors import ConfigError
from perceiverd.evaluation.manifest import Manifest
from perceiverd.model.card import CARD_FILE, DEFAULT, Card, load_card
from perceiverd.training.finetune import clip_cache, evaluate, finetune, output
from perceiverd.training.finetune.settings import FinetuneSettings
from perceiverd.training.finetune.task import FitTask, known_labels
from perceiverd.training.fitting.distributed import is_leader


def starting_model(name: str | None, settings: FinetuneSettings, file: Path | None) -> Card | None:
    """The model to start from: by name or folder, or the bundled one; None if the settings have a geometry.

    `file`: where the settings are from. Raises ConfigError if the model cannot get new labels, or if there is both a
    model and a geometry.
    """
    if settings.geometry is None:
        start = load_card(name or DEFAULT)
        if start.scores != "sigmoid":
            raise ConfigError(f"{start.name}: its labels exclude one another, so none can be added; use another --from")
        return start
    if name:
        raise ConfigError(f"{file}: has a geometry, for a new model; remove it, or --from {name}")
    if settings.geometry.classes != (count := len(known_labels(None))):
        raise ConfigError(
            f"{file}: $.geometry.classes must be {count}, AudioSet's labels; new labels are added to them"
        )
    return None


def run(task: FitTask) -> str:
    """Fit and write the model. Returns its quality on the held-out clips as Markdown, empty if there are none."""
    if task.held_out:
        _check_held_out(task, task.held_out)
    if (task.out / CARD_FILE).exists() and not task.resume:
        raise ConfigError(f"{task.out}: is a model already; give another --out")
    network = finetune.fit(task)
    if not is_leader():
        return ""
    output.write(task, network)
    return _measured(task, task.held_out) if task.held_out else ""


def _check_held_out(task: FitTask, held: Manifest) -> None:
    """Raises ConfigError if held-out clips have unknown labels, or are also trained on."""
    if held.new:
        raise ConfigError(f"{held.path}: unknown label {held.new[0].name!r}; {task.clips.path} does not teach it")
    pair = clip_cache.find_overlap((*task.clips.rows, *task.unlabelled), held.rows)
    if pair is None:
        return
    trained, measured = pair
    where = f"line {trained.number} of {task.clips.path}" if trained.number else f"{trained.file}, for --rehearse"
    raise ConfigError(
        f"{held.path}: line {measured.number}: {measured.file} is also trained on ({where}); remove one of them"
    )


def _measured(task: FitTask, held: Manifest) -> str:
    card = load_card(task.out.resolve())
    cards = [card, task.start] if task.start else [card]
    threads = task.settings.clips.threads
    found = evaluate.score_clips(held, cards, task.cache, device=str(task.device), threads=threads)
    taught = [label.index for label in card.labels if label.mid in task.clips.mids]
    return evaluate.report(found, card, taught, task.start)
