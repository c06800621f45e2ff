"""The command line: what is loaded, what is refused, and with which exit status."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from perceiverd import __version__
from perceiverd.cli import app
from perceiverd.cli.console import EXIT_BROKEN_PIPE, EXIT_CONFIG
from tests.support.clips import write_clip
from tests.support.program import Perceiverd

PROGRAM = [sys.executable, "-m", "perceiverd"]
HELP_S = 0.3
COMMANDS = [[], ["run"], ["watch"], ["explain"], ["tag"], ["demo"], ["bench"], ["models"]]
COMMANDS += [["models", name] for name in ("list", "info", "verify", "import")]
COMMANDS += [["config"], ["config", "check"], ["config", "show"], ["config", "schema"], ["bridge"], ["bridge", "mqtt"]]
COMMANDS += [["keys"], ["keys", "new"], ["schema"]]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help(perceiverd: Perceiverd, command: list[str]) -> None:
    """`--help` describes each command, and its options, on standard output."""
    status, out, err = perceiverd(*command, "--help")
    assert (status, err) == (0, "")
    assert out.startswith(" ".join(["Usage: perceiverd", *command]))


def test_help_loads_nothing_heavy() -> None:
    """The command line loads neither torch nor numpy, FFmpeg, ZeroMQ, rich or msgspec to answer."""
    code = "import sys, perceiverd.cli.app; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "av", "zmq", "rich", "msgspec"} & set(loaded)


def test_help_answers_at_once() -> None:
    """`--help` takes less than 0.3 s of a processor beyond Python's own start, however busy the machine is."""

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
        ["tag", "a.wav", "--events", "--summary"],
        ["tag", "a.wav", "--config", "c.toml"],
        ["models", "nonsense"],
        ["bridge", "mqtt"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_2(perceiverd: Perceiverd, arguments: list[str]) -> None:
    """What the command line can't mean ends with status 2, an explanation on standard error, and no traceback."""
    status, out, err = perceiverd(*arguments)
    assert (status, out) == (2, "")
    assert "Usage: perceiverd" in err
    assert "Traceback" not in err


def test_no_command_shows_the_help(perceiverd: Perceiverd) -> None:
    """Called with nothing it shows what there is, and counts as wrong usage."""
    status, out, err = perceiverd()
    assert status == 2
    assert "Commands:" in out + err


def test_a_fault_is_one_line(perceiverd: Perceiverd, tmp_path: Path) -> None:
    """A model that is not there is told in a line on standard error, with status 1."""
    status, out, err = perceiverd("tag", tmp_path / "a.wav", "--model", tmp_path / "no")
    assert (status, out) == (1, "")
    assert err.startswith(f"perceiverd: unknown model '{tmp_path}/no")
    assert err.count("\n") == 1


def test_a_device_that_is_none_is_wrong_usage(perceiverd: Perceiverd, tiny_model: Path, tmp_path: Path) -> None:
    """`--device` takes what the configuration takes, and a slip is told with status 2."""
    status, out, err = perceiverd("tag", tmp_path / "a.wav", "--model", tiny_model, "--device", "gpu")
    assert (status, out) == (2, "")
    assert "'gpu' is not auto, cpu, cuda or cuda:N" in err


def test_a_url_that_is_none_costs_no_file(perceiverd: Perceiverd, tiny_model: Path, tmp_path: Path) -> None:
    """A malformed URL is told in a line without the password in it, and the next file is tagged."""
    path = write_clip(tmp_path / "a.wav", audio_s=1)
    status, out, err = perceiverd("tag", "http://me:secret@[bad/x", path, "--model", tiny_model)
    assert status == 1
    assert out.startswith(f"{path}\n")
    assert err.startswith("perceiverd: http://...: cannot be opened")
    assert err.count("\n") == 1
    assert "secret" not in err


def test_a_configuration_is_checked(
    perceiverd: Perceiverd, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`config check` says what the daemon would: ok and how many streams, or the line and status with which it ends."""
    path = tmp_path / "c.toml"
    stream = 'streams.door.sources = [{ kind = "url", url = "rtsp://u:${CAM_PW}@h/" }]\n'
    path.write_text(f'model.name = "{tiny_model}"\n{stream}')
    ok = "ok: 1 stream (door), model tiny\n"
    monkeypatch.delenv("CAM_PW", raising=False)
    status, out, err = perceiverd("config", "check", path)
    assert (status, out.startswith(f"{ok}note: $.streams.door.sources[0].url: "), err) == (0, True, "")
    assert "CAM_PW is not set" in out
    monkeypatch.setenv("CAM_PW", "hunter2")
    assert perceiverd("config", "check", path) == (0, ok, "")
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    outside = 'snapshots.on_event = true\npublish = { secret_key = "k", client_keys = "c" }\n'
    path.write_text(f'model.name = "{tiny_model}"\n{outside}{stream}')
    status, out, err = perceiverd("config", "check", path)
    assert (status, err) == (0, "")
    first, *notes = out.splitlines()
    assert f"{first}\n" == ok
    assert [note.split()[:2] for note in notes] == [
        ["note:", "$.snapshots:"],
        ["note:", f"{tmp_path}/k:"],
        ["note:", f"{tmp_path}/c:"],
    ]
    for text, why in (
        ("[windw]", "$.windw: unknown option"),
        ("", "$.streams: no stream is enabled"),
        (f'model.name = "no/where"\n{stream}', "unknown model"),
        (f'model.name = "{tiny_model}"\n{stream}[events.labels.Dgo]', "$.events.labels.Dgo: the model has no label"),
    ):
        path.write_text(text)
        status, out, err = perceiverd("config", "check", path)
        assert (status, out) == (EXIT_CONFIG, "")
        assert err.startswith(f"perceiverd: {path}: {why}")
        assert err.count("\n") == 1


def test_a_configuration_is_shown(perceiverd: Perceiverd, tmp_path: Path) -> None:
    """`config show` prints what differs from the defaults, with --effective all there is; status 78 for a bad file."""
    path = tmp_path / "c.toml"
    path.write_text('window.hop_s = 2\nstreams.door.sources = [{ kind = "url", url = "rtsp://u:hunter2@h/" }]\n')
    source = '{ kind = "url", url = "rtsp://u:***@h/" }'
    shown = f"[window]\nhop_s = 2.0\n\n[streams.door]\nsources = [\n    {source},\n]\n"
    assert perceiverd("config", "show", path) == (0, shown, "")
    assert perceiverd("config", "show") == (0, "# every option has its default\n", "")
    status, out, err = perceiverd("config", "show", "--effective")
    assert (status, err) == (0, "")
    assert "high_water_mark = 1000\n" in out
    path.write_text("[windw]")
    status, out, err = perceiverd("config", "show", path)
    assert (status, out, err.count("\n")) == (EXIT_CONFIG, "", 1)


def test_keys_are_made(perceiverd: Perceiverd, tmp_path: Path) -> None:
    """Two files, and what to do with them, without the secret; a second time is refused."""
    status, out, err = perceiverd("keys", "new", "kitchen", "--folder", tmp_path)
    assert (status, err) == (0, "")
    secret = tmp_path / "kitchen.key_secret"
    assert f'secret_key = "{secret}"' in out
    assert f"--server-key DAEMON.key --secret-key {secret}" in out
    assert secret.read_text().split('"')[3] not in out
    status, out, err = perceiverd("keys", "new", "kitchen", "--folder", tmp_path)
    assert (status, out) == (1, "")
    assert "kitchen.key: the file exists already" in err


def test_half_a_pair_of_keys_is_one_line(perceiverd: Perceiverd, tmp_path: Path) -> None:
    """A client needs the daemon's key and its own."""
    status, _, err = perceiverd("watch", "tcp://127.0.0.1:1", "--server-key", tmp_path / "daemon.key")
    assert status == 1
    assert "needs two files" in err


def test_the_schema_is_printed(perceiverd: Perceiverd) -> None:
    """As JSON, the same that is shipped."""
    status, out, err = perceiverd("schema")
    assert (status, err) == (0, "")
    assert out == (Path(app.__file__).parents[1] / "wire" / "wire-1.json").read_text(encoding="utf-8")


def test_a_label_that_is_none_is_one_line(perceiverd: Perceiverd) -> None:
    """`explain` of a misspelt label says what may have been meant, without waiting for a daemon."""
    line = "perceiverd: unknown label 'dgo'; did you mean 'Dog'?\n"
    assert perceiverd("explain", "--stream", "door", "--label", "dgo") == (1, "", line)


def test_training_on_a_path_that_is_not_there(perceiverd: Perceiverd, tiny_model: Path, tmp_path: Path) -> None:
    """A missing folder of a training step is a wrong option; one with nothing in it is told in a line."""
    status, out, err = perceiverd("train", "report", "--model", tiny_model, "--held-out", tmp_path / "no")
    assert (status, out) == (2, "") and "'--held-out'" in err and "does not exist" in err
    status, out, err = perceiverd("train", "report", "--model", tiny_model, "--held-out", tmp_path)
    assert (status, out) == (1, "")
    assert err.startswith(f"perceiverd: {tmp_path}: no held-out windows here")
    assert err.count("\n") == 1


def test_a_config_that_cannot_be_used_is_78(perceiverd: Perceiverd, tmp_path: Path) -> None:
    """A missing configuration ends `run` with the status at which systemd does not start it again."""
    status, out, err = perceiverd("run", "--config", tmp_path / "no.toml")
    assert (status, out) == (78, "")
    assert err.startswith(f"perceiverd: {tmp_path}/no.toml")
    assert err.count("\n") == 1


def test_tag_prints_lines_of_json(perceiverd: Perceiverd, tiny_model: Path, tmp_path: Path) -> None:
    """Every window is a line with as many labels as were asked for."""
    path = write_clip(tmp_path / "film.mp4", video_s=2, audio_s=2)
    status, out, err = perceiverd("tag", path, "--model", tiny_model, "--format", "jsonl", "--top", 527, "--hop", 0.5)
    records = [json.loads(line) for line in out.splitlines()]
    assert (status, err) == (0, "")
    assert [record["start_s"] for record in records[:3]] == [0, 0.5, 1]
    for record in records:
        assert record["type"] == "scores"
        assert sorted(label["index"] for label in record["labels"]) == list(range(527))


def test_tag_prints_text(perceiverd: Perceiverd, tiny_model: Path, tmp_path: Path) -> None:
    """By default windows follow each other under the file's name, with five labels each."""
    path = write_clip(tmp_path / "a.wav", audio_s=1)
    status, out, _ = perceiverd("tag", path, "--model", tiny_model)
    name, *lines = out.splitlines()
    assert (status, name) == (0, str(path))
    assert [line.split()[0] for line in lines] == ["0.00-0.50", "0.50-1.00"]


def test_tag_tells_events(perceiverd: Perceiverd, tiny_model: Path, tmp_path: Path) -> None:
    """With --events there is a line for each event, by the thresholds of the configuration that is named."""
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
    assert f"{config}: $.events.allow: the model has no label 'Speach'; did you mean `Speech`?" in err


def test_tag_sums_up(perceiverd: Perceiverd, tiny_model: Path, tmp_path: Path) -> None:
    """With `--summary` there is one line a file."""
    paths = [write_clip(tmp_path / name, audio_s=2) for name in ("a.wav", "b.wav")]
    _, out, _ = perceiverd("tag", *paths, "--model", tiny_model, "--format", "jsonl", "--summary")
    assert [json.loads(line)["file"] for line in out.splitlines()] == [str(path) for path in paths]


def test_models_are_told_of(perceiverd: Perceiverd, tiny_model: Path) -> None:
    """`models info` prints what a model's card says."""
    status, out, _ = perceiverd("models", "info", tiny_model)
    assert status == 0
    assert dict(line.split(maxsplit=1) for line in out.splitlines())["labels"] == "527"


def test_bundled_models_are_listed(perceiverd: Perceiverd) -> None:
    """`models list` prints a line for each model, each of which `models info` knows."""
    status, out, _ = perceiverd("models", "list")
    assert status == 0
    for line in out.splitlines():
        assert perceiverd("models", "info", line.split()[0])[0] == 0


def test_a_broken_model_hides_no_other(
    perceiverd: Perceiverd, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`models list` tells of a model that can't be read, and lists the others by the names that find them."""
    shelf = tmp_path / "perceiverd" / "models"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    shutil.copytree(tiny_model, shelf / "mine")
    (shelf / "broken").mkdir()
    (shelf / "broken" / "model.toml").write_text("schema = 1")
    status, out, err = perceiverd("models", "list")
    assert status == 1
    assert err.startswith(f"perceiverd: {shelf}/broken/model.toml: ") and err.count("\n") == 1
    names = [line.split()[0] for line in out.splitlines()]
    assert "mine" in names and "tiny" not in names and "broken" not in names
    assert all(perceiverd("models", "info", name)[0] == 0 for name in names)


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*PROGRAM, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )


def test_ctrl_c_is_quiet(tiny_model: Path, tmp_path: Path) -> None:
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
def test_ctrl_c_is_quiet_from_the_start(amid: str) -> None:
    """It is no traceback while the command line is loaded, nor before typer looks after it."""
    command = [sys.executable, "-X", "importtime", *PROGRAM[1:], "config", "show"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        next(line for line in process.stderr if amid in line)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err


def test_a_reader_that_leaves_is_no_fault(tiny_model: Path, tmp_path: Path) -> None:
    """`| head` ends the program without a word, with the status that a shell gives for SIGPIPE."""
    path = write_clip(tmp_path / "long.wav", audio_s=60)
    with start("tag", path, "--model", tiny_model, "--hop", "0.002") as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
        process.wait(timeout=60)
    assert (process.returncode, err) == (EXIT_BROKEN_PIPE, "")


def test_a_full_disk_is_one_line(tiny_model: Path, tmp_path: Path) -> None:
    """Output that can't be written, on standard output or into a file, is told in a line, with status 1."""
    path = write_clip(tmp_path / "a.wav", audio_s=1)
    tag = [*PROGRAM, "tag", str(path), "--model", str(tiny_model)]
    for command in (tag, [*tag, "--output", "/dev/full"]):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        assert done.stderr == "perceiverd: cannot write the output: No space left on device\n"
        assert done.returncode == 1


def test_progress_is_for_terminals(tiny_model: Path, tmp_path: Path) -> None:
    """A bar is drawn on a terminal while the records go elsewhere."""
    path = write_clip(tmp_path / "a.wav", audio_s=2)
    terminal, end = os.openpty()
    with subprocess.Popen(
        [*PROGRAM, "tag", str(path), "--model", str(tiny_model)], stdout=subprocess.PIPE, stderr=end
    ) as process:
        os.close(end)
        assert process.stdout
        out = process.stdout.read()
    drawn = os.read(terminal, 65536).decode()
    os.close(terminal)
    assert process.returncode == 0
    assert path.name in drawn
    assert b"\x1b" not in out
