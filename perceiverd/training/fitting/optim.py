"""Optimiser steps: LAMB, the learning rate over a budget, weight decay, the running mean, state on disk.

All fits share it. Knows no data and no network.
"""

from __future__ import annotations

import contextlib
import math
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from perceiverd.core.errors import MediaError


class Lamb(torch.optim.Optimizer):
    """LAMB (You et al., "Large batch optimization for deep learning: training BERT in 76 minutes", ICLR 2020).

    Adam's step with weight decay, scaled for each layer to the norm of its weights. phi is the identity.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 4e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.1,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step(parameter, group)

    def _step(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state, (one, two) = self.state[parameter], group["betas"]
        if not state:
            state["step"] = 0
            state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        assert parameter.grad is not None
        state["step"] += 1
        state["mean"].lerp_(parameter.grad, 1 - one)
        state["square"].mul_(two).addcmul_(parameter.grad, parameter.grad, value=1 - two)
        mean = state["mean"] / (1 - one ** state["step"])
        square = state["square"] / (1 - two ** state["step"])
        update = mean / (square.sqrt() + group["eps"]) + group["weight_decay"] * parameter
        weight, length = parameter.norm(), update.norm()
        # A new layer of zeros has norm 0, so it takes Adam's step unscaled.
        trust = torch.where((weight > 0) & (length > 0), weight / length, torch.ones_like(weight))
        parameter.sub_(update * trust * group["lr"])


def rate_factor(share: float, warmup: float, *, falls: bool = True) -> float:
    """The learning rate over its peak, 0..1, after a share of the budget: a linear rise, then half a cosine to zero.

    With `falls` false the rate stays at its peak after the warm-up.
    """
    if share < warmup:
        return max(share / warmup, 0.01)
    if not falls:
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * min((share - warmup) / (1 - warmup), 1.0)))


def decays(name: str, parameter: Tensor) -> bool:
    """Whether weight decay applies: to matrices, but not to biases, normalisations, latents and learned channels."""
    return parameter.ndim > 1 and not name.endswith("latents")


class RunningMean:
    """The exponential mean of the weights over the steps. It is the result of a fit."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        """`decay`: of the mean; lower in the first steps. 0 gives the last weights."""
        self.decay = decay
        self.weights = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}

    def update(self, module: nn.Module, step: int) -> None:
        """Add the weights after step number `step`, counted from 1."""
        keep = min(self.decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, tensor in module.state_dict().items():
                self.weights[name].lerp_(tensor, 1 - keep)


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a fit's state atomically. Raises MediaError if it cannot be written."""
    partial = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, partial)
        partial.replace(path)
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError if the disk is full
        with contextlib.suppress(OSError):
            partial.unlink()
        raise MediaError(f"{path}: cannot be written ({_reason(error)}); check the free space") from error


def load(path: Path) -> dict[str, Any] | None:
    """What `save` wrote, on the CPU; None if the file is damaged. Raises PermissionError."""
    try:
        found = torch.load(path, weights_only=True, map_location="cpu")
    except PermissionError:
        raise
    except (OSError, RuntimeError, UnpicklingError, EOFError, LookupError, TypeError, ValueError, struct.error):
        return None
    return found if isinstance(found, dict) else None


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error).partition("\n")[0]
