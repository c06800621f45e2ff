"""`perceiverd train fit`: one's own labelled clips into a model: its last layer, all of it, or a new one.

Labels alone: the network is asked once for the vectors before its last layer, and only the rows of the labels that the
clips speak of are learnt; every other score stays what it was, to the bit. All: that first (Kumar et al. 2022, "Fine-
tuning can distort pretrained features"), then the whole network at a low rate, held by what the model that it
started from says of the same windows (Li & Hoiem 2016, "Learning without forgetting").
"""

from __future__ import annotations

import copy
import hashlib
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from perceiverd.core.errors import ConfigError, MediaError
from perceiverd.core.labels import Label, ontology
from perceiverd.model.card import CALIBRATION_FILE, Card
from perceiverd.model.checkpoint import load_network, save_model
from perceiverd.model.geometry import Geometry
from perceiverd.model.perceiver import Perceiver
from perceiverd.training.distill import rehearsal
from perceiverd.training.finetune import clip_cache, manifest
from perceiverd.training.finetune.clip_cache import ClipCache
from perceiverd.training.finetune.learners import HeadLearner, HeadRows, NetworkInputs, NetworkLearner, VectorSet
from perceiverd.training.finetune.manifest import Manifest, ManifestRow
from perceiverd.training.finetune.sampling import ClipSampler, Vocabulary, batch_loader
from perceiverd.training.finetune.settings import FinetuneSettings
from perceiverd.training.fitting import loop
from perceiverd.training.fitting.distributed import ProcessGroup, precision
from perceiverd.training.fitting.loop import Budget, LoopState
from perceiverd.training.fitting.optim import load as load_state
from perceiverd.training.fitting.optim import save as save_state
from perceiverd.training.fitting.progress import ProgressReporter, progress_reporter

log = logging.getLogger(__name__)

Part = Literal["head", "all"]

LOOK = 16
"""Windows that are looked at together when their vectors are made; always the same ones, so that they are the same."""
THRESHOLD = 0.4
"""Of a new label: it learnt against several times as much that lacks its sound, so that its scores are modest."""
LABELS_SHARE = 0.1
"""Of the minutes, for new rows before the whole network goes on learning."""
VIEWS, LOOKS = 16, 8_000
"""Windows of each clip from which labels are learnt; where there are many clips, fewer of each and so many in all."""


@dataclass(frozen=True)
class Task:
    """What is to be fitted, on what, and where it is kept."""

    plan: FinetuneSettings
    clips: Manifest
    unlabelled: tuple[ManifestRow, ...]
    """Further clips, which hold none of the manifest's new sounds."""
    start: Card | None
    """The model to start from; None: the plan's geometry, new."""
    train: Part
    shelf: Path
    """Where decoded clips are kept."""
    state: Path
    """Where the fit keeps itself."""
    resume: bool = False
    minutes: float | None = None
    logs: Path | None = None
    seed: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def geometry(self) -> Geometry:
        """What the model sees, with its new classes."""
        geometry = self.start.geometry if self.start else self.plan.geometry
        assert geometry
        return msgspec.structs.replace(geometry, classes=len(self.labels))

    @property
    def labels(self) -> tuple[Label, ...]:
        """The old labels, then the new ones."""
        return (*known(self.start), *self.clips.new)

    @property
    def fingerprint(self) -> str:
        """Of all that decides what is learnt, but for how long."""
        plan = msgspec.structs.replace(self.plan.fit, epochs=1, head_epochs=1, save_every_s=1)
        how = msgspec.json.encode([self.geometry, plan, self.plan.augment, self.plan.clips.views])
        what = [how, self.train, self.seed, self.start and self.start.sha256, self.clips.lines, self.unlabelled]
        return hashlib.sha256(repr(what).encode()).hexdigest()


def known(start: Card | None) -> tuple[Label, ...]:
    """The labels that there are before a fit."""
    return start.labels if start else ontology().labels


