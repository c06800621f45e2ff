"""What a part of the check finds, and what all parts share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from perceiverd.model.batch_sizes import SIZES
from perceiverd.model.card import Card, load_card


@dataclass(frozen=True)
class Check:
    """One thing that must be so."""

    what: str
    ok: bool | None
    """None: it means nothing on this device."""
    found: str

    @property
    def verdict(self) -> str:
        """`yes`, `no`, or `not measured here`."""
        return {True: "yes", False: "**no**", None: "not measured here"}[self.ok]


@dataclass
class Result:
    """What a part found."""

    name: str
    summary: str
    """One line for a person."""
    checks: list[Check] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return all(check.ok is not False for check in self.checks)

    @classmethod
    def failed(cls, name: str, why: str, lines: list[str]) -> Result:
        """A part that ended early. `lines`: the last that it said."""
        return cls(name, f"failed: {why}", [Check(f"{name} runs", False, f"failed: {why}")], {"traceback": lines})


@dataclass(frozen=True)
class Setup:
    """What all parts share."""

    device: torch.device
    model: str
    """A model's name or folder."""
    soak_s: float
    rounds: int
    sizes: tuple[int, ...] = SIZES
    limit_s: float = 600.0
    """How long the part may take."""
    manifest: str = ""
    """Labelled recordings, for the precision in half precision; empty if there are none."""

    @property
    def is_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def card(self) -> Card:
        return load_card(self.model)

    def check(self, what: str, ok: bool, found: str) -> Check:
        """A check whose bound is for GPUs."""
        return Check(what, ok if self.is_gpu else None, found)
