"""Fuzzes perceiverd: `python -m tests.fuzz run [TARGET ...]`, and `repeat TARGET FILE` for one input.

Targets run side by side, each in a process of its own. Ends with 1 if an input led to what the program never may.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.fuzz.targets import NAMES, load

UNGUIDED = ("media",)
EXTRA_S = 120
"""How much longer than asked for a guided run may take before it is ended."""


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="fuzz these targets, or all")
    run.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(NAMES)}")
    run.add_argument("--seconds", type=int, default=60, help="for each target (60)")
    run.add_argument("--seed", type=int, default=0, help="the same seed and folder give the same inputs (0)")
    run.add_argument("--folder", type=Path, default=Path("build/fuzz"), help="with corpus and failures (build/fuzz)")
    run.add_argument("--fresh", action="store_true", help="empty the folder first")
    run.add_argument("--guided", action="store_true", help="with Atheris, if it is installed")
    again = commands.add_parser("repeat", help="give one input to a target again")
    again.add_argument("target", choices=(*NAMES, "faulty"))
    again.add_argument("file", type=Path)
    options = parser.parse_args(arguments)
    if options.command == "repeat":
        return _repeat(options.target, options.file)
    if unknown := set(options.targets) - set(NAMES):
        parser.error(f"unknown target {', '.join(sorted(unknown))}; choose from {', '.join(NAMES)}")
    names = options.targets or list(NAMES)
    if options.fresh:
        for name in names:
            shutil.rmtree(options.folder / name, ignore_errors=True)
    if len(names) > 1:
        return _side_by_side(names, options)
    return _fuzz(names[0], options)


def _repeat(name: str, file: Path) -> int:
    from tests.fuzz.driver import repeat

    outcome = repeat(load(name), file)
    print(f"{outcome.kind}: {outcome.signature}\n{outcome.detail}".rstrip())
    return 1 if outcome.is_failure else 0


def _side_by_side(names: list[str], options: argparse.Namespace) -> int:
    flags = ["--seconds", str(options.seconds), "--seed", str(options.seed), "--folder", str(options.folder)]
    flags += ["--guided"] if options.guided else []
    own = [subprocess.Popen([sys.executable, "-m", "tests.fuzz", "run", *flags, name]) for name in names]
    return max(each.wait() for each in own)


def _fuzz(name: str, options: argparse.Namespace) -> int:
    folder: Path = options.folder / name
    folder.mkdir(parents=True, exist_ok=True)
    if options.guided and name not in UNGUIDED and importlib.util.find_spec("atheris"):
        return _guided(name, options.seconds, options.seed, folder)
    from tests.fuzz.driver import fuzz

    report = fuzz(load(name), folder, options.seconds, options.seed)
    print("\n".join(report.lines()), flush=True)
    return 1 if report.failures else 0


def _guided(name: str, seconds: int, seed: int, folder: Path) -> int:
    """Run Atheris. Failures of earlier runs are repeated first, so those that are left are there now."""
    log, state = folder / "atheris.log", folder / "runs"
    run = int(state.read_text()) if state.exists() else 0  # each run draws other changes
    with TemporaryDirectory() as scratch, log.open("wb") as output:
        command = [sys.executable, "-m", "tests.fuzz.guided", name, str(seconds), str(seed + run), str(folder), scratch]
        limit_s = seconds + EXTRA_S
        status = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, timeout=limit_s).returncode
    state.write_text(str(run + 1))
    failures = [path for path in sorted((folder / "failures").iterdir()) if path.suffix != ".txt"]
    corpus = len(list((folder / "corpus").iterdir()))
    print(f"{name}: {seconds} s with Atheris, {corpus} in the corpus, {len(failures)} failures; details: {log}")
    for path in failures:
        print(f"{name}: FAILED: {path} (the text beside it has the command)", flush=True)
    return 1 if failures or status else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
