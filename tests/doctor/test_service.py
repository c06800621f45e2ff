"""Sockets, files and rights that are really as they should not be."""

import os
import socket
from pathlib import Path

import pytest

from perceiverd.config import Config, MetricsConfig, ModelConfig, PublishConfig, SnapshotsConfig, StreamConfig
from perceiverd.doctor import service
from perceiverd.doctor.checks import Check, Finding, examine
from perceiverd.sources.specs import File, Synthetic, Url
from perceiverd.wire.keys import new


def labels(endpoint: str, secret_key: str | None = None, client_keys: str | None = None) -> Finding:
    publish = PublishConfig(endpoint, secret_key=secret_key, client_keys=client_keys)
    found = list(service.labels_endpoint(Config(publish=publish)))
    assert len(found) == 1 + bool(secret_key)
    return found[-1]


def test_a_place_for_a_socket_that_is_free(tmp_path: Path) -> None:
    """Nothing is there and something can be; what was left behind by a killed daemon is in nobody's way."""
    assert labels(f"ipc://{tmp_path}/labels").verdict == "ok"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(tmp_path / "labels"))
    found = labels(f"ipc://{tmp_path}/labels")
    assert found.verdict == "ok"
    assert "left behind" in found.what
    assert (tmp_path / "labels").exists()
    assert labels("ipc://@abstract").verdict == "ok"


def test_a_socket_that_is_in_use(tmp_path: Path) -> None:
    """A daemon that publishes there is told: unless it is the service, another one could not begin."""
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(str(tmp_path / "labels"))
        daemon.listen()
        found = labels(f"ipc://{tmp_path}/labels")
    assert found.verdict == "fault"
    assert f"publishes at {tmp_path}/labels already" in found.what
    assert "end it" in found.do and "publish.endpoint" in found.do


@pytest.mark.parametrize(
    ("path", "what"),
    [("missing/labels", "is missing"), ("file", "is a file and no socket"), ("l" * 108, "is too long")],
)
def test_a_place_for_a_socket_that_cannot_be(tmp_path: Path, path: str, what: str) -> None:
    """No folder, a file in its place, a path too long: a fault with what to do."""
    (tmp_path / "file").touch()
    found = labels(f"ipc://{tmp_path}/{path}")
    assert found.verdict == "fault"
    assert what in found.what
    assert found.do


@pytest.mark.skipif(service.RUN.exists() or service.SYSTEMD.is_dir(), reason="the folder is there, or will be")
def test_a_place_that_only_systemd_makes() -> None:
    """Where it is not at work, nobody does."""
    found = labels(f"ipc://{service.RUN}/labels")
    assert found.verdict == "warning"
    assert found.do == "mkdir /run/perceiverd, or set publish.endpoint"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_a_socket_that_others_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Who may not listen, look or make a socket there is told what group to join."""
    # Not below pytest's own folder, which nobody else may enter.
    folder = Path(f"/tmp/perceiverd-test-{os.getpid()}")
    folder.mkdir(mode=0o755)

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
            used, free, shut = examine([Check("labels", as_nobody, 10)])
    finally:
        (folder / "labels").unlink(missing_ok=True)
        (folder / "shut").rmdir()
        folder.rmdir()
    assert {used.verdict, free.verdict, shut.verdict} == {"warning"}
    assert "may not listen" in used.what
    assert "may not make" in free.what
    assert "may not look into" in shut.what
    assert "perceiverd-labels" in used.do
    assert "perceiverd-labels" in shut.do


def test_a_port_that_is_free_taken_or_elsewhere() -> None:
    """Whoever has it is not asked, but how to find out is told."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = labels(f"tcp://127.0.0.1:{port}")
        assert found.verdict == "fault"
        assert "is taken" in found.what
        assert str(port) in found.do and "publish.endpoint" in found.do
        (metrics,) = service.metrics_endpoint(Config(metrics=MetricsConfig(f"127.0.0.1:{port}")))
        assert metrics.verdict == "fault"
        assert "metrics.endpoint" in metrics.do
    assert labels(f"tcp://127.0.0.1:{port}").verdict == "ok"
    assert labels("tcp://127.0.0.1:*").verdict == "ok"
    (away,) = service.metrics_endpoint(Config(metrics=MetricsConfig("192.0.2.1:9464", insecure=True)))
    assert away.verdict == "fault"
    (nowhere,) = service.metrics_endpoint(Config(metrics=MetricsConfig("no.such.invalid:9464", insecure=True)))
    assert nowhere.verdict == "fault"
    assert list(service.metrics_endpoint(Config())) == []


