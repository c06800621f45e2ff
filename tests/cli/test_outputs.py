"""Outputs that are closed, full or lack letters: the real program, with what a shell can do to it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.offline.test_decoding import worker_of
from tests.support.clips import write_clip
from tests.support.program import PROGRAM

RUN = " ".join(PROGRAM)
FULL, CLOSED = "No space left on device", "it is closed"
PLAIN = {"LC_ALL": "C", "LANG": "", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        capture_output=True,
        encoding=environment.get("PYTHONIOENCODING", "utf-8").partition(":")[0],
        check=False,
        env=os.environ | environment,
        timeout=100,
    )


@pytest.mark.parametrize("command", ["--version", "tag --help", "schema", "config show --effective"])
@pytest.mark.parametrize(("to", "cause"), [(">/dev/full", FULL), (">&-", CLOSED)])
def test_an_output_that_cannot_be_written_is_one_line(command: str, to: str, cause: str) -> None:
    """The error is one line, and the status is 1."""
    done = shell(f"{RUN} {command} {to}")
    assert (done.returncode, done.stderr) == (1, f"perceiverd: cannot write the output: {cause}\n")


@pytest.mark.parametrize("to", ["2>/dev/full", "2>&-"])
def test_the_status_is_right_without_an_error_output(to: str) -> None:
    """Wrong usage is 2, even if nobody can read why."""
    assert shell(f"{RUN} --nonsense {to}").returncode == 2


@pytest.mark.parametrize("to", ["2>/dev/full", "2>&-"])
def test_files_are_tagged_without_an_error_output(tiny_model: Path, tmp_path: Path, to: str) -> None:
    """A broken file cannot be reported, the next one is tagged, and the status is 1."""
    path = write_clip(tmp_path / "a.wav", audio_s=1)
    done = shell(f"{RUN} tag --model {tiny_model} --format jsonl --scores /nowhere.wav {path} {to}")
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 2


def test_tag_to_a_closed_output_is_one_line(tiny_model: Path, tmp_path: Path) -> None:
    """`tag >&-` ends with status 1 and no traceback."""
    path = write_clip(tmp_path / "a.wav", audio_s=1)
    done = shell(f"{RUN} tag --model {tiny_model} {path} {path} >&-")
    assert (done.returncode, done.stderr) == (1, f"perceiverd: cannot write the output: {CLOSED}\n")


@pytest.mark.parametrize("environment", [PLAIN, {"PYTHONIOENCODING": "ascii:strict"}, {"PYTHONIOENCODING": "latin-1"}])
@pytest.mark.parametrize("form", ["text", "jsonl"])
def test_letters_that_an_output_lacks_are_escaped(
    tiny_model: Path, tmp_path: Path, environment: dict[str, str], form: str
) -> None:
    """All files are tagged, missing ones give a line each, and JSON stays JSON with the right names."""
    names = ["über.wav", "鳥の声.wav", "🦆.wav"]
    for name in names:
        write_clip(tmp_path / "a.wav", audio_s=1).rename(tmp_path / name)
    files = " ".join(f"'{tmp_path}/{name}'" for name in [*names, "鳥.wav"])
    done = shell(f"{RUN} tag --model {tiny_model} --format {form} --summary {files}", **environment)
    assert done.returncode == 1
    assert done.stderr == f"perceiverd: {tmp_path}/\\u9ce5.wav: there is no such file; check the path\n"
    if form == "jsonl":
        assert [Path(json.loads(line)["file"]).name for line in done.stdout.splitlines()] == names
    else:
        assert len(done.stdout.splitlines()) == 3


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_a_crash_while_decoding_is_one_line(tiny_model: Path, tmp_path: Path, number: signal.Signals) -> None:
    """The file that crashes FFmpeg costs one line, the others are tagged, and the status is 1."""
    path, fifo = write_clip(tmp_path / "a.wav", audio_s=1), tmp_path / "fifo"
    os.mkfifo(fifo)
    command = [*PROGRAM, "tag", "--model", str(tiny_model), "--summary", str(path), str(fifo), str(path)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process,
        fifo.open("wb") as pipe,  # open as soon as the program reads it
    ):
        pipe.write(path.read_bytes()[:5000])
        pipe.flush()
        os.kill(worker_of(process.pid), number)
        out, err = process.communicate(timeout=100)
    assert (process.returncode, len(out.splitlines()), err.count("\n")) == (1, 2, 1)
    assert err.startswith(f"perceiverd: {fifo}: ")


@pytest.mark.quiet
def test_ctrl_c_ends_program_and_worker(tiny_model: Path, tmp_path: Path) -> None:
    """SIGINT ends both at once, silently, with status 130."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    command = [*PROGRAM, "tag", "--model", str(tiny_model), str(fifo)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process,
        fifo.open("wb"),
    ):
        worker = worker_of(process.pid)
        time.sleep(0.5)
        began_s = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=100)
    assert (process.returncode, out, err) == (130, "", "")
    assert time.monotonic() - began_s < 10
    assert not Path(f"/proc/{worker}").exists()


@pytest.mark.parametrize("line", ["cat {path} | {tag} -", "{tag} - < {path}", "{tag} <(cat {path})"])
def test_standard_input_is_tagged(tiny_model: Path, tmp_path: Path, line: str) -> None:
    """`-` reads a pipe or a redirected file, and process substitution works like a file."""
    path = write_clip(tmp_path / "a.mkv", audio_s=2, video_s=2)
    tag = f"{RUN} tag --model {tiny_model} --format jsonl --summary"
    done = shell(line.format(path=path, tag=tag))
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["windows"] == 4
    assert (json.loads(done.stdout)["file"] == "-") == (" -" in line)


def test_raw_samples_are_tagged(tiny_model: Path) -> None:
    """`--raw` says what samples from a pipe are; a wrong format is wrong usage."""
    done = shell(f"head -c 64000 /dev/urandom | {RUN} tag --model {tiny_model} --raw s16le,16000,1 -")
    assert (done.returncode, len(done.stdout.splitlines()), done.stderr) == (0, 5, "")
    done = shell(f"{RUN} tag --model {tiny_model} --raw s16lee,16000,1 - < /dev/null")
    assert done.returncode == 2
    assert "did you mean 's16le'?" in done.stderr


def test_an_empty_pipe_is_one_line(tiny_model: Path) -> None:
    """The error says that nothing came."""
    done = shell(f": | {RUN} tag --model {tiny_model} -")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "standard input: nothing came through the pipe" in done.stderr


def test_the_worker_ignores_modules_in_the_current_folder(tiny_model: Path, tmp_path: Path) -> None:
    """A file that is called like a library and lies beside the media is not imported."""
    path = write_clip(tmp_path / "a.wav", audio_s=1)
    for name in ("av.py", "struct.py", "re.py"):
        (tmp_path / name).write_text("raise SystemExit(99)\n")
    script = Path(sys.executable).parent / "perceiverd"
    done = subprocess.run(
        [script, "tag", "--model", tiny_model, path.name], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
