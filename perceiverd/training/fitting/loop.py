"""The loop of a fit: step after step to the end of its budget, saved now and then, the same with and without a stop.

Knows no clips and no labels: what is learnt makes its own gradients.
"""

from __future__ import annotations

import contextlib
import hashlib
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import msgspec
import torch
from torch import Tensor, nn

from perceiverd.core.errors import ConfigError, PerceiverdError
from perceiverd.training.fitting.distributed import ProcessGroup
from perceiverd.training.fitting.optim import Lamb, RunningMean, decays, load, rate_factor, save
from perceiverd.training.fitting.progress import ProgressReporter
from perceiverd.training.fitting.settings import FitSettings

LOWER = "begin anew with a lower rate, without"
"""What to do where a fit diverged; the folder of its state follows."""


class StoppedError(PerceiverdError):
    """The user stopped the fit; what it had reached is kept."""


class DivergedError(PerceiverdError):
    """The fit's numbers grew beyond all bounds."""


class Learner(Protocol):
    """What a loop fits."""

    @property
    def module(self) -> nn.Module:
        """Its parameters are what is learnt."""

    def backward(self, step: int, scaler: torch.amp.GradScaler) -> dict[str, float]:
        """Add this process's part of the step's gradients, times the crew's size; returns its part of the loss, named.

        Each step is the one after the last, the first where the fit goes on.
        """


@dataclass(frozen=True)
class Budget:
    """How long a fit goes on."""

    steps: int
    """Steps in all, where there is no limit of time."""
    minutes: float | None = None
    """The whole time, over all resumptions."""

    def share(self, step: int, spent_s: float) -> float:
        """How much of it is spent, 0..1."""
        return spent_s / (60 * self.minutes) if self.minutes else step / max(1, self.steps)


def fingerprint(*settings: object) -> str:
    """SHA-256 of all that decides what is learnt: structs, strings, numbers."""
    told = [msgspec.json.encode(one) if isinstance(one, msgspec.Struct) else one for one in settings]
    return hashlib.sha256(repr(told).encode()).hexdigest()


@dataclass(frozen=True)
class LoopState:
    """Where a fit keeps itself."""

    file: Path
    fingerprint: str
    """Of all that decides what is learnt; a state with another one is of another fit."""
    of: str = "clips, labels or settings"
    """What may differ where the fingerprint does."""
    again: str = "the same command with --resume"
    """What goes on with a fit that was stopped."""

    def load(self) -> dict[str, Any] | None:
        """What was saved, to go on with; None at the beginning. Raises ConfigError where it is of another fit."""
        if not self.file.exists():
            return None
        found = load(self.file)
        if found is None or "fingerprint" not in found:
            raise ConfigError(f"{self.file}: no state of a fit, or a damaged one; delete it")
        if found["fingerprint"] != self.fingerprint:
            raise ConfigError(f"{self.file.parent}: keeps a fit of other {self.of}; take another, or delete it")
        return found

    def claim(self) -> None:
        """Find out that the state can be written before there is anything to lose. Raises MediaError."""
        save(self.file.with_name(f"{self.file.name}.try"), {})
        self.file.with_name(f"{self.file.name}.try").unlink()

    def save(self, state: dict[str, Any]) -> None:
        save(self.file, {**state, "fingerprint": self.fingerprint})


def run(
    learner: Learner,
    groups: list[dict[str, Any]],
    how: FitSettings,
    budget: Budget,
    state: LoopState,
    crew: ProcessGroup,
    teller: ProgressReporter,
    *,
    device: torch.device,
    scaled: bool = False,
    earlier_s: float = 0.0,
) -> float:
    """Fit to the end of the budget; the module then has the mean weights. Returns the seconds spent.

    `scaled`: gradients are those of float16. Raises StoppedError where a signal ended it before.
    """
    module = learner.module
    optimiser = _optimiser(groups, how)
    mean = RunningMean(module, how.average)
    scaler = torch.amp.GradScaler(device.type, enabled=scaled)
    step, spent_s = 0, earlier_s
    if crew.rank == 0:
        state.claim()
    if found := state.load():
        module.load_state_dict(found["module"])
        optimiser.load_state_dict(found["optimiser"])
        scaler.load_state_dict(found["scaler"])
        mean.weights = {name: tensor.to(device) for name, tensor in found["mean"].items()}
        step, spent_s = found["step"], max(spent_s, found["spent_s"])

    def keep() -> None:
        if crew.rank == 0 and _finite(mean.weights):  # else the next step says so, and what was kept stays
            weights = {"module": module.state_dict(), "mean": mean.weights, "optimiser": optimiser.state_dict()}
            state.save({**weights, "scaler": scaler.state_dict(), "step": step, "spent_s": spent_s})

    begun_s, saved_s = time.monotonic() - spent_s, time.monotonic()
    with _stoppable() as stop:
        while (share := budget.share(step, spent_s)) < 1:
            for group in optimiser.param_groups:
                group["lr"] = how.rate * group["share"] * rate_factor(share, how.warmup, falls=how.schedule == "cosine")
            optimiser.zero_grad()
            figures = learner.backward(step, scaler)
            spent_s = crew.average(module, time.monotonic() - begun_s)
            scaler.unscale_(optimiser)
            norm = nn.utils.clip_grad_norm_(module.parameters(), how.clip)
            if not scaled and not norm.isfinite():  # float16 leaves such steps out, and goes on more carefully
                raise DivergedError(f"step {step + 1}: the gradient is no finite number; {LOWER} {state.file.parent}")
            scaler.step(optimiser)
            scaler.update()
            step += 1
            mean.update(module, step)
            figures |= {"norm": float(norm), "rate": optimiser.param_groups[0]["lr"]}
            teller.update(step, min(1.0, budget.share(step, spent_s)), **figures)
            stopped = crew.any(bool(stop), device)
            if stopped or time.monotonic() - saved_s > how.save_every_s:
                saved_s = time.monotonic()
                keep()
            if stopped and budget.share(step, spent_s) < 1:
                raise StoppedError(f"stopped after {step} steps; {state.again} goes on")
    if not _finite(mean.weights):
        raise DivergedError(f"step {step}: the weights are no finite numbers; {LOWER} {state.file.parent}")
    keep()
    module.load_state_dict(mean.weights)
    return spent_s


def _finite(weights: Mapping[str, Tensor]) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in weights.values())


def groups_of(module: nn.Module, how: FitSettings, share: float) -> list[dict[str, Any]]:
    """The parameters that learn, those that decay apart; `share`: their learning rate over the fit's."""
    learning = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    matrices = [parameter for name, parameter in learning if decays(name, parameter)]
    others = [parameter for name, parameter in learning if not decays(name, parameter)]
    return [
        {"params": matrices, "weight_decay": how.decay, "share": share},
        {"params": others, "weight_decay": 0.0, "share": share},
    ]


def _optimiser(groups: list[dict[str, Any]], how: FitSettings) -> torch.optim.Optimizer:
    if how.optimiser == "lamb":
        return Lamb(groups, lr=how.rate)
    return torch.optim.AdamW(groups, lr=how.rate, betas=(0.9, 0.98))


@contextlib.contextmanager
def _stoppable() -> Iterator[list[int]]:
    """A list that is empty until Ctrl-C or SIGTERM came; the step that is being taken is finished first."""
    got: list[int] = []

    def heed(number: int, frame: FrameType | None) -> None:
        got.append(number)

    before = {each: signal.signal(each, heed) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield got
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
