"""`perceiverd bench`: which measurement to run for which model, and where its report goes. Measures nothing itself."""

from __future__ import annotations

from pathlib import Path

import typer

from perceiverd.model.card import DEFAULT


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


def streams(
    models: list[str] | None,
    device: str,
    threads: int,
    count: int,
    seconds: float,
    *,
    hop_s: float,
    still: bool,
    file: Path | None,
) -> None:
    """Replay `count` streams through a daemon and print what it achieved, for each model. Raises PerceiverdError.

    All numbers go to `file` too, if it is given.
    """
    from perceiverd.bench import load, report_file

    if file:
        report_file.check(file)  # before the measurement, which takes minutes
    reports: list[load.LoadReport] = []
    for model in models or [DEFAULT]:
        reports.append(load.run(count, seconds, model, device, threads, hop_s, still=still))
        print(reports[-1], flush=True)
    if file:
        report_file.write(reports, file)
