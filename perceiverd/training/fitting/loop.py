"""The loop of a fit: it steps until the budget is spent and saves its state. A stop and a resume change no weights.

Knows no clips and no labels: a `Learner` computes the gradients.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, Protocol

import msgspec
import torch
from torch import Tensor, nn

from perceiverd.core.errors import ConfigError, PerceiverdError
from perceiverd.core.signals import STOP, handling
from perceiverd.training.fitting.distributed import ProcessGroup
from perceiverd.training.fitting.optim import Lamb, RunningMean, decays, load, rate_factor, save
from perceiverd.training.fitting.progress import ProgressReporter
from perceiverd.training.fitting.settings import FitSettings

RESTART = "start again with a lower rate, after deleting"
"""What to do if a fit diverged; the folder of its state follows."""


class StoppedError(PerceiverdError):
    """The user stopped the fit; its state is saved."""


class DivergedError(PerceiverdError):
    """A weight or gradient of the fit became infinite or NaN."""


class Learner(Protocol):
    """The network or layer that a loop fits, with its data."""

    @property
    def module(self) -> nn.Module:
        """Its parameters are trained."""

    def backward(self, step: int, scaler: torch.amp.GradScaler) -> dict[str, float]:
        """Add this process's part of the step's gradients, times the number of processes.

        Returns its part of the loss by name. Steps come in order; the first one may be any, if the fit was resumed.
        """


@dataclass(frozen=True)
class Budget:
    """How long a fit runs."""

    steps: int
    """Steps in all, if there is no time limit."""
    minutes: float | None = None
    """Time in all, over all resumptions."""

    def share(self, step: int, spent_s: float) -> float:
        """The share of the budget that is spent, 0..1."""
        return spent_s / (60 * self.minutes) if self.minutes else step / max(1, self.steps)


def fingerprint(*settings: object) -> str:
    """SHA-256 of all structs, strings and numbers that determine the weights of a fit."""
    parts = [msgspec.json.encode(one) if isinstance(one, msgspec.Struct) else one for one in settings]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


@dataclass(frozen=True)
class LoopState:
    """The file in which a fit saves its state."""

    file: Path
    fingerprint: str
    """Of all that determines the weights. A state with another fingerprint belongs to another fit."""
    depends_on: str = "clips, labels or settings"
    """What the fingerprint covers, for the error message."""
    resume_with: str = "the same command with --resume"
    """How the user resumes a stopped fit, for the error message."""

    def load(self) -> dict[str, Any] | None:
        """The saved state; None if there is none. Raises ConfigError if it is damaged or belongs to another fit."""
        if not self.file.exists():
            return None
        found = load(self.file)
        if found is None or "fingerprint" not in found:
            raise ConfigError(f"{self.file}: is not a state of a fit, or is damaged; delete it")
        if found["fingerprint"] != self.fingerprint:
            raise ConfigError(
                f"{self.file.parent}: has the state of a fit with other {self.depends_on}; "
                "choose another folder, or delete this one"
            )
        return found

    def check_writable(self) -> None:
        """Write and delete a small file, so that a fault shows before the work starts. Raises MediaError."""
        probe = self.file.with_name(f"{self.file.name}.try")
        save(probe, {})
        probe.unlink()

    def save(self, state: dict[str, Any]) -> None:
        save(self.file, {**state, "fingerprint": self.fingerprint})


def run(
    learner: Learner,
    groups: list[dict[str, Any]],
    settings: FitSettings,
    budget: Budget,
    state: LoopState,
    processes: ProcessGroup,
    progress: ProgressReporter,
    *,
    device: torch.device,
    scaled: bool = False,
    earlier_s: float = 0.0,
) -> float:
    """Fit until the budget is spent; the module then has the mean weights. Returns the seconds spent.

    `groups`: parameter groups of the optimiser, as `groups_of` makes them. `scaled`: gradients are float16 and need
    scaling. `earlier_s`: seconds that an earlier stage spent of the same budget. Raises StoppedError if a signal
    stopped the fit, DivergedError if a number is no longer finite.
    """
    stepper = _Stepper(learner.module, groups, settings, state, processes, device=device, scaled=scaled)
    if processes.rank == 0:
        state.check_writable()
    stepper.spent_s = earlier_s
    stepper.restore()
    started_s, saved_s = time.monotonic() - stepper.spent_s, time.monotonic()
    with _stop_signals() as stop:
        while (share := budget.share(stepper.step, stepper.spent_s)) < 1:
            figures = stepper.take_step(learner, share, started_s)
            progress.update(stepper.step, min(1.0, budget.share(stepper.step, stepper.spent_s)), **figures)
            stopped = processes.any(bool(stop), device)
            if stopped or time.monotonic() - saved_s > settings.save_every_s:
                saved_s = time.monotonic()
                stepper.save()
            if stopped and budget.share(stepper.step, stepper.spent_s) < 1:
                raise StoppedError(f"stopped after {stepper.step} steps; to resume, run {state.resume_with}")
    stepper.finish()
    return stepper.spent_s


class _Stepper:
    """Optimiser, running mean and counters of one fit, as they are saved and restored."""

    def __init__(
        self,
        module: nn.Module,
        groups: list[dict[str, Any]],
        settings: FitSettings,
        state: LoopState,
        processes: ProcessGroup,
        *,
        device: torch.device,
        scaled: bool,
    ) -> None:
        self._module, self._settings, self._state, self._processes = module, settings, state, processes
        self._device, self._scaled = device, scaled
        self._optimiser = _optimiser(groups, settings)
        self._mean = RunningMean(module, settings.average)
        self._scaler = torch.amp.GradScaler(device.type, enabled=scaled)
        self.step, self.spent_s = 0, 0.0

    def restore(self) -> None:
        """Continue from the saved state, if there is one."""
        if not (found := self._state.load()):
            return
        self._module.load_state_dict(found["module"])
        self._optimiser.load_state_dict(found["optimiser"])
        self._scaler.load_state_dict(found["scaler"])
        self._mean.weights = {name: tensor.to(self._device) for name, tensor in found["mean"].items()}
        self.step, self.spent_s = found["step"], max(self.spent_s, found["spent_s"])

    def save(self) -> None:
        """Save the state, unless the weights diverged: then the last good state stays, and the next step raises."""
        if self._processes.rank > 0 or not _finite(self._mean.weights):
            return
        weights = {"module": self._module.state_dict(), "mean": self._mean.weights}
        optimiser = {"optimiser": self._optimiser.state_dict(), "scaler": self._scaler.state_dict()}
        self._state.save({**weights, **optimiser, "step": self.step, "spent_s": self.spent_s})

    def take_step(self, learner: Learner, share: float, started_s: float) -> dict[str, float]:
        """One step at this share of the budget; returns the figures to report. Raises DivergedError."""
        settings, optimiser = self._settings, self._optimiser
        for group in optimiser.param_groups:
            factor = rate_factor(share, settings.warmup, falls=settings.schedule == "cosine")
            group["lr"] = settings.rate * group["share"] * factor
        optimiser.zero_grad()
        figures = learner.backward(self.step, self._scaler)
        self.spent_s = self._processes.average(self._module, time.monotonic() - started_s)
        self._scaler.unscale_(optimiser)
        norm = nn.utils.clip_grad_norm_(self._module.parameters(), settings.clip)
        if not self._scaled and not norm.isfinite():  # with float16 the scaler skips such a step and scales less
            self._diverged(self.step + 1, "the gradient is not finite")
        self._scaler.step(optimiser)
        self._scaler.update()
        self.step += 1
        self._mean.update(self._module, self.step)
        return figures | {"norm": float(norm), "rate": optimiser.param_groups[0]["lr"]}

    def finish(self) -> None:
        """Save the state and give the module the mean weights. Raises DivergedError."""
        if not _finite(self._mean.weights):
            self._diverged(self.step, "the weights are not finite")
        self.save()
        self._module.load_state_dict(self._mean.weights)

    def _diverged(self, step: int, what: str) -> NoReturn:
        raise DivergedError(f"step {step}: {what}; {RESTART} {self._state.file.parent}")


def _finite(weights: Mapping[str, Tensor]) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in weights.values())


def groups_of(module: nn.Module, settings: FitSettings, share: float) -> list[dict[str, Any]]:
    """The trained parameters as two groups, with and without weight decay; `share`: their rate over the fit's."""
    trained = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    matrices = [parameter for name, parameter in trained if decays(name, parameter)]
    others = [parameter for name, parameter in trained if not decays(name, parameter)]
    return [
        {"params": matrices, "weight_decay": settings.decay, "share": share},
        {"params": others, "weight_decay": 0.0, "share": share},
    ]


def _optimiser(groups: list[dict[str, Any]], settings: FitSettings) -> torch.optim.Optimizer:
    if settings.optimiser == "lamb":
        return Lamb(groups, lr=settings.rate)
    return torch.optim.AdamW(groups, lr=settings.rate, betas=(0.9, 0.98))


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """A list that collects SIGINT and SIGTERM while the loop runs, so that the current step ends first."""
    received: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        received.append(number)

    with handling(STOP, receive):
        yield received
