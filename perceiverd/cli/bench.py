"""`perceiverd bench`: which measurement to run for which model, and where its report goes. Measures nothing itself."""

from __future__ import annotations

from pathlib import Path

import typer

from perceiverd.model.card import DEFAULT


def networks(
    models: list[str] | None, device: str, threads: int, rounds: int, *, growth: bool, file: Path | None
) -> None:
    """Time each network, print a table for each, and write all numbers to `file`. Raises PerceiverdError."""
    from perceiverd.bench import latency

    models = models or [DEFAULT, latency.PUBLIC]
    if growth and latency.PUBLIC not in models:
        raise typer.BadParameter(f"it measures the sizes of `{latency.PUBLIC}`; name that too", param_hint="'--growth'")
    if file:
        latency.check(file)  # before the measurement, which takes minutes
    reports: list[latency.BenchReport] = []
    for model in models:
        report = latency.run(model, device, threads, rounds, growth and model == latency.PUBLIC)
        print(("\n" if reports else "") + latency.table(report), flush=True)
        reports.append(report)
    if file:
        latency.write(reports, file)


def streams(models: list[str] | None, device: str, threads: int, count: int, seconds: float) -> None:
    """Replay `count` streams through a daemon and print what it achieved, for each model. Raises PerceiverdError."""
    from perceiverd.bench import load

    for model in models or [DEFAULT]:
        print(load.run(count, seconds, model, device, threads), flush=True)
