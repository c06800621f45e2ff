"""Checks and measures everything that needs a GPU, in ten minutes: `make gpu-check`, or `python -m tests.gpu_check`.

Writes report.json and report.md to the folder `--out`, after each part, so that a run that is cut short leaves what it
found. The exit status is 1 if a part failed or was not as it should be.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from perceiverd.core.errors import PerceiverdError
from perceiverd.model.card import DEFAULT
from perceiverd.model.cuda.devices import device_of
from perceiverd.model.cuda.engine import SIZES
from tests.gpu_check.parts import PARTS, Result, Setup


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        device = device_of(options.device)
    except PerceiverdError as error:
        print(f"gpu-check: {error}", file=sys.stderr)
        return 1
    sizes = tuple(size for size in SIZES if size <= options.max_batch)
    setup = Setup(device, options.model, options.soak_seconds, options.rounds, sizes)
    options.out.mkdir(parents=True, exist_ok=True)
    results: list[Result] = []
    for name in options.parts or PARTS:
        print(f"{name} ...", flush=True)
        results.append(run_part(name, setup))
        write(options.out, results)
        last = results[-1]
        print(f"  {'ok' if last.ok else 'NOT OK'} ({last.seconds:.0f} s): {last.summary}", flush=True)
    print(f"{options.out}/report.md")
    return int(not all(result.ok for result in results))


def run_part(name: str, setup: Setup) -> Result:
    """One part; its exception is its result."""
    began_s = time.monotonic()
    try:
        result = PARTS[name](setup)
    except Exception as error:  # the other parts still run
        lines = traceback.format_exc().splitlines()
        result = Result(name, False, f"{type(error).__name__}: {error}", {"traceback": lines[-30:]})
    result.seconds = round(time.monotonic() - began_s, 1)
    if setup.is_gpu:
        torch.cuda.empty_cache()
    return result


def write(folder: Path, results: Sequence[Result]) -> None:
    """Write both reports."""
    found = [dataclasses.asdict(result) for result in results]
    text = json.dumps(found, indent=1, default=str)
    (folder / "report.json").write_text(text + "\n", encoding="utf-8")
    lines = [
        "# GPU check",
        "",
        datetime.now(UTC).isoformat(timespec="seconds"),
        "",
        "| part | as it should be | time | found |",
    ]
    lines += ["|---|---|--:|---|"]
    lines += [
        f"| {each.name} | {'yes' if each.ok else '**no**'} | {each.seconds:.0f} s | {each.summary.replace('|', '/')} |"
        for each in results
    ]
    for each in results:
        if "text" in each.numbers:
            lines += ["", f"## {each.name}", "", "```", str(each.numbers["text"]), "```"]
        if "traceback" in each.numbers:
            lines += ["", f"## {each.name}", "", "```", *each.numbers["traceback"], "```"]
    (folder / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gpu-check", description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N; cpu shows that the check works")
    parser.add_argument("--out", type=Path, default=Path("build/gpu-check"), help="the folder of the report")
    parser.add_argument("--model", default=DEFAULT, help="a model's name or folder")
    parser.add_argument("--soak-seconds", type=float, default=180.0)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--max-batch", type=int, default=max(SIZES))
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"some of {', '.join(PARTS)}; all if none is given")
    return parser


if __name__ == "__main__":
    sys.exit(main())
