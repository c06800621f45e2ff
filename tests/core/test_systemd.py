"""Notifications to systemd, over real datagram sockets."""

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

from perceiverd.core.systemd import Notifier, watchdog_ns


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """A socket like systemd's, and its address as in NOTIFY_SOCKET."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@perceiverd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address.replace("@", "\0"))
        listener.settimeout(5)
        yield address, listener


def test_each_notification_is_one_datagram(systemd: tuple[str, socket.socket]) -> None:
    """Each call sends the datagram that sd_notify(3) documents."""
    address, listener = systemd
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": address})
    notifier.ready()
    notifier.extend(2.5)
    notifier.status("two\nlines")
    notifier.alive()
    notifier.stopping()
    received = [listener.recv(4096) for _ in range(5)]
    assert received[:2] == [b"READY=1", b"EXTEND_TIMEOUT_USEC=2500000"]
    assert received[2:] == [b"STATUS=two lines", b"WATCHDOG=1", b"STOPPING=1"]
    before_us = time.monotonic_ns() // 1000
    notifier.reloading()
    what, when = listener.recv(4096).decode().split("\n")
    assert what == "RELOADING=1"
    assert before_us <= int(when.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000


def test_outside_a_unit_nothing_is_sent() -> None:
    """Without NOTIFY_SOCKET no call sends anything."""
    Notifier.from_environment({}).ready()


def test_a_missing_socket_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """If systemd's socket is gone, the program continues and logs one line."""
    notifier = Notifier(str(tmp_path / "nobody"))
    with caplog.at_level(logging.WARNING):
        notifier.alive()
        notifier.alive()
    assert len(caplog.records) == 1
    assert "notify-failed" in caplog.text


def test_a_full_queue_does_not_block(tmp_path: Path) -> None:
    """A full socket does not block the loop."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        notifier = Notifier(str(tmp_path / "notify"))
        for _ in range(2000):
            notifier.alive()


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_the_units_are_clean_and_confined() -> None:
    """Systemd-analyze prints no warning (its exit status would not show one), and rates the exposure as low."""
    command = ["make", "--no-print-directory", "-C", str(Path(__file__).parents[2]), "units"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")
    levels = re.findall(r"level for (\S+?)(?:@door)?\.service: ([\d.]+) OK", done.stdout)
    assert [name for name, _ in levels] == [
        "perceiverd",
        "perceiverd",
        "perceiverd-mqtt",
        "perceiverd-history",
        "perceiverd-web",
    ]
    assert max(float(level) for _, level in levels) < 2


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
def test_the_watchdog_counts_only_for_this_process(environment: dict[str, str], expected: int | None) -> None:
    """The interval counts only if systemd watches this process."""
    assert watchdog_ns(environment) == expected
