"""The parts of `make gpu-check`, by name, with the time that is kept for each; those that run the program are here.

Every part also runs on the CPU, where it shows that the part itself works: bounds that only a GPU can keep count as
not measured there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch

from perceiverd.core.paths import shipped_config
from perceiverd.model.cuda.devices import gpu_of
from perceiverd.model.cuda.driver import Driver
from tests.gpu_check.accuracy import agreement
from tests.gpu_check.lasting import faults, memory
from tests.gpu_check.nvdec import nvdec
from tests.gpu_check.result import Check, Result, Setup
from tests.gpu_check.soak import soak
from tests.gpu_check.timing import public, speed
from tests.support.clips import write_clip

TESTS = ("tests/model", "tests/bench", "tests/gpu")
REHEARSED = ("tests/model/cuda/test_driver.py",)
"""What `pytest` runs on a CPU: the other tests are for it anyway."""
LEAVE_S = 10.0
"""Of a part's time, what loading and the end take."""
DROPPED = 0.01
"""The share of windows that may be dropped with many streams."""
OFF = 1e-3
"""How far the scores of files in joint batches may be from those of one file at a time, in half precision."""


def facts(setup: Setup) -> Result:
    """The machine and its software."""
    numbers: dict[str, Any] = {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": sys.version.split()[0],
        "cores": len(os.sched_getaffinity(0)),
        "driver": msgspec.to_builtins(Driver.found()),
    }
    if setup.is_gpu:
        numbers["gpu"] = msgspec.to_builtins(gpu_of(setup.device))
        numbers["nvidia-smi"] = _said(
            ["nvidia-smi", "--query-gpu=name,driver_version,clocks.sm,mig.mode.current", "--format=csv"]
        )
    what = str(gpu_of(setup.device)) if setup.is_gpu else "no GPU: this run shows only that the check works"
    return Result("facts", f"{what}; torch {torch.__version__}", [], numbers)


def tests(setup: Setup) -> Result:
    """`pytest -m gpu`."""
    wanted, where = ("gpu", TESTS) if setup.is_gpu else ("not gpu", REHEARSED)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", wanted, *where]
    done = subprocess.run(command, capture_output=True, text=True, timeout=setup.limit_s - LEAVE_S)
    last = ((done.stdout.strip() or done.stderr.strip()).splitlines() or ["no output"])[-1]
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    check = Check("the tests for GPUs pass", done.returncode == 0, "; ".join([last, *failed]))
    return Result("tests", last, [check], {"failed": failed, "text": done.stdout[-4000:]})


def streams(setup: Setup) -> Result:
    """A daemon with many streams of the bundled clip, four hops a second, decoding included."""
    count, seconds = (32, 20) if setup.is_gpu else (1, 5)
    with tempfile.TemporaryDirectory(prefix="perceiverd-gpu-") as folder:
        file = Path(folder) / "streams.json"
        command = [sys.executable, "-m", "perceiverd", "bench", setup.model, "--streams", str(count)]
        command += ["--seconds", str(seconds), "--hop", "0.25", "--device", str(setup.device), "--json", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=setup.limit_s - LEAVE_S)
        found = json.loads(file.read_text()) if file.exists() else []
    lines = (done.stdout.strip() or done.stderr.strip() or "no output").splitlines()
    checks = [Check("many streams run", done.returncode == 0, lines[-1])]
    if found:
        one = found[0]
        share = one["dropped"] / max(1, one["expected"])
        text = f"{one['tagged']} of {one['expected']} tagged, {share:.1%} dropped, p99 {one['p99_ms']:.0f} ms"
        what = f"{count} streams at 4 hops a second drop at most {DROPPED:.0%}"
        checks.append(setup.check(what, share <= DROPPED, text))
    return Result("streams", checks[-1].found, checks, {"report": found, "text": done.stdout[-4000:]})


def files(setup: Setup) -> Result:
    """Many files at once, beside one at a time: equal scores, and how much faster."""
    count = 24 if setup.is_gpu else 2
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="perceiverd-gpu-") as folder:
        media = Path(folder) / "media"
        media.mkdir()
        clip = shipped_config("demo/clip.mp4")
        for number in range(count):
            if setup.is_gpu and clip:
                shutil.copy(clip, media / f"{number}.mp4")
            else:
                write_clip(media / f"{number}.mp4", audio_s=2, video_s=1)
        scores = {}
        for name, options in (("one", ["--jobs", "1"]), ("many", [])):
            out = Path(folder) / name
            command = [sys.executable, "-m", "perceiverd", "tag", str(media), "--out", str(out), "--device"]
            command += [str(setup.device), "--model", setup.model, "--format", "jsonl", "--scores", *options]
            began_s = time.monotonic()
            done = subprocess.run(command, capture_output=True, text=True, timeout=setup.limit_s - LEAVE_S)
            seconds[name] = time.monotonic() - began_s
            if done.returncode:
                return Result.failed("files", done.stderr.strip().splitlines()[-1], done.stderr.splitlines()[-20:])
            scores[name] = _scores(out)
    off = max((abs(a - b) for a, b in zip(scores["one"], scores["many"], strict=True)), default=0.0)
    gain = seconds["one"] / seconds["many"]
    checks = [
        Check("files in joint batches have the scores of one at a time", off < OFF, f"within {off:.1e}"),
        setup.check("many files at once are faster", gain > 1, f"{gain:.1f} times, {count} files, start included"),
    ]
    return Result("files", checks[1].found, checks, {"seconds": seconds})


def _scores(out: Path) -> list[float]:
    """The best score of each window, in the order of files and windows."""
    found = []
    for path in sorted(out.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            record = json.loads(line)
            if record["type"] == "scores":
                found.append(float(record["labels"][0]["score"]))
    return found


def _said(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)


PARTS: dict[str, Callable[[Setup], Result]] = {
    "facts": facts,
    "agreement": agreement,
    "speed": speed,
    "public": public,
    "memory": memory,
    "faults": faults,
    "streams": streams,
    "files": files,
    "nvdec": nvdec,
    "tests": tests,
    "soak": soak,
}
SECONDS = {
    "facts": 20,
    "agreement": 60,
    "speed": 50,
    "public": 130,
    "memory": 35,
    "faults": 45,
    "streams": 55,
    "files": 45,
    "nvdec": 25,
    "tests": 50,
    "soak": 50,
}
"""The time that is kept for each part. Together they are less than ten minutes; a part may use what others did not."""
