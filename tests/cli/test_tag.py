"""`perceiverd tag` as its user runs it."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from perceiverd.model.cuda.driver import Driver
from tests.support.clips import write_clip
from tests.support.program import PROGRAM, Perceiverd, read_to_the_end
from tests.support.tracks import write_tracks


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
    status, out, err = perceiverd(
        "tag", path, "--model", tiny_model, "--format", "jsonl", "--scores", "--top", 527, "--hop", 0.5
    )
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
    drawn = read_to_the_end(terminal).decode()
    os.close(terminal)
    assert process.returncode == 0
    assert path.name in drawn
    assert b"\x1b" not in out


def test_a_track_that_nobody_chose_is_noted(tiny_model: Path, tmp_path: Path) -> None:
    """If a file has several audio tracks, one line on standard error names the one that is used."""
    path = write_tracks(tmp_path / "a.mkv")
    command = [*PROGRAM, "tag", str(path), "--model", str(tiny_model), "--format", "jsonl", "--scores", "--top", "527"]

    def tagged(*options: str) -> tuple[int, str, str]:
        done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    status, usual, err = tagged()
    chosen = 'track=0 tracks=0:deu,1:eng,2:fra layout=stereo mix="all channels"'
    assert (status, err) == (0, f"perceiverd: track-chosen source={path} {chosen}\n")
    assert tagged("--track", "deu") == (0, usual, "")
    status, other, err = tagged("--track", "1")
    assert (status, err) == (0, "") and other != usual


@pytest.mark.skipif(Driver.found().is_loaded, reason="has a driver of NVIDIA")
def test_a_gpu_decoder_without_a_driver_is_noted(tiny_model: Path, tmp_path: Path) -> None:
    """Whoever asks for the GPU's decoder learns in one line that the CPU decodes; the file is tagged."""
    paths = [write_clip(tmp_path / name, video_s=1, audio_s=1) for name in ("a.mp4", "b.mp4")]
    words: list[str | Path] = [*PROGRAM, "tag", "--model", tiny_model, "--decoder", "gpu", "--summary", *paths]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout.count("\n")) == (0, 2)
    assert done.stderr.count("gpu-decoder-unusable") == 1
    assert "the CPU decodes" in done.stderr


def test_media_options(perceiverd: Perceiverd, tiny_model: Path, tmp_path: Path) -> None:
    """`--only` leaves a modality out; channel, gain and high-pass change the scores."""
    path = write_tracks(tmp_path / "a.mkv", "flac", languages=("eng",))
    tag = ("tag", path, "--model", tiny_model, "--format", "jsonl", "--scores", "--top", 527)
    usual = perceiverd(*tag)
    for only in ("audio", "video"):
        status, out, err = perceiverd(*tag, "--only", only)
        assert (status, err) == (0, "")
        assert {tuple(json.loads(line)["modalities"]) for line in out.splitlines()} == {(only,)}
    for change in (("--channel", 2), ("--gain-db", -12), ("--highpass-hz", 4000)):
        status, out, err = perceiverd(*tag, *change)
        assert (status, err) == (0, "")
        assert (out != usual[1]) == (change[0] != "--channel")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--only", "video", "--channel", "1"), 'only = "video" leaves out the audio, to which channel belongs'),
        (("--track", "english"), "track must be a number from 0, or a language code"),
        (("--channel", "0"), "'--channel': Input should be greater than or equal to 1"),
        (("--gain-db", "61"), "'--gain-db': Input should be less than or equal to 60"),
        (("--highpass-hz", "9000"), "'--highpass-hz': Input should be less than or equal to 8000"),
    ],
)
def test_contradictory_media_options_are_wrong_usage(
    perceiverd: Perceiverd, tmp_path: Path, options: tuple[str, ...], expected: str
) -> None:
    """Media options that contradict each other or exceed their range end with status 2."""
    status, out, err = perceiverd("tag", tmp_path / "a.wav", *options)
    assert (status, out) == (2, "")
    assert expected in " ".join(err.split())


def test_an_option_that_does_not_fit_a_file_fails_only_that_file(
    perceiverd: Perceiverd, tiny_model: Path, tmp_path: Path
) -> None:
    """A file without the wanted channel costs one line; the next file is tagged."""
    mono, stereo = write_clip(tmp_path / "a.wav", audio_s=1), write_tracks(tmp_path / "b.mka", film=False)
    tag = ("tag", mono, stereo, "--model", tiny_model, "--channel", 2, "--track", 0)
    status, out, err = perceiverd(*tag)
    assert status == 1
    assert err == f"perceiverd: {mono}: its audio has 1 channel, and no channel 2\n"
    assert out.startswith(f"{stereo}\n")


def test_tag_writes_a_page(perceiverd: Perceiverd, tiny_model: Path, tmp_path: Path) -> None:
    """`--format html` writes one page that links to the file; with `--embed` the file is in it."""
    path, page = write_clip(tmp_path / "film.mp4", video_s=2, audio_s=2), tmp_path / "film.html"
    tag = ("tag", path, "--model", tiny_model, "--format", "html", "--output", page)
    assert perceiverd(*tag) == (0, "", "")
    linked = page.read_text()
    assert '"media":{"kind":"video","href":"film.mp4","type":null}' in linked
    assert perceiverd(*tag, "--embed", 1) == (0, "", "")
    assert '"media":{"kind":"video","href":null,"type":"video/mp4"}' in page.read_text()
    assert page.stat().st_size > len(linked) + path.stat().st_size
