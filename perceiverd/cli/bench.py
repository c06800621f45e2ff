"""`perceiverd bench`: which measurement to run for which model, and where its report goes. Measures nothing itself."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import typer

from perceiverd.model.card import DEFAULT

MOST_STREAMS = 1000
STREAMS_S = 60.0
"""How long streams are replayed, unless the user chooses."""


def networks(
    models: list[str] | None, device: str, threads: int, rounds: int, *, growth: bool, file: Path | None
) -> None:
    """Time each network, print a table for each, and write all numbers to `file`. Raises PerceiverdError."""
    from perceiverd.bench import latency, report_file

    models = models or [DEFAULT, latency.PUBLIC]
    if growth and latency.PUBLIC not in models:
        raise typer.BadParameter(f"it measures the sizes of `{latency.PUBLIC}`; name that too", param_hint="'--growth'")
    if file:
        report_file.check(file)  # before the measurement, which takes minutes
    reports: list[latency.BenchReport] = []
    for model in models:
        report = latency.run(model, device, threads, rounds, growth and model == latency.PUBLIC)
        print(("\n" if reports else "") + latency.table(report), flush=True)
        reports.append(report)
    if file:
        report_file.write(reports, file)


def stream_count(text: str) -> int | None:
    """How many streams `--streams` names; None for `max`. Raises BadParameter."""
    if text == "max":
        return None
    if not re.fullmatch(r"[1-9]\d{0,3}", text) or int(text) > MOST_STREAMS:
        raise typer.BadParameter(f"{text!r} is not max or a number up to {MOST_STREAMS}", param_hint="'--streams'")
    return int(text)


def streams(
    models: list[str] | None,
    device: str,
    threads: int,
    count: int | None,
    seconds: float | None,
    *,
    hop_s: float,
    still: bool,
    file: Path | None,
) -> None:
    """Replay `count` streams through a daemon and print what it achieved, for each model. Raises PerceiverdError.

    With None, find how many streams the machine carries. All numbers go to `file` too, if it is given.
    """
    from perceiverd.bench import capacity, load, report_file

    if file:
        report_file.check(file)  # before the measurement, which takes minutes
    reports: list[load.LoadReport | capacity.CapacityReport] = []
    for model in models or [DEFAULT]:
        if count is None:
            show = partial(print, flush=True)
            reports.append(capacity.run(seconds, model, device, threads, hop_s, still=still, show=show))
        else:
            reports.append(load.run(count, seconds or STREAMS_S, model, device, threads, hop_s, still=still))
        print(reports[-1], flush=True)
    if file:
        report_file.write(reports, file)
