"""What README, ARCHITECTURE and CHANGELOG say is so; and every test says what it shows."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from docs.generate.commands import commands, options
from perceiverd import __version__
from perceiverd.cli.app import app
from perceiverd.config import load
from perceiverd.core.errors import ConfigError
from perceiverd.core.log_events import EVENTS
from perceiverd.history.settings import load as load_history
from perceiverd.training.cli.app import app as training
from perceiverd.web.settings import load as load_web
from perceiverd.wire.publisher import Publisher
from tests.support.messages import event, scores, until

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
ROOMS = sorted(path.parent.name for path in (ROOT / "perceiverd").glob("*/__init__.py"))

LIMITS = [("README.md", 150), ("ARCHITECTURE.md", 120), ("models/ear-and-eye-small/README.md", 150)]
"""The most lines of a document."""
COMMANDS = commands(app) | {f"train {name}": command for name, command in commands(training).items()}
TEST_MODULES = sorted((ROOT / "tests").rglob("test_*.py"))
TEXTS = [
    path
    for path in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
    if not path.is_relative_to(ROOT / "docs" / "generate")
]
PROGRAMS = [
    pytest.param(program, id=f"{path.relative_to(ROOT)}-{number}")
    for path in TEXTS
    for number, program in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL))
    if "for item in subscription" in program or "recv_multipart" in program
]
"""Python in the documents that prints what a daemon publishes."""


@pytest.mark.parametrize(("name", "most"), LIMITS)
def test_documents_are_short(name: str, most: int) -> None:
    """README, ARCHITECTURE and the model card stay below their limits; details have other pages."""
    assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= most


def shell_lines(text: str) -> Iterator[list[str]]:
    """The words of every line in a shell block that calls the program, without its name."""
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = line.partition("#")[0].partition("|")[0].split()
            if words and words[0] == "perceiverd":
                yield words[1:]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_that_are_shown_exist(path: Path) -> None:
    """Every command in a document's shell blocks exists and has the options it is shown with."""
    for words in shell_lines(path.read_text(encoding="utf-8")):
        command = next((name for name in (" ".join(words[:2]), words[0]) if name in COMMANDS), None)
        assert command, words
        shown = {word.partition("=")[0] for word in words if word.startswith("--")} - {"--help"}
        assert shown <= options(COMMANDS[command]), words


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_make_targets_exist(path: Path) -> None:
    """Every `make TARGET` in a document is in the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    shown = re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)[^`]*`", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert {name for pair in shown for name in pair if name} <= targets


def test_the_readme_shows_subscribing() -> None:
    """The README's first screen has a Python program; it is among those that are run."""
    assert any(program.id == "README.md-0" for program in PROGRAMS)


@pytest.mark.parametrize("program", PROGRAMS)
def test_python_that_is_shown_runs(program: str) -> None:
    """A program in a document, run as it stands except for the endpoint, prints what a daemon publishes."""
    with Publisher("tcp://127.0.0.1:*") as publisher:
        program = re.sub(r"ipc:///[\w/.]+", publisher.endpoint, program)
        command = [sys.executable, "-u", "-c", program]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as reader:
            try:
                until(publisher, lambda: publisher.subscriptions > 0 or reader.poll() is not None)
                for stream in ("door", "room"):
                    publisher.send(event("begin", 1, stream))
                    publisher.send(scores(stream))
                assert reader.stdout
                printed = reader.stdout.readline()
            finally:
                reader.kill()
    assert "Dog" in printed


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_configurations_that_are_shown_are_valid(path: Path, tmp_path: Path) -> None:
    """Every TOML block in a document is a configuration, or a part of one that lacks only the sources of a stream.

    A block whose first line is `# history.toml` or `# web.toml` is such a file; one of another file is not checked.
    """
    for number, block in enumerate(re.findall(r"```toml\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)):
        file = tmp_path / f"{number}.toml"
        file.write_text(block, encoding="utf-8")
        if block.startswith("# history.toml\n"):
            load_history(file)
            continue
        if block.startswith("# web.toml\n"):
            load_web(file)
            continue
        if re.match(r"# (?!perceiverd\.toml)[\w-]+\.toml\n", block):
            continue
        with suppress_missing_sources():
            load(file)


@contextmanager
def suppress_missing_sources() -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        if "'sources' is missing" not in str(error):
            raise


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_log_lines_that_are_shown_have_known_events(path: Path) -> None:
    """A line `name key=value ...` in a block without a language begins with a log event."""
    blocks = re.findall(r"^```\n(.*?)^```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    names = re.findall(r"^(?:\S+Z [A-Z]+ [\w.]+ )?([a-z-]+) [a-z_]+=", "\n".join(blocks), re.MULTILINE)
    assert set(names) <= EVENTS.keys()


def test_every_package_is_in_the_readme() -> None:
    """The README's tree has a line for each package."""
    assert [room for room in ROOMS if f"| `perceiverd/{room}` |" not in README] == []


def test_the_rooms_are_in_the_order_of_the_layers() -> None:
    """ARCHITECTURE's table has each package once, in the order in which pyproject.toml layers them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    level = {
        room: number
        for number, layer in enumerate(contracts["contracts"][0]["layers"])
        for room in re.findall(r"\w+", layer)
    }
    table = ARCHITECTURE.partition("\n| room |")[2].partition("\n\n")[0]
    rooms = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert sorted(rooms) == sorted(level) == ROOMS
    assert [level[room] for room in rooms] == sorted(level.values())


def test_files_of_the_architecture_exist() -> None:
    """Every file of the package that ARCHITECTURE names exists, and has the class or function named beside it."""
    named = re.findall(r"`(?!tests/)([a-z_]+/[\w/]+\.py)`(?:, `(\w+)(?:\.(\w+))?`)?", ARCHITECTURE)
    assert named
    for path, *names in named:
        text = (ROOT / "perceiverd" / path).read_text(encoding="utf-8")
        assert [name for name in names if name and not re.search(rf"(class|def) {name}\b", text)] == [], path


def test_the_changelog_describes_this_version() -> None:
    """The newest entry of CHANGELOG.md is the package's version."""
    newest = re.search(r"^## (\S+?),", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest and newest[1] == __version__


@pytest.mark.parametrize("path", TEST_MODULES, ids=lambda path: str(path.relative_to(ROOT / "tests")))
def test_every_test_says_what_it_shows(path: Path) -> None:
    """Each test has a docstring whose first line is a sentence."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tests = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    silent = [node.name for node in tests if not re.match(r".*\.(\n|$)", ast.get_docstring(node) or "")]
    assert not silent
