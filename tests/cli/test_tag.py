"""`perceiverd tag` as its user runs it."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.clips import write_clip
from tests.support.program import PROGRAM, Perceiverd


def test_an_unknown_device_is_wrong_usage(perceiverd: Perceiverd, tiny_model: Path, tmp_path: Path) -> None:
    """`--device` accepts what the configuration accepts; anything else ends with status 2."""
    status, out, err = perceiverd("tag", tmp_path / "a.wav", "--model", tiny_model, "--device", "gpu")
    assert (status, out) == (2, "")
    assert "'gpu' is not auto, cpu, cuda or cuda:N" in err


def test_a_malformed_url_does_not_stop_the_others(perceiverd: Perceiverd, tiny_model: Path, tmp_path: Path) -> None:
    """A malformed URL gives one line of error without its password, and the next file is tagged."""
    path = write_clip(tmp_path / "a.wav", audio_s=1)
    status, out, err = perceiverd("tag", "http://me:secret@[bad/x", path, "--model", tiny_model)
    assert status == 1
    assert out.startswith(f"{path}\n")
    assert err.startswith("perceiverd: http://...: cannot be opened")
    assert err.count("\n") == 1
    assert "secret" not in err


def test_tag_prints_lines_of_json(perceiverd: Perceiverd, tiny_model: Path, tmp_path: Path) -> None:
    """Each window is a line of JSON with the requested number of labels."""
    path = write_clip(tmp_path / "film.mp4", video_s=2, audio_s=2)
    status, out, err = perceiverd("tag", path, "--model", tiny_model, "--format", "jsonl", "--top", 527, "--hop", 0.5)
    records = [json.loads(line) for line in out.splitlines()]
    assert (status, err) == (0, "")
    assert [record["start_s"] for record in records[:3]] == [0, 0.5, 1]
    for record in records:
        assert record["type"] == "scores"
        assert sorted(label["index"] for label in record["labels"]) == list(range(527))


def test_tag_prints_text(perceiverd: Perceiverd, tiny_model: Path, tmp_path: Path) -> None:
    """By default windows do not overlap; they are lines below the file's name."""
    path = write_clip(tmp_path / "a.wav", audio_s=1)
    status, out, _ = perceiverd("tag", path, "--model", tiny_model)
    name, *lines = out.splitlines()
    assert (status, name) == (0, str(path))
    assert [line.split()[0] for line in lines] == ["0.00-0.50", "0.50-1.00"]


def test_tag_prints_events(perceiverd: Perceiverd, tiny_model: Path, tmp_path: Path) -> None:
    """With `--events` there is a line for each event, by the thresholds of the given configuration."""
    path, config = write_clip(tmp_path / "a.wav", audio_s=4), tmp_path / "c.toml"
    config.write_text('events = { on = 0.001, allow = ["Speech"] }')
    tag = ("tag", path, "--model", tiny_model, "--format", "jsonl", "--events")
    status, out, err = perceiverd(*tag, "--config", config)
    assert (status, err) == (0, "")
    (event,) = map(json.loads, out.splitlines())
    assert (event["type"], event["name"], event["start_s"]) == ("event", "Speech", 0)
    assert event["explanation"]["on"] == 0.001
    assert event["end_s"] == pytest.approx(4, abs=0.05)
    config.write_text('events.allow = ["Speach"]')
    status, out, err = perceiverd(*tag, "--config", config)
    assert (status, out) == (1, "")
    assert f"{config}: $.events.allow: unknown label 'Speach'; did you mean 'Speech'?" in err


def test_tag_prints_a_summary(perceiverd: Perceiverd, tiny_model: Path, tmp_path: Path) -> None:
    """With `--summary` there is one line for each file."""
    paths = [write_clip(tmp_path / name, audio_s=2) for name in ("a.wav", "b.wav")]
    _, out, _ = perceiverd("tag", *paths, "--model", tiny_model, "--format", "jsonl", "--summary")
    assert [json.loads(line)["file"] for line in out.splitlines()] == [str(path) for path in paths]


def test_a_full_disk_is_one_line(tiny_model: Path, tmp_path: Path) -> None:
    """If the output cannot be written, the error is one line and the status is 1."""
    path = write_clip(tmp_path / "a.wav", audio_s=1)
    tag = [*PROGRAM, "tag", str(path), "--model", str(tiny_model)]
    for command in (tag, [*tag, "--output", "/dev/full"]):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        assert done.stderr == "perceiverd: cannot write the output: No space left on device\n"
        assert done.returncode == 1


def test_progress_is_shown_on_a_terminal(tiny_model: Path, tmp_path: Path) -> None:
    """A progress bar is on standard error, if that is a terminal and the records go elsewhere."""
    path = write_clip(tmp_path / "a.wav", audio_s=2)
    terminal, end = os.openpty()
    with subprocess.Popen(
        [*PROGRAM, "tag", path.name, "--model", str(tiny_model)], stdout=subprocess.PIPE, stderr=end, cwd=tmp_path
    ) as process:
        os.close(end)
        assert process.stdout
        out = process.stdout.read()
    drawn = os.read(terminal, 65536).decode()
    os.close(terminal)
    assert process.returncode == 0
    assert path.name in drawn
    assert b"\x1b" not in out