def fit(task: Task) -> Perceiver:
    """Fit; the network that comes out has its mean weights, on the CPU. Raises PerceiverdError."""
    if not any(line.labels for line in task.clips.lines):
        raise ConfigError(f"{task.clips.path}: no clip has a label")
    if not task.resume and any(task.state.glob("*.pt")):
        raise ConfigError(f"{task.state}: keeps a fit that was begun; go on with --resume, or delete the folder")
    crew = ProcessGroup.join(task.device)
    try:
        with progress_reporter(task.logs, silent=crew.rank > 0) as teller:
            network = _Fit(task, crew, teller).run()
    except (loop.StoppedError, loop.DivergedError):  # of a crew, all do; after another fault one would wait for them
        crew.leave()
        raise
    crew.leave()
    return network


class _Fit:
    """One run: clips, networks and stages."""

    def __init__(self, task: Task, crew: ProcessGroup, teller: ProgressReporter) -> None:
        self.task, self.crew, self.teller, self.how = task, crew, teller, task.plan.fit
        self.labels = task.labels
        self.vocabulary = Vocabulary(self.labels, task.clips.named, old=len(task.start.labels) if task.start else 0)
        lines, places = self._places([*task.clips.lines, *task.unlabelled])
        labelled = [at for at, line in enumerate(lines) if line.labels]
        silent = [at for at, line in enumerate(lines) if not line.labels for _ in range(self._times(places, at))]
        self.clips, self.others = (
            ClipSampler(
                [lines[at] for at in chosen],
                places and [places[at] for at in chosen],
                task.geometry,
                self.vocabulary,
                task.plan.augment,
                seed=task.seed + number,
                skip=task.plan.clips.skip,
            )
            for number, chosen in enumerate((labelled, silent))
        )

    def run(self) -> Perceiver:
        """Stage after stage."""
        task = self.task
        torch.manual_seed(task.seed)
        spent_s = 0.0
        if task.start:
            network, last = rehearsal.headless(load_network(task.start).to(task.device))
            rows, spent_s = self._labels(network, last.to(task.device))
            network.head.out = rows.assembled()
        else:
            geometry = task.geometry
            network = Perceiver(geometry.modalities, geometry.trunk, geometry.classes)
            with torch.no_grad():
                network.head.out.bias.copy_(self._odds())
            network.to(task.device)
        if task.train == "all" or not task.start:
            self._all(network, spent_s)
        return network.cpu().eval()

    # ------------------------------------------------------------------------------------------ clips
    def _places(self, lines: Sequence[ManifestRow]) -> tuple[list[ManifestRow], list[Path] | None]:
        """The clips that can be read, and where each is kept; None where none is kept."""
        how = self.task.plan.clips
        if not how.keep:
            return list(lines), None
        shelf = ClipCache(self.task.shelf, self.task.geometry)
        # Every process looks after all clips, each beginning elsewhere: what one has kept the others find.
        first = self.crew.rank * len(lines) // self.crew.size
        places: dict[ManifestRow, Path] = {}
        faults: dict[ManifestRow, MediaError] = {}
        with self.teller.stage("decoding"):
            for number, (line, found) in enumerate(shelf.fill(lines, how.threads, first), 1):
                if isinstance(found, Path):
                    places[line] = found
                else:
                    faults[line] = found
                self.teller.update(number, number / len(lines), unreadable=len(faults))
        self._check(faults, len(lines))
        kept = [line for line in lines if line in places]
        return kept, [places[line] for line in kept]

    def _times(self, places: Sequence[Path] | None, at: int) -> int:
        """How often a clip without labels is drawn from: an hour of a room holds more than a few windows of it tell."""
        if places is None:
            return 1
        return max(1, clip_cache.load(places[at]).end_ns // (VIEWS * self.task.geometry.window_ns))

    def _check(self, faults: Mapping[ManifestRow, MediaError], count: int) -> None:
        """Raises MediaError where too many clips can't be read."""
        told = [
            f"{self.task.clips.path}: line {line.number}: {error}" if line.number else str(error)
            for line, error in sorted(faults.items(), key=lambda item: (item[0].number, item[0].file))
        ]
        skip = self.task.plan.clips.skip
        if self.crew.rank == 0 and (len(told) > 1 or len(told) <= skip * count):
            manifest.log_faults(told)
        if len(told) > skip * count:
            if len(told) == 1:
                raise MediaError(told[0])
            raise MediaError(f"{len(told)} of {count} clips can't be read; a share of {skip:g} may be (--skip)")

    def _odds(self) -> Tensor:
        """Logits of how often each label comes, where a new network begins: that saves its first thousand steps."""
        counts = np.zeros(len(self.labels))
        for line in self.clips.lines:
            counts[self.vocabulary.present(line.labels)] += 1
        return torch.from_numpy(np.log((counts + 0.5) / (len(self.clips) - counts + 0.5))).float()

    # ------------------------------------------------------------------------------------------ labels alone
    def _labels(self, network: Perceiver, last: nn.Linear) -> tuple[HeadRows, float]:
        """Learn the rows of the labels that the clips speak of."""
        task, how = self.task, self.how
        rows = HeadRows(last, len(self.labels), self.vocabulary.named, self._odds()).to(task.device)
        # Where the whole network is to be learnt on, its rows are only a beginning.
        minutes = task.minutes * LABELS_SHARE if task.minutes and task.train == "all" else task.minutes
        budget = Budget(_steps(how.head_epochs, len(self.clips), how.batch), minutes)
        state = LoopState(task.state / "labels.pt", task.fingerprint)
        network.eval().requires_grad_(False)
        seen = self._seen(network, rows)
        rows.standardise(torch.cat([seen.vectors, seen.rehearsed]))
        learner = HeadLearner(rows, seen, how, task.seed, self.crew)
        with self.teller.stage("labels"):
            spent_s = loop.run(
                learner,
                loop.groups_of(rows.own, how, how.head_rate / how.rate),
                how,
                budget,
                state,
                self.crew,
                self.teller,
                device=task.device,
            )
        return rows, spent_s

    def _seen(self, network: Perceiver, rows: HeadRows) -> VectorSet:
        """The vectors of all views of all clips; from the fit's folder, where they have been made before."""
        task = self.task
        place = task.state / "vectors.pt"
        views = task.plan.clips.views or max(1, min(VIEWS, LOOKS // (len(self.clips) + len(self.others))))
        if place.exists() and (found := load_state(place)) and found.get("fingerprint") == task.fingerprint:
            return VectorSet(views, *(found[name].to(task.device) for name in VectorSet.NAMES))
        with self.teller.stage("looking"):
            clips = self._look(network, rows, self.clips, views)
            others = self._look(network, rows, self.others, views)
        assert task.start
        old = rehearsal.features(task.start, network).to(task.device)
        vectors = torch.cat([others[0], old])
        targets = torch.cat([others[1], rows.before(old)])
        seen = VectorSet(views, *clips, vectors, targets)
        if self.crew.rank == 0:
            task.state.mkdir(parents=True, exist_ok=True)
            kept = {name: getattr(seen, name).cpu() for name in VectorSet.NAMES}
            save_state(place, {**kept, "fingerprint": task.fingerprint})
        return seen

    def _look(
        self, network: Perceiver, rows: HeadRows, draws: ClipSampler, views: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors (N, width), targets and weights (N, rows) of every view of every clip, clip by clip."""
        count, device = len(draws) * views, self.task.device
        vectors = torch.zeros(count, self.task.geometry.trunk.width, device=device)
        targets, weights = (torch.zeros(count, len(rows.places), device=device) for _ in range(2))
        chunks = list(range(0, count, LOOK))[self.crew.rank :: self.crew.size]
        pool_of = self.task.plan.clips.threads
        with batch_loader([], seed=0, rank=0, size=1, threads=pool_of) as feed, torch.inference_mode():
            for number, first in enumerate(chunks):
                found = feed.map(draws, [divmod(at, views) for at in range(first, min(first + LOOK, count))])
                part = slice(first, first + len(found))
                batch = NetworkInputs.of(found, self.task.geometry, device)
                with torch.autocast(device.type, self._precision(), enabled=self._precision() != torch.float32):
                    vectors[part] = network(batch.contents, batch.present).float()
                said = batch.targets[:, list(rows.places)]
                targets[part] = torch.where(said.isnan(), rows.before(vectors[part]), said)
                weights[part] = batch.weights[:, list(rows.places)]
                self.teller.update(first + len(found), (number + 1) / len(chunks))
        return self.crew.total(vectors), self.crew.total(targets), self.crew.total(weights)

    # ------------------------------------------------------------------------------------------ all
    def _all(self, network: Perceiver, spent_s: float) -> None:
        """Learn everything."""
        task, how, size = self.task, self.how, self.crew.size
        before = copy.deepcopy(network) if task.start else None
        if before is not None:
            before.requires_grad_(False).eval()
            if not self.others:
                log.warning(
                    "only the clips themselves hold the old labels in place; --rehearse gives more to hold them by"
                )
        network.train().requires_grad_(True)
        budget = Budget(_steps(how.epochs, len(self.clips), how.batch), task.minutes)
        state = LoopState(task.state / "all.pt", task.fingerprint)
        parts = [(self.clips, how.batch), (self.others, how.batch if how.rehearsal and task.start else 0)]
        threads = task.plan.clips.threads
        with (
            self.teller.stage("all"),
            batch_loader(parts, seed=task.seed, rank=self.crew.rank, size=size, threads=threads) as feed,
        ):
            learner = NetworkLearner(
                network,
                before,
                feed,
                how,
                task.geometry,
                old=self.vocabulary.old,
                size=size,
                precision=self._precision(),
            )
            share = how.old_rate if task.start else 1.0
            loop.run(
                learner,
                loop.groups_of(network, how, share),
                how,
                budget,
                state,
                self.crew,
                self.teller,
                device=task.device,
                scaled=self._precision() == torch.float16,
                earlier_s=spent_s,
            )
        if self.clips.lost:
            log.warning("%d of %d clips could not be read", self.clips.lost, len(self.clips))

    def _precision(self) -> torch.dtype:
        return precision(self.how.precision, self.task.device)


def _steps(epochs: float, clips: int, batch: int) -> int:
    return max(1, round(epochs * clips / batch))


def save(task: Task, network: Perceiver, out: Path, licence: str) -> None:
    """Write the model: its weights, labels, card; and what is still true of the model that it started from."""
    out.mkdir(parents=True, exist_ok=True)
    start = task.start
    if start:
        if task.train == "head" and (start.folder / rehearsal.BANK_FILE).exists():
            shutil.copyfile(start.folder / rehearsal.BANK_FILE, out / rehearsal.BANK_FILE)
        (out / CALIBRATION_FILE).write_text(calibrated(start, task.clips.new), encoding="utf-8")
    save_model(out, network, task.geometry, task.labels, name=out.name, licence=licence)
    (out / "README.md").write_text(described(task, out.name, licence), encoding="utf-8")


def calibrated(start: Card, new: Sequence[Label]) -> str:
    """The calibration.tsv of the model that was started from, with lines for the new labels."""
    path = start.folder / CALIBRATION_FILE
    table = path.read_text(encoding="utf-8") if path.exists() else "mid\tscale\tshift\tthreshold\n"
    columns = table.partition("\n")[0].split("\t")
    for label in new:
        cells = {"mid": label.mid, "name": label.name, "scale": "1", "shift": "0", "threshold": f"{THRESHOLD:g}"}
        table += "\t".join(cells.get(column, "") for column in columns) + "\n"
    return table


def described(task: Task, name: str, licence: str) -> str:
    """The new model's README.md: what it was made of."""
    clips, start = task.clips, task.start
    counts = {mid: sum(mid in line.labels for line in clips.lines) for mid in clips.named}
    labels = {label.mid: label for label in task.labels}
    new = {label.mid for label in clips.new}
    origin = f"{start.name} (sha256 {start.sha256[:12]}…)" if start else "random weights"
    digest = hashlib.sha256(clips.path.read_bytes()).hexdigest()
    what = "the rows of the labels below" if start and task.train == "head" else "all of it"
    rows = [
        f"| {labels[mid].name} | `{mid}` | {'yes' if mid in new else 'no'} | {counts[mid]} |" for mid in clips.named
    ]
    more = f", and on {len(task.unlabelled)} without a label" if task.unlabelled else ""
    kept = []
    if start and task.train == "all":
        kept = [f"The thresholds of its older labels are those of {start.name}, not fitted anew.", ""]
    return "\n".join(
        [
            f"# {name}",
            "",
            f"Fitted with `perceiverd train fit` to {len(clips.lines)} clips{more}.",
            f"They are those of {clips.path.name}, sha256 {digest[:12]}….",
            f"It started from {origin}; {what} learnt. Seed {task.seed}. Licence of the weights: {licence}.",
            "",
            "| label | mid | new | clips |",
            "|---|---|---|--:|",
            *rows,
            "",
            *kept,
        ]
    )
