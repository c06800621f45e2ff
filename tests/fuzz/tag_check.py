"""Media files through the real `perceiverd tag`: one run for many files, and each file has records or one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.target import ROOT, Outcome
from tests.support.clips import make_model

START_LIMIT_S, FILE_LIMIT_S = 120, 20
"""How long a run may take for itself and for each file, on a busy machine."""


def check(inputs: Sequence[bytes], scratch: Path) -> list[tuple[bytes, Outcome]]:
    """The inputs that `tag` fails on, with the failure. If a run fails as a whole, each file is tried alone."""
    model = scratch / "tiny"
    if not model.exists():
        make_model(model)
    fault = _run(inputs, scratch, model)
    if fault is None:
        return []
    alone = [(data, _run([data], scratch, model)) for data in inputs] if len(inputs) > 1 else []
    found = [(data, outcome) for data, outcome in alone if outcome]
    return found or [(inputs[-1], fault)]


def _run(inputs: Sequence[bytes], scratch: Path, model: Path) -> Outcome | None:
    """What is wrong with one run of `perceiverd tag` over these inputs; None if nothing is."""
    files = [scratch / f"{number}.media" for number in range(len(inputs))]
    for file, data in zip(files, inputs, strict=True):
        file.write_bytes(data)
    command = [sys.executable, "-m", "perceiverd", "tag", "--format", "jsonl", "--model", str(model), *map(str, files)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=START_LIMIT_S + FILE_LIMIT_S * len(files),
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
    except subprocess.TimeoutExpired:
        return Outcome("hang", "tag", f"`perceiverd tag` of {len(files)} files does not end\n")
    errors = done.stderr.decode(errors="replace")
    if done.returncode not in (0, 1):
        return Outcome("error", f"tag ends with {done.returncode}", errors)
    if "Traceback" in errors:
        return Outcome("error", f"tag {errors.splitlines()[-1][:80]}", errors)
    tagged = {json.loads(line)["file"] for line in done.stdout.splitlines()}
    for file in files:
        lines = errors.count(f"perceiverd: {file}: ")
        if lines > 1 or not (lines or str(file) in tagged):
            return Outcome("error", f"tag: {lines} lines for a file", f"{file}: {lines} lines of error\n{errors}")
    return None
