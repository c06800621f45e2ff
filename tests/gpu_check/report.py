"""The report of the check: a table of verdicts first, then what each part found."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.gpu_check.result import Result


def write(folder: Path, results: Sequence[Result]) -> None:
    """Write report.json and report.md."""
    found = [dataclasses.asdict(result) | {"ok": result.ok} for result in results]
    text = json.dumps(found, indent=1, default=str)
    (folder / "report.json").write_text(text + "\n", encoding="utf-8")
    (folder / "report.md").write_text("\n".join(_lines(results)) + "\n", encoding="utf-8")


def _lines(results: Sequence[Result]) -> list[str]:
    lines = ["# GPU check", "", datetime.now(UTC).isoformat(timespec="seconds")]
    lines += ["", "| what must be so | it is so | found |", "|---|---|---|"]
    lines += [
        f"| {check.what} | {check.verdict} | {_cell(check.found)} |" for result in results for check in result.checks
    ]
    lines += ["", "| part | time | found |", "|---|--:|---|"]
    lines += [f"| {each.name} | {each.seconds:.0f} s | {_cell(each.summary)} |" for each in results]
    for each in results:
        if "text" in each.numbers:
            lines += ["", f"## {each.name}", "", "```", str(each.numbers["text"]), "```"]
        if each.numbers.get("traceback"):
            lines += ["", f"## {each.name}", "", "```", *each.numbers["traceback"], "```"]
    return lines


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())
