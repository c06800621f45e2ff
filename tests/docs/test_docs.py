"""What the documents say is so: commands, options, wire, modules; and every test says what it shows."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
import typer

from perceiverd import __version__
from perceiverd.cli import app
from perceiverd.training.cli import app as training
from perceiverd.wire import messages
from perceiverd.wire.publisher import Publisher
from tests.support.messages import scores, until

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")


def commands(group: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every command under its name, those of a group under both names."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path}{name} ")
        else:
            yield path + name, command


COMMANDS = dict(commands(typer.main.get_command(app.app)))
TRAINING: dict[str, Any] = typer.main.get_command(training.app).commands  # type: ignore[attr-defined]
ELSEWHERE = {"train": "has a command line of its own"}

TEST_MODULES = sorted((ROOT / "tests").rglob("test_*.py"))


def options(command: Any) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts if name.startswith("--")} - {"--help"}


def shell_lines() -> Iterator[list[str]]:
    """The words of every line of a shell block that calls the program."""
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL):
        for line in block.splitlines():
            words = line.partition("#")[0].split()
            if words and words[0] == "perceiverd":
                yield words[1:]


def test_commands_that_are_shown_exist() -> None:
    """Every command in the README's shell blocks is one, and has the options that it is shown with."""
    lines = list(shell_lines())
    assert lines
    for words in lines:
        command = next((name for name in (" ".join(words[:2]), words[0]) if name in COMMANDS), None)
        assert command, words
        arguments = words[len(command.split()) :]
        known = TRAINING[arguments[0]] if command == "train" else COMMANDS[command]
        assert {word for word in arguments if word.startswith("--")} <= options(known)


def test_commands_and_options_are_shown() -> None:
    """The README names every command, and every option that a command has."""
    for name, command in COMMANDS.items():
        assert f"perceiverd {name}" in README
        if name not in ELSEWHERE:
            missing = {option for option in options(command) if not re.search(rf"{option}\b", README)}
            assert not missing, name


def test_make_targets_exist() -> None:
    """Every `make TARGET` in the README is in the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    shown = set(re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)`", README, re.MULTILINE))
    assert {name for pair in shown for name in pair if name} <= targets


def keys(struct: type, prefix: str = "") -> Iterator[str]:
    """The keys of a message on the wire, those of what is inside it with a path."""
    info = msgspec.inspect.type_info(struct)
    assert isinstance(info, msgspec.inspect.StructType)
    if info.tag_field:
        yield info.tag_field
    for field in info.fields:
        kind, path = field.type, prefix + field.encode_name
        if isinstance(kind, msgspec.inspect.VarTupleType):
            kind, path = kind.item_type, f"{path}[]"
        if isinstance(kind, msgspec.inspect.StructType):
            yield from keys(kind.cls, f"{path}.")
        else:
            yield path.removesuffix("[]")


@pytest.mark.parametrize("message", get_args(messages.Message), ids=lambda kind: kind.__name__)
def test_the_wire_is_as_the_table_says(message: type) -> None:
    """A message has the keys that the README's table gives it, and no others."""
    name = message.__name__.lower()
    rows = re.findall(r"^\| (`[^|]+`) \| ([a-z, ]+) \|", README, re.MULTILINE)
    told = [
        key
        for names, where in rows
        if where == "all" or name in where.split(", ")
        for key in re.findall(r"`([^`]+)`", names)
    ]
    assert sorted(told) == sorted(keys(message))


@pytest.mark.parametrize("program", re.findall(r"```python\n(.*?)```", README, re.DOTALL), ids=["client", "pyzmq"])
def test_python_that_is_shown_runs(program: str) -> None:
    """The README's programs, run as they stand but for the endpoint, print the best label of a stream."""
    with Publisher("tcp://127.0.0.1:*") as publisher:
        program = program.replace("ipc:///run/perceiverd/labels", publisher.endpoint)
        command = [sys.executable, "-u", "-c", program]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as reader:
            try:
                until(publisher, lambda: publisher.subscriptions > 0 or reader.poll() is not None)
                publisher.send(scores("door"))
                assert reader.stdout
                printed = reader.stdout.readline()
            finally:
                reader.kill()
    assert scores("door").labels[0].name in printed


def test_modules_are_on_the_map() -> None:
    """ARCHITECTURE.md names every module, and those of `sources/`."""
    here = [*ROOT.glob("perceiverd/*.py"), *ROOT.glob("perceiverd/sources/*.py")]
    names = {path.stem for path in here if not path.stem.startswith("__")}
    assert {name for name in names if f"`{name}`" not in ARCHITECTURE} == set()


def test_layers_are_on_the_map() -> None:
    """ARCHITECTURE.md names the modules in the order in which pyproject.toml layers them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    layered = [re.findall(r"\w+", layer) for layer in contracts[0]["layers"]]
    table = ARCHITECTURE.partition("| layer, top to bottom")[2].partition("\n\n")[0]
    first_seen = [min(re.search(rf"`{name}/?`", table).start() for name in layer) for layer in layered]  # type: ignore[union-attr]
    assert first_seen == sorted(first_seen)


def test_the_changelog_tells_of_this_version() -> None:
    """The newest entry of CHANGELOG.md is the package's version."""
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (\S+?),", changelog, re.MULTILINE)
    assert newest
    assert newest[1] == __version__


def test_links_lead_somewhere() -> None:
    """Files that README and ARCHITECTURE.md link to are there."""
    for document in (README, ARCHITECTURE):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", document):
            assert (ROOT / target).exists(), target


@pytest.mark.parametrize("path", TEST_MODULES, ids=lambda path: str(path.relative_to(ROOT / "tests")))
def test_every_test_says_what_it_shows(path: Path) -> None:
    """Each test has a docstring, whose first line is a sentence."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tests = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    silent = [node.name for node in tests if not re.match(r".*\.(\n|$)", ast.get_docstring(node) or "")]
    assert not silent
