"""`perceiverd tag --ray`: from options to `offline.cluster`; shows progress and what failed."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from perceiverd.cli.bars import file_bar
from perceiverd.cli.tag import TagCommand, tag_options
from perceiverd.core.errors import PerceiverdError
from perceiverd.model.card import DEFAULT, load_card
from perceiverd.model.engine import DEVICE_PATTERN

MOST_FAILURES = 20
"""The most failures that are listed; the folder `failed` has all."""


def run(command: TagCommand, address: str, out: str, workers: int | None) -> int:
    """Tag the files on a cluster; returns 1 if a file failed, else 0. Raises PerceiverdError, and BadParameter."""
    if not DEVICE_PATTERN.fullmatch(command.device):
        raise typer.BadParameter(f"{command.device!r} is not auto, cpu, cuda or cuda:N", param_hint="'--device'")
    if command.formats not in ("text", "parquet"):
        raise typer.BadParameter("--ray writes parquet", param_hint="'--format'")
    try:
        from perceiverd.offline.cluster.inputs import expanded
        from perceiverd.offline.cluster.run import ClusterPlan, tag_files
        from perceiverd.offline.cluster.worker import ClusterJob
    except ModuleNotFoundError as error:
        if error.name not in ("fsspec", "pyarrow"):
            raise
        raise PerceiverdError(f"--ray needs an extra: pip install 'perceiverd[ray]' ({error})") from error
    logging.basicConfig(format="perceiverd: %(message)s", level=logging.WARNING)
    model = command.model or DEFAULT
    options = tag_options(command, load_card(model), None, frozenset({"scores"}))
    files = expanded(command.files)
    job = ClusterJob(out, model, command.device, command.engine, 1, options)
    started_s = time.monotonic()
    with _bar(len(files)) as advance:
        report = tag_files(files, job, ClusterPlan(address, workers), lambda each: advance(each.end_s, each.error))
    took_s = time.monotonic() - started_s
    before = f", {report.done_before} done before" if report.done_before else ""
    print(
        f"{report.tagged} files tagged, {len(report.failures)} failed{before}; {report.media_s / 3600:.2f} h of media"
        f" in {took_s:.0f} s, {report.media_s / max(took_s, 1e-9):.0f} times real time"
    )
    for failure in report.failures[:MOST_FAILURES]:
        print(f"perceiverd: {failure.error}", file=sys.stderr)
    if len(report.failures) > MOST_FAILURES:
        print(f"perceiverd: and {len(report.failures) - MOST_FAILURES} more, in {out}/failed", file=sys.stderr)
    return 1 if report.failures else 0


@contextmanager
def _bar(files: int) -> Iterator[Callable[[float, str], None]]:
    """A progress bar on standard error, if it is a terminal: files, failures, media per time, time left."""
    started_s, media_s, failed = time.monotonic(), 0.0, 0
    with file_bar() as bars:
        task = bars.add_task("starting", total=files)

        def advance(end_s: float, error: str) -> None:
            nonlocal media_s, failed
            media_s, failed = media_s + end_s, failed + bool(error)
            speed = media_s / max(time.monotonic() - started_s, 1e-9)
            shown = f"{speed:.0f}x" + (f", {failed} failed" if failed else "")
            bars.update(task, advance=1, description=shown)

        yield advance
