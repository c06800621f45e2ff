"""Checks and measures everything that needs a GPU, in ten minutes: `make gpu-check`, or `python -m tests.gpu_check`.

Each part is a process of its own with a time limit: one that hangs or crashes costs only itself. report.json and
report.md are written to the folder `--out` after each part, so that a run that is cut short leaves what it found. The
exit status is 1 if something is not as it should be.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import msgspec

from perceiverd.core.errors import PerceiverdError
from perceiverd.model.batch_sizes import SIZES
from perceiverd.model.card import DEFAULT
from perceiverd.model.cuda.devices import device_of
from tests.gpu_check.parts import PARTS, SECONDS
from tests.gpu_check.report import write
from tests.gpu_check.result import Result, Setup

SHORTEST_S = 8.0
"""A part with less time than this could not even load its libraries."""
MINUTES = 9.5
SOAK_S = 180.0
"""The longest soak of a call of ten minutes; it gets less if other parts need the time."""
TAIL = 30
"""Lines of a part's output that are kept if it fails."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        device_of(options.device)
    except PerceiverdError as error:
        print(f"gpu-check: {error}", file=sys.stderr)
        return 1
    if options.result:
        msgspec_write(options.result, run_part(options.parts[0], _setup(options)))
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    names, results = options.parts or list(PARTS), list[Result]()
    ends_s = time.monotonic() + 60 * (options.minutes or MINUTES + max(0.0, options.soak_seconds - SOAK_S) / 60)
    for number, name in enumerate(names):
        # The time that earlier parts did not need is for this one; that of later parts is kept for them.
        limit_s = ends_s - time.monotonic() - sum(SECONDS[other] for other in names[number + 1 :])
        print(f"{name} ... (at most {limit_s:.0f} s)", flush=True)
        if options.in_process:
            results.append(run_part(name, _setup(options)))
        else:
            results.append(run_apart(name, own_options(options), limit_s))
        write(options.out, results)
        last = results[-1]
        print(f"  {'ok' if last.ok else 'NOT OK'} ({last.seconds:.0f} s): {last.summary}", flush=True)
    print(f"{options.out}/report.md")
    return int(not all(result.ok for result in results))


def own_options(options: argparse.Namespace) -> list[str]:
    """The options that differ from their defaults, for the process of a part. A value may be the name of a part."""
    found = []
    for action in _parser()._actions:
        given = getattr(options, action.dest, action.default)
        if action.option_strings and action.nargs is None and given != action.default:
            found += [action.option_strings[0], str(given)]
    return found


def run_apart(name: str, given: Sequence[str], limit_s: float, module: str = "tests.gpu_check") -> Result:
    """One part in a process of its own, which is killed with its children when its time is over. `given`: options."""
    if limit_s < SHORTEST_S:
        return Result.failed(name, "no time was left", [])
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="perceiverd-gpu-") as folder:
        file, log = Path(folder) / "result.json", Path(folder) / "log"
        command = [sys.executable, "-m", module, *given, "--limit", f"{limit_s:.0f}", "--result", str(file), name]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
            try:
                status: int | None = process.wait(limit_s)
            except subprocess.TimeoutExpired:
                status = None
            finally:
                with contextlib.suppress(ProcessLookupError):  # also what a part has left behind
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        lines = log.read_text(errors="replace").splitlines()[-TAIL:]
        if status is None:
            result = Result.failed(name, f"not done after {limit_s:.0f} s", lines)
        elif status or not file.exists():
            why = f"its process ended with status {status}" if status >= 0 else f"killed by signal {-status}"
            result = Result.failed(name, why, lines)
        else:
            result = msgspec.json.decode(file.read_bytes(), type=Result)
    result.seconds = round(time.monotonic() - began_s, 1)
    return result


def run_part(name: str, setup: Setup) -> Result:
    """One part in this process; its exception is its result."""
    began_s = time.monotonic()
    try:
        result = PARTS[name](setup)
    except Exception as error:  # the other parts still run
        lines = traceback.format_exc().splitlines()
        result = Result.failed(name, f"{type(error).__name__}: {error}".splitlines()[0], lines[-TAIL:])
    result.seconds = round(time.monotonic() - began_s, 1)
    return result


def msgspec_write(file: Path, result: Result) -> None:
    """Hand a result to the process that started this one."""
    file.write_bytes(msgspec.json.encode(result, enc_hook=str))


def _setup(options: argparse.Namespace) -> Setup:
    sizes = tuple(size for size in SIZES if size <= options.max_batch)
    device = device_of(options.device)
    return Setup(device, options.model, options.soak_seconds, options.rounds, sizes, options.limit, options.manifest)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gpu-check", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N; cpu rehearses the check")
    parser.add_argument("--out", type=Path, default=Path("build/gpu-check"), help="the folder of the report")
    parser.add_argument("--model", default=DEFAULT, help="a model's name or folder")
    parser.add_argument("--manifest", default="", help="labelled recordings for `perceiverd eval`, as a CSV")
    parser.add_argument(
        "--minutes", type=float, help=f"all parts together take at most so long; {MINUTES}, or more for a longer soak"
    )
    parser.add_argument("--soak-seconds", type=float, default=SOAK_S, help="at most; 600 for the full one")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--max-batch", type=int, default=max(SIZES))
    parser.add_argument("--in-process", action="store_true", help="run the parts in this process, without limits")
    parser.add_argument("--limit", type=float, default=600.0, help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    parser.add_argument(
        "parts", nargs="*", choices=[*PARTS, []], metavar="PART", help=f"some of {', '.join(PARTS)}; all if none"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
