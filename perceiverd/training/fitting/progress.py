"""Progress of a fit: a bar on a terminal, otherwise a log line every 10 s; curves for TensorBoard.

One process of a group reports; the others get a reporter that prints nothing.
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
from perceiverd.core.logs import log_event

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger("perceiverd.training")

LINE_EVERY_S = 10.0
"""Between two log lines if there is no terminal."""


class ProgressReporter:
    """Reports one stage after the other."""

    def __init__(self, bars: Progress, writer: SummaryWriter | None, *, silent: bool) -> None:
        self._bars, self._writer, self._silent = bars, writer, silent
        self._reported_s = 0.0
        self._figures: dict[str, float] = {}
        """The last value of each figure, because not every step has all of them."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """All updates inside belong to this stage."""
        self._name, self._reported_s, self._figures = name, time.monotonic(), {}
        self._bar = self._bars.add_task(name, total=1.0)
        try:
            yield
        finally:
            self._bars.remove_task(self._bar)

    def update(self, step: int, share: float, **figures: float) -> None:
        """`step` steps and this share, 0..1, of the stage are done."""
        if self._silent:
            return
        if self._writer:
            for name, value in figures.items():
                self._writer.add_scalar(f"{self._name}/{name}", value, step)
        self._figures |= figures
        if not self._bars.disable:
            shown = " ".join(f"{name}={value:.4g}" for name, value in self._figures.items())
            self._bars.update(self._bar, completed=share, description=f"{self._name} {shown}")
        elif time.monotonic() - self._reported_s >= LINE_EVERY_S:
            self._reported_s = time.monotonic()
            fields = {name: f"{value:.4g}" for name, value in self._figures.items()}
            percent = f"{100 * share:.0f}"
            log_event(logger, logging.INFO, "fit-progress", stage=self._name, percent=percent, step=step, **fields)


@contextmanager
def progress_reporter(logs: Path | None, *, silent: bool) -> Iterator[ProgressReporter]:
    """A reporter; `logs`: the folder that TensorBoard reads. Raises ConfigError if TensorBoard is not installed."""
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
