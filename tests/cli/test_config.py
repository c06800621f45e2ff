"""`perceiverd config`, and `run` with a configuration that cannot be used."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from perceiverd.cli.console import EXIT_CONFIG
from tests.support.configs import CONFIGS
from tests.support.program import Perceiverd


def test_a_configuration_is_checked(
    perceiverd: Perceiverd, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`config check` prints ok with the streams and notes, or the error and status with which `run` would end."""
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
        (f'model.name = "{tiny_model}"\n{stream}[events.labels.Dgo]', "$.events.labels.Dgo: unknown label"),
    ):
        path.write_text(text)
        status, out, err = perceiverd("config", "check", path)
        assert (status, out) == (EXIT_CONFIG, "")
        assert err.startswith(f"perceiverd: {path}: {why}")
        assert err.count("\n") == 1


def test_a_configuration_is_shown(perceiverd: Perceiverd, tmp_path: Path) -> None:
    """`config show` prints options that differ from the defaults, or all with `--effective`; a bad file gives 78."""
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


def test_run_ends_with_78_for_a_bad_configuration(perceiverd: Perceiverd, tmp_path: Path) -> None:
    """A missing configuration ends `run` with the status after which systemd does not restart it."""
    status, out, err = perceiverd("run", "--config", tmp_path / "no.toml")
    assert (status, out) == (78, "")
    assert err.startswith(f"perceiverd: {tmp_path}/no.toml")
    assert err.count("\n") == 1


def test_the_schema_of_the_configuration_is_printed(perceiverd: Perceiverd) -> None:
    """`config schema` prints the shipped JSON Schema."""
    text = (CONFIGS / "perceiverd.schema.json").read_text(encoding="utf-8")
    assert perceiverd("config", "schema") == (0, text, "")


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (os.mkfifo, 'is a FIFO, not a file; write kind = "pipe"'),
        (os.mkdir, "is a directory"),
        (Path.touch, "is empty (0 bytes)"),
        (lambda _: None, "there is no such file"),
        (lambda path: path.write_text("no media, only text\n" * 99), "is neither audio nor video"),
    ],
)
def test_check_names_the_fault_of_a_file(
    perceiverd: Perceiverd, tiny_model: Path, tmp_path: Path, make: Callable[[Path], object], cause: str
) -> None:
    """A `file` that its source would refuse is a note with the words of the source."""
    make(tmp_path / "clip.wav")
    file = tmp_path / "c.toml"
    file.write_text(f'model.name = "{tiny_model}"\nstreams.a.sources = [{{ kind = "file", path = "clip.wav" }}]\n')
    status, out, _ = perceiverd("config", "check", file)
    assert status == 0
    assert f"note: {tmp_path}/clip.wav: {cause}" in out


def test_a_socket_path_that_is_too_long_is_refused(perceiverd: Perceiverd, tmp_path: Path) -> None:
    """Both `config check` and `run` end with status 78, and a byte order mark disturbs neither."""
    file = tmp_path / "c.toml"
    file.write_text(
        f'\ufeff[publish]\nendpoint = "ipc:///run/{"s" * 130}"\n[streams.a]\nsources = [{{ kind = "synthetic" }}]'
    )
    for command in (["config", "check", file], ["run", "--config", file]):
        status, _, err = perceiverd(*command)
        assert status == 78
        assert err.startswith(f"perceiverd: {file}: $.publish.endpoint: the path of a socket has at most 107 bytes")
        assert err.count("\n") == 1


def test_check_refuses_the_endpoint_that_run_refuses(perceiverd: Perceiverd, tiny_model: Path, tmp_path: Path) -> None:
    """A missing folder, and a file in the place of the socket, end both with 1 and the same line."""
    file = tmp_path / "c.toml"
    (tmp_path / "occupied").write_text("a file")
    for address, why in (("ipc://no-folder/labels", "its folder is missing"), ("ipc://occupied", "is not a socket")):
        file.write_text(
            f'model.name = "{tiny_model}"\npublish.endpoint = "{address}"\n'
            'streams.a.sources = [{ kind = "synthetic" }]\n'
        )
        answers = [perceiverd(*command) for command in (["config", "check", file], ["run", "--config", file])]
        assert answers[0] == (1, "", answers[1][2])
        assert answers[1][0] == 1
        assert why in answers[0][2] and answers[0][2].count("\n") == 1


def test_check_of_a_running_daemons_file(perceiverd: Perceiverd, tiny_model: Path, tmp_path: Path) -> None:
    """An endpoint in use is a note: the daemon that uses it may be the one that is to be reloaded."""
    file = tmp_path / "c.toml"
    with socket.socket(socket.AF_UNIX) as daemon, socket.create_server(("127.0.0.1", 0)) as server:
        daemon.bind(str(tmp_path / "labels"))
        daemon.listen()
        for address in ("ipc://labels", f"tcp://127.0.0.1:{server.getsockname()[1]}"):
            file.write_text(
                f'model.name = "{tiny_model}"\npublish.endpoint = "{address}"\n'
                'streams.a.sources = [{ kind = "synthetic" }]\n'
            )
            status, out, err = perceiverd("config", "check", file)
            assert (status, err) == (0, "")
            assert "note: cannot publish at" in out and "another program uses it" in out


def test_check_of_a_pipe(perceiverd: Perceiverd, tiny_model: Path, tmp_path: Path) -> None:
    """A missing FIFO is a note, and neither standard input nor a FIFO is read."""
    file = tmp_path / "c.toml"
    os.mkfifo(tmp_path / "there")
    for path, note in (("-", ""), ("there", ""), ("missing", f"note: {tmp_path}/missing: there is no such FIFO")):
        file.write_text(f'model.name = "{tiny_model}"\nstreams.a.sources = [{{ kind = "pipe", path = "{path}" }}]\n')
        status, out, err = perceiverd("config", "check", file)
        assert (status, err) == (0, "")
        assert note in out and out.count("\n") == (2 if note else 1)
