"""`cli.md`: the help text of every command, as the program prints it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer
from typer.testing import CliRunner

from perceiverd.cli import app as main
from perceiverd.training.cli import app as training

COLUMNS = "100"
"""The width of the help texts; Typer itself stops at 80."""
PROGRAM = "perceiverd"


def contents() -> dict[str, str]:
    """The parts of the page."""
    return {"commands": "\n\n".join(_sections(main.app, PROGRAM)), "train": "\n\n".join(_sections(training.app, TRAIN))}


TRAIN = f"{PROGRAM} train"


def commands(app: typer.Typer) -> dict[str, Any]:
    """Every command by its words (`config check`), without the groups that only hold others."""
    return dict(_leaves(typer.main.get_command(app), ""))


def options(command: Any) -> set[str]:
    """The long options of a command, without `--help` and hidden ones."""
    shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    return {name for parameter in shown for name in parameter.opts if name.startswith("--")} - {"--help"}


def _leaves(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            if command.invoke_without_command:  # a group that is a command, too
                yield path + name, command
            yield from _leaves(command, f"{path}{name} ")
        else:
            yield path + name, command


def _sections(app: typer.Typer, program: str) -> Iterator[str]:
    for words in ["", *commands(app)]:
        full = f"{program} {words}".strip()
        if full != TRAIN or program == TRAIN:  # `train` has no help of its own in the main program
            yield f"## {full}\n\n```\n{help_of(app, words.split(), program)}\n```"


def help_of(app: typer.Typer, words: list[str], program: str = PROGRAM) -> str:
    """What `perceiverd WORDS --help` prints."""
    environment = {"COLUMNS": COLUMNS, "TERMINAL_WIDTH": COLUMNS, "NO_COLOR": "1"}
    result = CliRunner().invoke(app, [*words, "--help"], prog_name=program, env=environment)
    if result.exit_code:
        raise RuntimeError(f"{program} {' '.join(words)} --help ends with status {result.exit_code}: {result.output}")
    return result.output.strip()
