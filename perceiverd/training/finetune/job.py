"""One call of `perceiverd train fit`: read what was asked for, refuse what can't be, fit, write the model, measure it.

Everything that is wrong with manifests, models and folders is told before any clip is opened.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch

from perceiverd.core.errors import ConfigError
from perceiverd.model.card import CARD_FILE, DEFAULT, Card, load_card
from perceiverd.training.finetune import clip_cache, evaluate, finetune, manifest
from perceiverd.training.finetune import settings as plans
from perceiverd.training.finetune.finetune import Part, Task
from perceiverd.training.finetune.manifest import Manifest, ManifestFormat
from perceiverd.training.finetune.settings import FinetuneSettings
from perceiverd.training.fitting.distributed import is_leader, own_device


@dataclass(frozen=True)
class Wish:
    """What the user asked for."""

    clips: Path
    out: Path
    form: ManifestFormat = "auto"
    media: Path | None = None
    start: str | None = None
    """A model's name or folder; None: the bundled one or, where the recipe has a geometry, none."""
    recipe: Path | None = None
    train: Part = "head"
    rehearse: tuple[Path, ...] = ()
    """Folders of clips without labels."""
    held_out: Path | None = None
    epochs: float | None = None
    minutes: float | None = None
    batch: int | None = None
    precision: str | None = None
    skip: float | None = None
    state: Path | None = None
    resume: bool = False
    shelf: Path | None = None
    logs: Path | None = None
    licence: str | None = None
    device: str = "auto"
    threads: int = 0
    seed: int = 1


def run(wish: Wish) -> str:
    """Fit and write the model; what it makes of held-out clips, as Markdown, empty where there are none."""
    device = own_device(wish.device)
    if wish.threads:
        torch.set_num_threads(wish.threads)
    task, held = _task(wish, device)
    if (wish.out / CARD_FILE).exists() and not wish.resume:
        raise ConfigError(f"{wish.out}: is a model already; give another --out")
    network = finetune.fit(task)
    if not is_leader():
        return ""
    finetune.save(task, network, wish.out, wish.licence or (task.start.licence if task.start else "NOASSERTION"))
    if held is None:
        return ""
    card = load_card(wish.out.resolve())
    cards = [card, task.start] if task.start else [card]
    heard = evaluate.score_clips(held, cards, task.shelf, device=str(device), threads=task.plan.clips.threads)
    learnt = [label.index for label in card.labels if label.mid in task.clips.named]
    return evaluate.report(heard, card, learnt, task.start)


def _task(wish: Wish, device: torch.device) -> tuple[Task, Manifest | None]:
    plan = _plan(wish)
    start = _start(wish, plan)
    task = Task(
        plan=plan,
        clips=manifest.read(
            wish.clips, finetune.known(start), form=wish.form, media=wish.media, skip=plan.clips.skip, tells=is_leader()
        ),
        unlabelled=tuple(line for folder in wish.rehearse for line in manifest.files_in(folder)),
        start=start,
        train=wish.train if start else "all",
        shelf=wish.shelf or _cache(),
        state=wish.state or wish.out.with_name(f"{wish.out.name}.fit"),
        resume=wish.resume,
        minutes=wish.minutes,
        logs=wish.logs,
        seed=wish.seed,
        device=device,
    )
    return task, _held(wish, task)


def _held(wish: Wish, task: Task) -> Manifest | None:
    if wish.held_out is None:
        return None
    held = manifest.read(
        wish.held_out, task.labels, form=wish.form, media=wish.media, skip=task.plan.clips.skip, tells=is_leader()
    )
    if held.new:
        raise ConfigError(f"{wish.held_out}: {held.new[0].name!r} is no label that {wish.clips} teaches")
    if pair := clip_cache.find_overlap((*task.clips.lines, *task.unlabelled), held.lines):
        learnt, measured = pair
        where = f"line {learnt.number} of {wish.clips}" if learnt.number else f"{learnt.file}, for --rehearse"
        raise ConfigError(
            f"{wish.held_out}: line {measured.number}: {measured.file} is learnt from too ({where}); leave one out"
        )
    return held


def _start(wish: Wish, plan: FinetuneSettings) -> Card | None:
    if plan.geometry is None:
        start = load_card(wish.start or DEFAULT)
        if start.scores != "sigmoid":
            raise ConfigError(f"{start.name}: its labels exclude one another, so none can be added; start from another")
        return start
    if wish.start:
        raise ConfigError(f"{wish.recipe}: has a geometry, for a new model; leave it out, or --from {wish.start}")
    if plan.geometry.classes != len(finetune.known(None)):
        raise ConfigError(
            f"{wish.recipe}: $.geometry.classes is {len(finetune.known(None))}, AudioSet's labels; yours come on top"
        )
    return None


def _plan(wish: Wish) -> FinetuneSettings:
    """The recipe with what the command line overrules."""
    plan = plans.load(wish.recipe) if wish.recipe else FinetuneSettings()
    epochs = {} if wish.epochs is None else {"epochs": wish.epochs, "head_epochs": wish.epochs}
    given = {"batch": wish.batch, "precision": wish.precision}
    fit = {**epochs, **{name: value for name, value in given.items() if value is not None}}
    clips = {} if wish.skip is None else {"skip": wish.skip}
    return msgspec.structs.replace(
        plan, fit=msgspec.structs.replace(plan.fit, **fit), clips=msgspec.structs.replace(plan.clips, **clips)
    )


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "perceiverd" / "clips"
