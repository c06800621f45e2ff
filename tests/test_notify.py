"""systemd's notifications, over real datagram sockets."""

import logging
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from perceiverd.notify import Notifier, watchdog_ns


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """A socket as systemd would listen on, and its address as NOTIFY_SOCKET would say it."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@perceiverd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address.replace("@", "\0"))
        listener.settimeout(5)
        yield address, listener


def test_each_notification_is_one_datagram(systemd: tuple[str, socket.socket]) -> None:
    """What systemd gets is what its manual says."""
    address, listener = systemd
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": address})
    notifier.ready()
    notifier.extend(2.5)
    notifier.status("two\nlines")
    notifier.alive()
    notifier.stopping()
    told = [listener.recv(4096) for _ in range(5)]
    assert told[:2] == [b"READY=1", b"EXTEND_TIMEOUT_USEC=2500000"]
    assert told[2:] == [b"STATUS=two lines", b"WATCHDOG=1", b"STOPPING=1"]
    before_us = time.monotonic_ns() // 1000
    notifier.reloading()
    what, when = listener.recv(4096).decode().split("\n")
    assert what == "RELOADING=1"
    assert before_us <= int(when.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000


def test_outside_a_unit_nothing_is_sent() -> None:
    """Without NOTIFY_SOCKET every call is silent."""
    Notifier.from_environment({}).ready()


def test_a_socket_that_is_gone_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A lost systemd ends nothing and fills no log."""
    notifier = Notifier(str(tmp_path / "nobody"))
    with caplog.at_level(logging.WARNING):
        notifier.alive()
        notifier.alive()
    assert len(caplog.records) == 1
    assert "notify-failed" in caplog.text


def test_a_full_queue_does_not_block(tmp_path: Path) -> None:
    """A systemd that reads nothing can't hold up the loop."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        notifier = Notifier(str(tmp_path / "notify"))
        for _ in range(2000):
            notifier.alive()


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_the_unit_is_clean_and_confined(tmp_path: Path) -> None:
    """Systemd finds nothing to warn of (its exit status would not tell), and little that the service may do."""
    text = (Path(__file__).parents[1] / "systemd" / "perceiverd.service").read_text()
    unit = tmp_path / "perceiverd.service"
    unit.write_text(re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", text))
    checks = (["verify", str(unit)], ["security", "--offline=true", "--threshold=20", str(unit)])
    for check in checks:
        done = subprocess.run(
            ["systemd-analyze", "--no-pager", *check], capture_output=True, text=True, check=True, timeout=60
        )
        assert done.stderr == ""


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30_000_000_000),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30_000_000_000),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
    ],
)
def test_the_watchdog_is_for_this_process(environment: dict[str, str], expected: int | None) -> None:
    """The interval counts only where systemd watches this very process."""
    assert watchdog_ns(environment) == expected
