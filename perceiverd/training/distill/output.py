"""The folder of a new model: reserved before the work, written after it. No other model is ever overwritten."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from perceiverd.core.errors import ConfigError
from perceiverd.core.labels import Label
from perceiverd.model.card import CALIBRATION_FILE, CARD_FILE, Card, load_card
from perceiverd.model.checkpoint import save_model
from perceiverd.model.geometry import Geometry
from perceiverd.model.perceiver import Perceiver
from perceiverd.training.distill.rehearsal import REHEARSAL_FILE
from perceiverd.training.fitting.distributed import is_leader


@contextlib.contextmanager
def claimed(out: Path, start: Card | None, written: Path | None = None) -> Iterator[None]:
    """Create the folder before the work; afterwards, remove it if it is still empty.

    Raises ConfigError if the folder has a model, unless that model's SHA-256 is in the file `written`.
    """
    if start and start.folder.resolve() == out.resolve():
        raise ConfigError(f"{out}: is the model to start from; give another --out")
    own = written.read_text() if written and written.exists() else ""
    if (out / CARD_FILE).exists() and load_card(out).sha256 != own:
        raise ConfigError(f"{out}: is a model already; give another --out")
    out.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        if is_leader():  # the other processes of a group may be here before the leader has written the model
            with contextlib.suppress(OSError):  # the folder is not empty
                out.rmdir()


def write(
    out: Path,
    network: Perceiver,
    geometry: Geometry,
    labels: Sequence[Label],
    licence: str,
    dtype: torch.dtype = torch.float32,
) -> str:
    """Write the model and print its name and digest; returns its SHA-256. `dtype`: of the weights in the file.

    If the weights change, the calibration and the rehearsal vectors are deleted, because they fit other weights.
    """
    before = load_card(out).sha256 if (out / CARD_FILE).exists() else ""
    save_model(out, network, geometry, labels, name=out.name, licence=licence, dtype=dtype)
    digest = load_card(out).sha256
    if digest != before:
        for name in (CALIBRATION_FILE, REHEARSAL_FILE):
            (out / name).unlink(missing_ok=True)
    calibration = "" if (out / CALIBRATION_FILE).exists() else "; not calibrated"
    print(f"{out}: sha256 {digest}, licence {licence}{calibration}")
    return digest