def test_keys_that_can_and_cannot_be_read(tmp_path: Path) -> None:
    """A pair as `perceiverd keys new` makes it is well; one that everybody can read is not."""
    _, secret = new("daemon", tmp_path)
    (tmp_path / "clients").mkdir()
    keys = str(secret), str(tmp_path / "clients")
    assert labels("tcp://127.0.0.1:*", *keys).verdict == "ok"
    secret.chmod(0o644)
    found = labels("tcp://127.0.0.1:*", *keys)
    assert found.verdict == "fault"
    assert "chmod 600" in found.what


def test_files_that_others_can_read(tmp_path: Path) -> None:
    """Passwords and what is stored are for their owner alone."""
    secrets, state = tmp_path / "secrets.env", tmp_path / "state"
    assert list(service.secrets_file(secrets)) == []
    secrets.write_text("A=b\n")
    secrets.chmod(0o644)
    assert [found.verdict for found in service.secrets_file(secrets)] == ["fault"]
    secrets.chmod(0o600)
    assert [found.verdict for found in service.secrets_file(secrets)] == ["ok"]
    assert [found.verdict for found in service.state(state)] == ["ok"]
    state.mkdir(mode=0o755)
    assert [found.verdict for found in service.state(state)] == ["fault"]
    state.chmod(0o700)
    assert [found.verdict for found in service.state(state)] == ["ok"]


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    """Of the configuration and the model, those that this user may not read are named."""

    def as_nobody() -> list[Finding]:
        if os.geteuid() == 0:
            os.setresuid(65534, 65534, 65534)
        sources = File(str(tmp_path / "clip")), Url("https://camera/", ca_file=str(tmp_path / "ca"))
        return list(
            service.rights(
                Config(model=ModelConfig("none"), streams={"door": StreamConfig(sources)}), tmp_path / "config"
            )
        )

    for name in ("config", "clip", "ca"):
        (tmp_path / name).touch(mode=0o000)
    (found,) = examine([Check("rights", as_nobody, 10)])
    assert found.verdict == "fault"
    for name in ("config", "clip", "ca"):
        assert str(tmp_path / name) in found.what
    assert found.do


def test_pictures_that_cannot_be_kept(tmp_path: Path) -> None:
    """A folder that others may look into, or that is a file, is a fault before the daemon starts; nothing is made."""

    def found(directory: Path | None, *, on: bool = True) -> list[Finding]:
        options = SnapshotsConfig(on_event=on, directory=None if directory is None else str(directory))
        settings = Config(streams={"door": StreamConfig((Synthetic(),))}, snapshots=options)
        return list(examine([Check("snapshots", lambda: service.snapshots_folder(settings, {}), 10)]))

    folder = tmp_path / "pictures"
    assert [each.verdict for each in found(folder)] == ["ok"]
    assert not folder.exists()
    folder.mkdir(mode=0o755)
    (open_to_all,) = found(folder)
    assert open_to_all.verdict == "fault"
    assert "chmod 700" in open_to_all.what
    assert found(folder, on=False) == []
    (tmp_path / "file").touch()
    assert [each.verdict for each in found(tmp_path / "file")] == ["fault"]
    if not service.SYSTEMD.is_dir():
        (nowhere,) = found(None)
        assert (nowhere.verdict, nowhere.what[:12]) == ("fault", "$.snapshots:")


def test_what_is_not_there_is_no_question_of_rights(tmp_path: Path) -> None:
    """It has a fault of its own."""
    settings = Config(model=ModelConfig("none"), streams={"door": StreamConfig((File(str(tmp_path / "clip")),))})
    (found,) = examine([Check("rights", lambda: service.rights(settings, tmp_path / "config"), 10)])
    assert found.verdict == "ok"


def test_a_machine_without_systemd_or_unit_is_well() -> None:
    """Whoever runs it by hand has nothing to mend."""
    if not Path("/run/systemd/system").is_dir():
        assert list(service.service()) == [Finding("service", "ok", "systemd is not at work here")]
