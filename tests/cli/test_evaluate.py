"""`perceiverd eval` as its user runs it."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.offline.test_decoding import worker_of
from tests.support.clips import write_clip
from tests.support.program import DEADLINE_S, PROGRAM, Perceiverd


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    for number in range(3):
        write_clip(tmp_path / f"{'x' * number}.wav", audio_s=2 + number / 2)
    return tmp_path


def test_a_manifest_is_measured(perceiverd: Perceiverd, tiny_model: Path, clips: Path) -> None:
    """It prints the tables, and writes JSON and a page; two models are compared; a failed row gives status 1."""
    manifest = clips / "m.csv"
    manifest.write_text("file,start_s,end_s,labels\nx.wav,0.5,1.5,Dog\nxx.wav,1,2,Speech\n.wav,,,\ngone.wav,,,Dog\n")
    outputs = ("--json", clips / "r.json", "--html", clips / "r.html")
    arguments = ("eval", manifest, "--truth", "events", "--model", tiny_model, "--model", tiny_model, *outputs)
    status, out, err = perceiverd(*arguments, "--threshold", "0.3", "--draws", "10")
    assert (status, err) == (1, "")
    assert "3 files of 3 recordings" in out and "B minus A" in out and "line 5: " in out
    found = json.loads((clips / "r.json").read_text())
    assert [alert["threshold"] for alert in found["models"][1]["alerts"]] == [None, 0.3]
    assert found["failures"][0]["line"] == 5 and {"psds1", "psds2"} < found["models"][0]["measures"].keys()
    assert (clips / "r.html").read_text().startswith("<!doctype html>")
    status, _, _ = perceiverd(*arguments, "--skip", "0.3", "--draws", "10")
    assert status == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,labels\nx.wav,Dgo\n", "line 2: unknown label 'Dgo'; did you mean 'Dog'?"),
        (
            "file,labels\nx.wav,Dog\nx.wav,Dgo\nx.wav,Doq\n",
            "2 lines are wrong; the first is line 3: unknown label 'Dgo'",
        ),
        ("file,start_s,end_s,labels\nx.wav,2,1,Dog\n", "line 2: a clip from 2 s to 1 s is empty"),
        ("file,start_s,labels\nx.wav,Dog\n", "line 2: 2 cells for 3 columns"),
        ("file,lables\nx.wav,Dog\n", "line 1: unknown column 'lables'; did you mean 'labels'?"),
        ("file,labels\nnone.wav,Dog\n", "none of its 1 files exists; line 2: "),
        ('# Segments\nabcdefghijk, 0.0, 10.0, "/m/09x0r"\n', "give the clips' folder with --media"),
    ],
)
def test_a_wrong_manifest_is_one_line(
    perceiverd: Perceiverd, tiny_model: Path, clips: Path, text: str, message: str
) -> None:
    """The line names the manifest's line, what is wrong, and what to do."""
    manifest = clips / "m.csv"
    manifest.write_text(text)
    status, out, err = perceiverd("eval", manifest, "--model", tiny_model)
    assert (status, out) == (1, "")
    assert err.startswith(f"perceiverd: {manifest}: ") and message in err and err.count("\n") == 1


def test_a_result_that_cannot_be_written_is_known_at_once(
    perceiverd: Perceiverd, tiny_model: Path, clips: Path
) -> None:
    """A missing folder is an error before any file is tagged; three models are wrong usage."""
    manifest = clips / "m.csv"
    manifest.write_text("file,labels\nx.wav,Dog\n")
    status, out, err = perceiverd("eval", manifest, "--model", tiny_model, "--html", clips / "none" / "r.html")
    assert (status, out) == (1, "") and "there is no folder" in err
    status, _, err = perceiverd("eval", manifest, *("--model", tiny_model) * 3)
    assert status == 2 and "compares two models at most" in err


def test_ctrl_c_is_one_line(tiny_model: Path, clips: Path) -> None:
    """SIGINT ends it with status 130 and a line that says how far it came."""
    write_clip(clips / "long.wav", audio_s=300)
    manifest = clips / "m.csv"
    manifest.write_text("file,labels\nlong.wav,Dog\nxx.wav,Dog\n")
    command = [*PROGRAM, "eval", str(manifest), "--model", str(tiny_model), "--jobs", "1", "--hop", "0.01"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        worker_of(process.pid)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, out) == (130, "")
    assert err == "perceiverd: interrupted after 0 of 2 files; nothing is reported\n"
