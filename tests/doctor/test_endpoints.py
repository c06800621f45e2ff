"""Endpoints that are free, in use, or cannot be bound, with real sockets."""

import os
import socket
import tempfile
from pathlib import Path

import pytest

from perceiverd.config import Config, MetricsConfig, PublishConfig
from perceiverd.doctor import endpoints, service
from perceiverd.doctor.checks import Check, Finding, run_checks
from perceiverd.wire.keys import create_pair


def labels(endpoint: str, secret_key: str | None = None, client_keys: str | None = None) -> Finding:
    publish = PublishConfig(endpoint, secret_key=secret_key, client_keys=client_keys)
    found = list(endpoints.labels_endpoint(Config(publish=publish)))
    assert len(found) == 1 + bool(secret_key)
    return found[-1]


def test_a_free_socket_path_is_ok(tmp_path: Path) -> None:
    """A path where nothing is, a socket that a killed daemon left behind, and an abstract socket are all ok."""
    assert labels(f"ipc://{tmp_path}/labels").verdict == "ok"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(tmp_path / "labels"))
    found = labels(f"ipc://{tmp_path}/labels")
    assert found.verdict == "ok"
    assert "left behind" in found.what
    assert (tmp_path / "labels").exists()
    assert labels("ipc://@abstract").verdict == "ok"


def test_a_socket_in_use_is_a_fault(tmp_path: Path) -> None:
    """A program that is not the service and listens at the socket keeps the daemon from starting."""
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(str(tmp_path / "labels"))
        daemon.listen()
        found = labels(f"ipc://{tmp_path}/labels")
    assert found.verdict == "fault"
    assert f"already publishes at {tmp_path}/labels" in found.what
    assert "stop it" in found.do and "publish.endpoint" in found.do


@pytest.mark.parametrize(
    ("path", "what"),
    [("missing/labels", "is missing"), ("file", "is not a socket"), ("l" * 108, "is too long")],
)
def test_an_impossible_socket_path_is_a_fault(tmp_path: Path, path: str, what: str) -> None:
    """A missing folder, a file in its place, and a path that is too long are faults with advice."""
    (tmp_path / "file").touch()
    found = labels(f"ipc://{tmp_path}/{path}")
    assert found.verdict == "fault"
    assert what in found.what
    assert found.do


@pytest.mark.skipif(
    service.RUN.exists() or service.SYSTEMD.is_dir(), reason="the folder exists, or systemd would make it"
)
def test_the_service_folder_without_systemd_is_a_warning() -> None:
    """Only systemd makes /run/perceiverd, so without systemd the user must make it."""
    found = labels(f"ipc://{service.RUN}/labels")
    assert found.verdict == "warning"
    assert found.do == "mkdir /run/perceiverd, or set publish.endpoint"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
def test_a_socket_of_another_user_is_a_warning() -> None:
    """A user who may not subscribe, look into the folder or make a socket gets a warning with the group to join."""
    # Not in pytest's own folder, which other users may not enter.
    folder = Path(tempfile.mkdtemp(prefix="perceiverd-test-"))
    folder.chmod(0o755)

    def as_nobody() -> list[Finding]:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        return [
            labels(f"ipc://{folder}/labels"),
            labels(f"ipc://{folder}/other"),
            labels(f"ipc://{folder}/shut/labels"),
        ]

    try:
        (folder / "shut").mkdir(mode=0o700)
        with socket.socket(socket.AF_UNIX) as daemon:
            daemon.bind(str(folder / "labels"))
            (folder / "labels").chmod(0o660)
            daemon.listen()
            used, free, shut = run_checks([Check("labels", as_nobody, 60)])
    finally:
        (folder / "labels").unlink(missing_ok=True)
        (folder / "shut").rmdir()
        folder.rmdir()
    assert {used.verdict, free.verdict, shut.verdict} == {"warning"}
    assert "may not subscribe" in used.what
    assert "may not make" in free.what
    assert "may not look into" in shut.what
    assert "perceiverd-labels" in used.do
    assert "perceiverd-labels" in shut.do


def test_ports_that_are_free_used_or_elsewhere() -> None:
    """A port in use is a fault with a command that shows its user; so is an address of another machine."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = labels(f"tcp://127.0.0.1:{port}")
        assert found.verdict == "fault"
        assert "is in use" in found.what
        assert str(port) in found.do and "publish.endpoint" in found.do
        (metrics,) = endpoints.metrics_endpoint(Config(metrics=MetricsConfig(f"127.0.0.1:{port}")))
        assert metrics.verdict == "fault"
        assert "metrics.endpoint" in metrics.do
    assert labels(f"tcp://127.0.0.1:{port}").verdict == "ok"
    assert labels("tcp://127.0.0.1:*").verdict == "ok"
    (away,) = endpoints.metrics_endpoint(Config(metrics=MetricsConfig("192.0.2.1:9464", insecure=True)))
    assert away.verdict == "fault"
    (nowhere,) = endpoints.metrics_endpoint(Config(metrics=MetricsConfig("no.such.invalid:9464", insecure=True)))
    assert nowhere.verdict == "fault"
    assert list(endpoints.metrics_endpoint(Config())) == []


def test_keys_that_other_users_can_read_are_a_fault(tmp_path: Path) -> None:
    """A pair from `perceiverd keys new` is ok; a secret key that everyone can read is a fault."""
    _, secret = create_pair("daemon", tmp_path)
    (tmp_path / "clients").mkdir()
    keys = str(secret), str(tmp_path / "clients")
    assert labels("tcp://127.0.0.1:*", *keys).verdict == "ok"
    secret.chmod(0o644)
    found = labels("tcp://127.0.0.1:*", *keys)
    assert found.verdict == "fault"
    assert "chmod 600" in found.what
