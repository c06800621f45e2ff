"""`perceiverd tag --out` as its user runs it: folders, kills, a full disk, progress."""

import json
import os
import subprocess
import time
from datetime import datetime
from pathlib import Path

import pytest
import typer

from perceiverd.cli.tag import moment
from perceiverd.core.media import NS_PER_S
from tests.support.clips import write_clip
from tests.support.program import DEADLINE_S, PROGRAM, Perceiverd, read_to_the_end


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve clips of two seconds in three folders, and a broken one."""
    root = tmp_path_factory.mktemp("media")
    for number in range(12):
        folder = root / f"cam{number % 3}"
        folder.mkdir(exist_ok=True)
        write_clip(folder / f"{number:02}.wav", audio_s=2)
    (root / "broken.mp4").write_bytes(b"\0" * 1000)
    return root


def tagged(out: Path) -> dict[str, int]:
    """The windows of each file by its JSON lines, which must be complete."""
    found = {}
    for path in out.rglob("*.jsonl"):
        if ".perceiverd" in path.parts:
            continue
        records = [json.loads(line) for line in path.read_text().splitlines()]
        assert (records[0]["type"], records[-1]["type"]) == ("file", "summary")
        found[str(path.relative_to(out))] = records[-1]["windows"]
        assert sum(record["type"] == "scores" for record in records) == records[-1]["windows"]
    return found


def test_several_formats_of_a_folder(perceiverd: Perceiverd, tiny_model: Path, media: Path, tmp_path: Path) -> None:
    """Each file has an output in each format; the broken one is a line at the end, and the status is 1."""
    command = ("tag", media, "-r", "--out", tmp_path, "--model", tiny_model, "--format", "jsonl,vtt,srt,raven,html")
    status, out, err = perceiverd(*command)
    assert status == 1
    assert out.startswith("12 files tagged, 0:00:24 of media, ")
    assert out.endswith("; 1 failed\n")
    assert err.startswith(f"perceiverd: {media}/broken.mp4: ") and err.count("\n") == 1
    assert len(tagged(tmp_path)) == 12
    for ending in ("vtt", "srt", "selections.txt", "html"):
        assert len(list(tmp_path.rglob(f"*.wav.{ending}"))) == 12
    assert (tmp_path / "index.html").exists()


@pytest.mark.long
def test_a_killed_run_continues(tiny_model: Path, media: Path, tmp_path: Path) -> None:
    """After SIGKILL at three moments, every file is there once and complete, and none was done twice."""
    journal = tmp_path / ".perceiverd" / "journal.jsonl"
    command = [*PROGRAM, "tag", str(media), "-r", "--out", str(tmp_path), "--model", str(tiny_model)]
    command += ["--format", "jsonl,csv", "--jobs", "2"]

    def done() -> int:
        return journal.read_text().count('"type":"file"') if journal.exists() else 0

    for least in (1, 3, 5):  # far from the end, which the run must not reach before it is killed
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            end_s = time.monotonic() + DEADLINE_S
            while done() < least and process.poll() is None:
                assert time.monotonic() < end_s
                time.sleep(0.01)
            process.kill()
        assert all(tagged(tmp_path).values())
    last = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "12 files tagged" in last.stdout and "done by the interrupted run" in last.stdout
    files = [json.loads(line)["file"] for line in journal.read_text().splitlines() if '"type":"file"' in line]
    assert len(files) == len(set(files)) == 13
    assert len(tagged(tmp_path)) == 12
    assert [path.name for path in (tmp_path / ".perceiverd").iterdir()] == ["journal.jsonl"]


@pytest.mark.parametrize("formats", ["jsonl,csv", "parquet"])
def test_a_full_disk_is_one_line(tiny_model: Path, media: Path, tmp_path: Path, formats: str) -> None:
    """If an output does not fit, the run ends with one line, nothing is torn, and the same command continues."""
    command = [*PROGRAM, "tag", str(media), "-r", "--out", str(tmp_path), "--model", str(tiny_model)]
    command += ["--format", formats, "--top", "527", "--exclude", "broken*"]
    limited = [
        "sh",
        "-c",
        'ulimit -f 16; exec "$@"',
        "sh",
        *command,
    ]  # 8 KiB for each file; the same to us as a full disk
    failed = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert (failed.returncode, failed.stdout, failed.stderr.count("\n")) == (1, "", 1)
    assert failed.stderr.startswith(f"perceiverd: {tmp_path}: cannot write the outputs: File too large; ")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["journal.jsonl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("12 files tagged")


def test_progress_is_shown_on_a_terminal(tiny_model: Path, media: Path, tmp_path: Path) -> None:
    """A bar counts the files and tells the speed. A file that is done at once may end before its own bar is drawn."""
    terminal, end = os.openpty()
    environment = os.environ | {"COLUMNS": "120", "TERM": "xterm"}
    command = [*PROGRAM, "tag", str(media / "cam0"), "--out", str(tmp_path), "--model", str(tiny_model)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=end, env=environment) as process:
        os.close(end)
        text = read_to_the_end(terminal).decode()
    os.close(terminal)
    assert process.returncode == 0
    assert " of 4" in text and "x real time" in text


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--recursive"], "'--recursive': needs --out"),
        (["--jobs", "2"], "'--jobs': needs --out"),
        (["--out", "o", "--output", "f"], "'--out': cannot be combined with --output"),
        (["--format", "vtt,jsonl"], "several formats need --out"),
        (["--format", "vtx"], "unknown format 'vtx'; did you mean 'vtt'?"),
        (["b.wav", "--format", "srt"], "srt of several files needs --out"),
        (["--format", "parquet"], "parquet needs --output or --out"),
        (["--out", "o", "--since", "soon"], "'soon' is no date such as"),
    ],
)
def test_wrong_combinations_are_wrong_usage(perceiverd: Perceiverd, arguments: list[str], expected: str) -> None:
    """Options that do not fit together end with status 2 before anything is read."""
    status, out, err = perceiverd("tag", "a.wav", *arguments)
    assert (status, out) == (2, "")
    assert expected in " ".join(err.split())


def test_a_moment_is_a_date_or_a_time_ago() -> None:
    """Dates are local time; units are minutes, hours, days and weeks."""
    assert moment(None) is None
    assert moment("2026-11-26T18:00") == datetime(2026, 11, 26, 18).timestamp() * NS_PER_S
    ago_ns = moment("2d")
    assert ago_ns is not None
    assert abs(time.time_ns() - ago_ns - 2 * 86_400 * NS_PER_S) < 60 * NS_PER_S
    with pytest.raises(typer.BadParameter, match="no time ago"):
        moment("7x")
