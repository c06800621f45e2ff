"""The folder of a new model: claimed before the work, written after it, never over another's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from perceiverd.core.errors import ConfigError
from perceiverd.core.labels import Label
from perceiverd.model.card import CALIBRATION_FILE, CARD_FILE, Card, load_card
from perceiverd.model.checkpoint import save_model
from perceiverd.model.geometry import Geometry
from perceiverd.model.perceiver import Perceiver
from perceiverd.training.distill.rehearsal import BANK_FILE
from perceiverd.training.fitting.distributed import is_leader


@contextlib.contextmanager
def claimed(out: Path, origin: Card | None, made: Path | None = None) -> Iterator[None]:
    """Have the folder, and leave none behind where nothing came of it.

    Raises ConfigError where a model is there, unless it is the one whose SHA-256 is in `made`.
    """
    if origin and origin.folder.resolve() == out.resolve():
        raise ConfigError(f"{out}: is the model to start from; give another --out")
    own = made.read_text() if made and made.exists() else ""
    if (out / CARD_FILE).exists() and load_card(out).sha256 != own:
        raise ConfigError(f"{out}: is a model already; give another --out")
    out.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        if is_leader():  # of a crew one writes, and the others may be here before it has
            with contextlib.suppress(OSError):
                out.rmdir()  # which only an empty folder allows


def write(out: Path, network: Perceiver, geometry: Geometry, labels: Sequence[Label], licence: str) -> str:
    """Write the model, without what was fitted to other weights, and tell it; returns its SHA-256."""
    before = load_card(out).sha256 if (out / CARD_FILE).exists() else ""
    save_model(out, network, geometry, labels, name=out.name, licence=licence)
    digest = load_card(out).sha256
    if digest != before:
        for name in (CALIBRATION_FILE, BANK_FILE):
            (out / name).unlink(missing_ok=True)
    fitted = "" if (out / CALIBRATION_FILE).exists() else "; not calibrated"
    print(f"{out}: sha256 {digest}, licence {licence}{fitted}")
    return digest
