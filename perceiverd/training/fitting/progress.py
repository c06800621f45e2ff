"""How a fit tells how far it is: a bar on a terminal, else a line now and then; curves for TensorBoard.

One process of a crew tells; the others get a teller that is silent.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from perceiverd.core.errors import ConfigError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)

LINE_EVERY_S = 10.0
"""Between two lines where there is no terminal."""


class ProgressReporter:
    """Tells of one stage after the other."""

    def __init__(self, bars: Progress, writer: SummaryWriter | None, *, silent: bool) -> None:
        self._bars, self._writer, self._silent = bars, writer, silent
        self._told_s = 0.0
        self._figures: dict[str, float] = {}
        """The last of each, since not every step has all."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """What is told from now on is of this stage."""
        self._name, self._told_s, self._figures = name, time.monotonic(), {}
        self._bar = self._bars.add_task(name, total=1.0)
        try:
            yield
        finally:
            self._bars.remove_task(self._bar)

    def update(self, step: int, share: float, **figures: float) -> None:
        """`step` is done, and this share, 0..1, of the stage."""
        if self._silent:
            return
        if self._writer:
            for name, value in figures.items():
                self._writer.add_scalar(f"{self._name}/{name}", value, step)
        self._figures |= figures
        told = " ".join(f"{name}={value:.4g}" for name, value in self._figures.items())
        if not self._bars.disable:
            self._bars.update(self._bar, completed=share, description=f"{self._name} {told}")
        elif time.monotonic() - self._told_s >= LINE_EVERY_S:
            self._told_s = time.monotonic()
            log.info("%s: %.0f %% step=%d %s", self._name, 100 * share, step, told)


@contextmanager
def progress_reporter(logs: Path | None, *, silent: bool) -> Iterator[ProgressReporter]:
    """A teller; `logs`: the folder that TensorBoard reads."""
    bars = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=silent or not sys.stderr.isatty(),
    )
    writer = _writer(logs) if logs and not silent else None
    try:
        with bars:
            yield ProgressReporter(bars, writer, silent=silent)
    finally:
        if writer:
            writer.close()


def _writer(logs: Path) -> SummaryWriter:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError as error:
        raise ConfigError(f"--log needs TensorBoard: pip install 'perceiverd[train]' ({error})") from error
    return SummaryWriter(str(logs))
