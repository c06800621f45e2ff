"""Files and folders with real wrong rights."""

import os
from pathlib import Path

from perceiverd.config import Config, ModelConfig, SnapshotsConfig, StreamConfig
from perceiverd.doctor import service
from perceiverd.doctor.checks import Check, Finding, run_checks
from perceiverd.sources.specs import File, Synthetic, Url


def test_files_that_other_users_can_read_are_faults(tmp_path: Path) -> None:
    """Only their owner may read the passwords and open the state folder."""
    secrets, state = tmp_path / "secrets.env", tmp_path / "state"
    assert list(service.secrets_file(secrets)) == []
    secrets.write_text("A=b\n")
    secrets.chmod(0o644)
    assert [found.verdict for found in service.secrets_file(secrets)] == ["fault"]
    secrets.chmod(0o600)
    assert [found.verdict for found in service.secrets_file(secrets)] == ["ok"]
    assert [found.verdict for found in service.state_folder(state)] == ["ok"]
    state.mkdir(mode=0o755)
    assert [found.verdict for found in service.state_folder(state)] == ["fault"]
    state.chmod(0o700)
    assert [found.verdict for found in service.state_folder(state)] == ["ok"]


def test_files_that_the_user_may_not_read_are_a_fault(tmp_path: Path) -> None:
    """The finding names each file of the configuration that the user may not read."""

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
    (found,) = run_checks([Check("rights", as_nobody, 60)])
    assert found.verdict == "fault"
    for name in ("config", "clip", "ca"):
        assert str(tmp_path / name) in found.what
    assert found.do


def test_snapshots_that_cannot_be_saved_are_a_fault(tmp_path: Path) -> None:
    """A folder that other users may open, and a file in its place, are faults. The check makes nothing."""

    def found(directory: Path | None, *, on: bool = True) -> list[Finding]:
        options = SnapshotsConfig(on_event=on, directory=None if directory is None else str(directory))
        settings = Config(streams={"door": StreamConfig((Synthetic(),))}, snapshots=options)
        return list(run_checks([Check("snapshots", lambda: service.snapshots_folder(settings, {}), 60)]))

    folder = tmp_path / "snapshots"
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


def test_missing_files_are_no_question_of_rights(tmp_path: Path) -> None:
    """Other checks report missing files; the check of rights ignores them."""
    settings = Config(model=ModelConfig("none"), streams={"door": StreamConfig((File(str(tmp_path / "clip")),))})
    (found,) = run_checks([Check("rights", lambda: service.rights(settings, tmp_path / "config"), 10)])
    assert found.verdict == "ok"


def test_a_machine_without_systemd_is_ok() -> None:
    """A user who starts the daemon by hand does not need systemd."""
    if not Path("/run/systemd/system").is_dir():
        assert list(service.units()) == [Finding("service", "ok", "systemd does not run here")]
