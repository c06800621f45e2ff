"""How the daemon's process starts and ends: systemd's notifications, signals, exit statuses."""

import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from perceiverd.wire import messages
from perceiverd.wire.client import subscribe
from perceiverd.wire.messages import Event, Scores
from tests.support.faults import Fault, program
from tests.support.listening import DEADLINE_S, listen
from tests.support.notified import read_waiting
from tests.support.program import Start

CLEAN = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)
"""systemd.service(5), SuccessExitStatus: a service that ends by one of these has ended well, and is not restarted."""


def configured(folder: Path, model: Path, more: str = "") -> Path:
    """A configuration with one stream that publishes in this folder."""
    path = folder / "c.toml"
    path.write_text(f"""
        model = {{ name = "{model}", threads = 1 }}
        publish.endpoint = "ipc://labels"
        streams.one.sources = [{{ kind = "synthetic" }}]
        {more}
    """)
    return path


def wait_for_log(log: Path, text: str) -> None:
    """Return when the log has this text."""
    end_s = time.monotonic() + DEADLINE_S
    while text not in log.read_text():
        assert time.monotonic() < end_s, log.read_text()
        time.sleep(0.02)


def status_and_line(*arguments: str) -> tuple[int, str]:
    """The exit status and the last line of a daemon that fails."""
    done = subprocess.run(
        [sys.executable, "-m", "perceiverd", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert "Traceback" not in done.stdout
    return done.returncode, done.stdout.strip().splitlines()[-1]


def test_systemd_is_notified_and_sigterm_ends_it(start: Start, tiny_model: Path, tmp_path: Path) -> None:
    """READY after the first window, then STATUS and WATCHDOG; after SIGTERM events end, STOPPING, 0, no worker left."""
    path, log = configured(tmp_path, tiny_model, 'events = { on = 0.001, allow = ["Speech"] }'), tmp_path / "log"
    with (
        subscribe(f"ipc://{tmp_path}/labels", (messages.events_topic("one"),)) as subscription,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd,
    ):
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(DEADLINE_S)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "2000000"}
        process = start("run", "--config", str(path), log=log, **environment)
        try:
            sent = [systemd.recv(4096).decode()]
            while not any("1 up" in each for each in sent) or sent.count("WATCHDOG=1") < 2:
                sent.append(systemd.recv(4096).decode())
            workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            begin = listen(subscription, lambda m: isinstance(m, Event))[-1]
            read_waiting(systemd)
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE_S) == 0
            end = listen(subscription, lambda m: isinstance(m, Event) and m.kind == "end")[-1]
        finally:
            print(log.read_text())
        assert "STOPPING=1" in read_waiting(systemd)
    began = [each for each in sent if each != "WATCHDOG=1"]
    assert began[:2] == ["EXTEND_TIMEOUT_USEC=600000000", "STATUS=loading the model tiny"]
    assert began[2:4] == ["EXTEND_TIMEOUT_USEC=70000000", "STATUS=waiting for the first window"]
    assert began[4] == "READY=1"
    assert re.fullmatch(r"STATUS=streams: 1 up; lag \d+\.\d\d s; [1-9]\d* windows tagged, 0 dropped", began[5])
    assert isinstance(begin, Event)
    assert isinstance(end, Event)
    assert (begin.kind, end.id, end.explanation.reason) == ("begin", begin.id, "stopped")
    assert "daemon-stopping signal=SIGTERM" in log.read_text()
    assert not (tmp_path / "labels").exists()
    assert workers
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.quiet
def test_a_signal_while_the_model_loads_ends_it_at_once(
    start: Start, tiny_model: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """The process ends by the signal, which is a clean end for systemd; the next start works at the same endpoint."""
    path, log = configured(tmp_path, tiny_model), tmp_path / "log"
    for _ in range(5):  # a busy machine may run us again only when the model is loaded
        process = start("run", "--config", str(path), log=log)
        wait_for_log(log, "publisher-listening")
        began_s = time.monotonic()
        process.send_signal(number)
        status, took_s = process.wait(DEADLINE_S), time.monotonic() - began_s
        if "model-loaded" not in log.read_text():
            break
    assert (status, "model-loaded" in log.read_text(), "Traceback" in log.read_text()) == (-number, False, False)
    assert took_s < 2  # on an idle machine a few milliseconds
    assert number in CLEAN
    assert (tmp_path / "labels").is_socket()  # left behind; the next start removes it
    again = start("run", "--config", str(path), log=log)
    with subscribe(f"ipc://{tmp_path}/labels", (messages.scores_topic("one"),)) as subscription:
        listen(subscription, lambda m: isinstance(m, Scores))
    again.send_signal(signal.SIGTERM)
    assert again.wait(DEADLINE_S) == 0
    assert "stale-socket-removed" in log.read_text()
    assert not (tmp_path / "labels").exists()


@pytest.mark.long
def test_a_missing_camera_does_not_fail_the_unit(start: Start, tiny_model: Path, tmp_path: Path) -> None:
    """READY comes once every stream was lost, and not earlier; a reload until then does not report its end."""
    two = 'streams.two.sources = [{ kind = "file", path = "missing.mp4" }]'
    path, log = configured(tmp_path, tiny_model, two), tmp_path / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(DEADLINE_S)
        process = start(
            *("run", "--config", str(path)),
            log=log,
            program=program(Fault("hang")),
            NOTIFY_SOCKET=str(tmp_path / "notify"),
        )
        sent = [systemd.recv(4096).decode()]
        while sent[-1] != "READY=1":
            sent.append(systemd.recv(4096).decode())
            if sent[-1] == "STATUS=waiting for the first window":
                process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0
    assert "daemon-ready reason=all-streams-down" in log.read_text()
    assert "config-reloaded" in log.read_text()
    assert not any(each.startswith("RELOADING") for each in sent)


def test_the_command_line_can_set_the_endpoint(start: Start, tiny_model: Path, tmp_path: Path) -> None:
    """It publishes there and not where the file says, and a reload sees no change in that."""
    path, log = configured(tmp_path, tiny_model), tmp_path / "log"
    endpoint = f"ipc://{tmp_path}/here"
    process = start("run", "--config", str(path), "--endpoint", endpoint, log=log)
    with subscribe(endpoint, (messages.scores_topic("one"),)) as subscription:
        listen(subscription, lambda m: isinstance(m, Scores))
        process.send_signal(signal.SIGHUP)
        wait_for_log(log, "config-reloaded")
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE_S) == 0
    assert "restart-needed" not in log.read_text()
    assert not (tmp_path / "labels").exists()
    assert status_and_line("run", "--config", str(path), "--endpoint", "tcp://*:5")[0] == 78


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[windw]", "$.windw: unknown option; did you mean 'window'?"),
        ("", "$.streams: no stream is enabled"),
        ('model.name = "no/where"\nstreams.a.sources = [{kind = "synthetic"}]', "unknown model"),
    ],
)
def test_an_invalid_configuration_ends_with_78(tmp_path: Path, text: str, line: str) -> None:
    """One line has the file's name and the fault; systemd does not restart the service."""
    path = tmp_path / "c.toml"
    path.write_text(text)
    status, printed = status_and_line("run", "--config", str(path))
    assert status == 78
    assert f"{path}: {line}" in printed


def test_an_endpoint_in_use_ends_with_1(tiny_model: Path, tmp_path: Path) -> None:
    """The endpoint may be free the next time, so systemd restarts the service."""
    (tmp_path / "labels").write_text("mine")
    status, line = status_and_line("run", "--config", str(configured(tmp_path, tiny_model)))
    assert status == 1
    assert "cannot publish at" in line
