"""The command line: what it loads, what it refuses, and its exit statuses."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from perceiverd import __version__
from perceiverd.cli import app
from perceiverd.cli.console import EXIT_BROKEN_PIPE
from tests.support.clips import write_clip
from tests.support.program import PROGRAM, Perceiverd

HELP_S = 0.3
COMMANDS = [[], ["run"], ["watch"], ["explain"], ["tag"], ["demo"], ["bench"], ["models"]]
COMMANDS += [["models", name] for name in ("list", "info", "verify", "import")]
COMMANDS += [["config"], ["config", "check"], ["config", "show"], ["config", "schema"], ["bridge"], ["bridge", "mqtt"]]
COMMANDS += [["keys"], ["keys", "new"], ["schema"]]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help(perceiverd: Perceiverd, command: list[str]) -> None:
    """`--help` describes each command with its options on standard output."""
    status, out, err = perceiverd(*command, "--help")
    assert (status, err) == (0, "")
    assert out.startswith(" ".join(["Usage: perceiverd", *command]))


def test_help_loads_nothing_heavy() -> None:
    """The command line loads none of torch, numpy, FFmpeg, ZeroMQ, rich and msgspec for its help."""
    code = "import sys, perceiverd.cli.app; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "av", "zmq", "rich", "msgspec"} & set(loaded)


def test_help_answers_at_once() -> None:
    """`--help` takes less than 0.3 s of CPU time more than Python's own start."""

    def seconds(*command: str) -> float:
        before = os.times()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    python = min(seconds(sys.executable, "-c", "pass") for _ in range(5))
    assert min(seconds(*PROGRAM, "--help") for _ in range(5)) - python < HELP_S


def test_version_is_printed(perceiverd: Perceiverd) -> None:
    """`--version` prints the package's version."""
    assert perceiverd("--version") == (0, f"perceiverd {__version__}\n", "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["--nonsense"],
        ["run"],
        ["run", "--nonsense"],
        ["explain", "--stream", "door"],
        ["watch", "tcp://127.0.0.1:1", "--top", "0"],
        ["tag"],
        ["tag", "a.wav", "--top", "0"],
        ["tag", "a.wav", "--top", "many"],
        ["tag", "a.wav", "--hop", "0"],
        ["tag", "a.wav", "--hop", "-1"],
        ["tag", "a.wav", "--hop", "nan"],
        ["tag", "a.wav", "--hop", "inf"],
        ["tag", "a.wav", "--hop", "1e-12"],
        ["tag", "a.wav", "--batch", "0"],
        ["tag", "a.wav", "--format", "xml"],
        ["tag", "a.wav", "--format", "text,jsonl"],
        ["tag", "a.wav", "--config", "c.toml"],
        ["models", "nonsense"],
        ["bridge", "mqtt"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_2(perceiverd: Perceiverd, arguments: list[str]) -> None:
    """Wrong usage ends with status 2 and an explanation on standard error, without a traceback."""
    status, out, err = perceiverd(*arguments)
    assert (status, out) == (2, "")
    assert "Usage: perceiverd" in err
    assert "Traceback" not in err


def test_no_command_shows_the_help(perceiverd: Perceiverd) -> None:
    """Without a command it prints the help and ends with status 2."""
    status, out, err = perceiverd()
    assert status == 2
    assert "Commands:" in out + err


def test_a_fault_is_one_line(perceiverd: Perceiverd, tmp_path: Path) -> None:
    """A missing model is one line on standard error, with status 1."""
    status, out, err = perceiverd("tag", tmp_path / "a.wav", "--model", tmp_path / "no")
    assert (status, out) == (1, "")
    assert err.startswith(f"perceiverd: unknown model '{tmp_path}/no")
    assert err.count("\n") == 1


def test_the_schema_is_printed(perceiverd: Perceiverd) -> None:
    """`schema` prints the shipped JSON Schema of the messages."""
    status, out, err = perceiverd("schema")
    assert (status, err) == (0, "")
    assert out == (Path(app.__file__).parents[1] / "wire" / "wire-1.json").read_text(encoding="utf-8")


def test_an_unknown_label_is_one_line(perceiverd: Perceiverd) -> None:
    """`explain` with a misspelt label suggests another one, without waiting for a daemon."""
    line = "perceiverd: unknown label 'dgo'; did you mean 'Dog'?\n"
    assert perceiverd("explain", "--stream", "door", "--label", "dgo") == (1, "", line)


def test_training_on_a_missing_path(perceiverd: Perceiverd, tiny_model: Path, tmp_path: Path) -> None:
    """A missing folder for a training command is wrong usage; an empty one is an error in one line."""
    status, out, err = perceiverd("train", "report", "--model", tiny_model, "--held-out", tmp_path / "no")
    assert (status, out) == (2, "") and "'--held-out'" in err and "does not exist" in err
    status, out, err = perceiverd("train", "report", "--model", tiny_model, "--held-out", tmp_path)
    assert (status, out) == (1, "")
    assert err.startswith(f"perceiverd: {tmp_path}: has no held-out windows")
    assert err.count("\n") == 1


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*PROGRAM, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )


def test_ctrl_c_prints_nothing(tiny_model: Path, tmp_path: Path) -> None:
    """Ctrl-C in the middle of a file ends with status 130 and no traceback."""
    path = write_clip(tmp_path / "long.wav", audio_s=60)
    with start("tag", path, "--model", tiny_model, "--hop", "0.002") as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")


@pytest.mark.parametrize("amid", [" typer.", " perceiverd.cli"])
def test_ctrl_c_prints_nothing_while_loading(amid: str, tmp_path: Path) -> None:
    """Ctrl-C prints no traceback while the command line is loading."""
    fifo = tmp_path / "c.toml"
    os.mkfifo(fifo)  # nobody writes into it, so the program cannot end before the signal comes
    command = [sys.executable, "-X", "importtime", *PROGRAM[1:], "config", "show", str(fifo)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        next(line for line in process.stderr if amid in line)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err


def test_a_reader_that_ends_early_is_no_error(tiny_model: Path, tmp_path: Path) -> None:
    """`| head` ends the program silently, with the status that a shell reports for SIGPIPE."""
    path = write_clip(tmp_path / "long.wav", audio_s=60)
    with start("tag", path, "--model", tiny_model, "--hop", "0.002") as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
        process.wait(timeout=60)
    assert (process.returncode, err) == (EXIT_BROKEN_PIPE, "")
