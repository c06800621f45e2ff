"""The unit as it is installed, under a real systemd as process 1, in the order of an operator's day. Run by run.sh."""

import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.guest.installation import (
    CONFIG,
    ETC,
    LABELS,
    OPT,
    START_S,
    UNIT,
    WATCHDOG_S,
    call,
    configure,
    heard,
    journal,
    make,
    show,
    until,
)


def test_an_installation_is_whole_and_can_be_repeated() -> None:
    """User and groups are there, systemd finds nothing to warn of, and a second one leaves the configuration alone."""
    assert "perceiverd-labels" in call("getent", "group", "perceiverd-labels")
    assert {"video", "audio"} <= set(re.findall(r"\w+", call("id", "perceiverd")))
    assert call("systemd-analyze", "verify", UNIT, "perceiverd@door.service") == ""
    assert "perceiverd 0." in call("perceiverd", "--version")
    CONFIG.write_text("# mine\n")
    (ETC / "secrets.env").write_text("NAME=secret\n")
    make("install")
    assert CONFIG.read_text() == "# mine\n"
    assert (ETC / "secrets.env").stat().st_mode & 0o777 == 0o600


def test_it_is_ready_with_the_first_window() -> None:
    """`systemctl start` comes back when a window was sent; STATUS tells the streams and the lag."""
    configure("one")
    began = time.monotonic()
    call("systemctl", "start", UNIT)
    print(f"READY after {time.monotonic() - began:.1f} s")
    assert "ready reason=first-window" in journal()
    until(lambda: re.match(r"streams: 1 up; lag \d+\.\d\d s; [1-9]\d* windows tagged", show("StatusText")), 60)
    assert show("ActiveState") == "active"


def test_members_of_the_group_hear_labels_and_nobody_else_does() -> None:
    """A plain pyzmq subscriber gets a window's labels; without the group it may not even connect."""
    message = heard("one")
    print(message["labels"][:2])
    assert len(message["labels"]) == 10
    may_not = f"import socket; socket.socket(socket.AF_UNIX).connect({LABELS[6:]!r})"
    told = call(
        "setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", sys.executable, "-c", may_not, check=False
    )
    assert "PermissionError" in told


def test_it_is_confined() -> None:
    """What the unit's options promise is so for the process: no capabilities, no homes, nothing to write on."""
    pid = show("MainPID")
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert os.listdir(f"/proc/{pid}/root/root") == []  # noqa: PTH208 - through /proc, as the process sees it
    flags = {line.split()[4]: line.split()[5] for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()}
    assert "ro" in flags["/"].split(",")
    assert Path("/var/lib/perceiverd").stat().st_mode & 0o777 == 0o700
    assert Path("/run/perceiverd").stat().st_mode & 0o777 == 0o750


def test_a_reload_takes_what_is_new_and_refuses_what_is_wrong() -> None:
    """The same process watches another stream; a file that can't be used changes nothing, and STATUS says why."""
    pid = show("MainPID")
    configure("one", "two")
    call("systemctl", "reload", UNIT)
    heard("two")
    CONFIG.write_text("streams = 3\n")
    call("systemctl", "reload", UNIT)
    until(lambda: "reload refused" in show("StatusText"), 60)
    heard("one")
    assert show("MainPID") == pid
    assert show("ActiveState") == "active"
    configure("one")
    call("systemctl", "reload", UNIT)
    until(lambda: "refused" not in show("StatusText"), 60)


def test_a_process_that_stops_is_killed_and_started_again() -> None:
    """SIGSTOP: no progress, no WATCHDOG=1, SIGABRT; a new process is READY and labels are back, with nobody's help."""
    pid = int(show("MainPID"))
    os.kill(pid, signal.SIGSTOP)
    stopped = time.monotonic()
    until(lambda: show("NRestarts") == "1", WATCHDOG_S + 60)
    print(f"started again after {time.monotonic() - stopped:.1f} s")
    until(lambda: show("ActiveState") == "active", START_S)
    print(f"READY again after {time.monotonic() - stopped:.1f} s")
    heard("one")
    assert "Watchdog timeout" in journal()
    assert int(show("MainPID")) != pid


def test_a_stop_is_clean() -> None:
    """It ends by itself, with 0, within its time; no process, socket or error is left."""
    began = time.monotonic()
    call("systemctl", "stop", UNIT)
    print(f"stopped after {time.monotonic() - began:.1f} s")
    assert time.monotonic() - began < 15
    assert (show("Result"), show("ExecMainStatus"), show("ActiveState")) == ("success", "0", "inactive")
    assert not Path("/run/perceiverd").exists()
    assert call("pgrep", "--uid", "perceiverd", check=False) == ""


@pytest.mark.parametrize(
    "text", ["streams = 3", 'model.name = "/nowhere"\nstreams.a.sources = [{ kind = "synthetic" }]']
)
def test_a_configuration_that_cannot_be_used_is_not_tried_again(text: str) -> None:
    """78, one line that says what is wrong, and no further start."""
    CONFIG.write_text(text)
    before = show("NRestarts")
    call("systemctl", "start", UNIT, check=False)
    assert (show("Result"), show("ExecMainStatus")) == ("exit-code", "78")
    time.sleep(3)
    assert (show("ActiveState"), show("NRestarts")) == ("failed", "0" if before == "0" else show("NRestarts"))
    last = journal().splitlines()[-8:]
    assert any("perceiverd: /etc/perceiverd/perceiverd.toml: " in line for line in last)
    assert "Traceback" not in journal()
    call("systemctl", "reset-failed", UNIT)


def test_a_camera_that_is_unplugged_at_boot_fails_nothing() -> None:
    """Where no stream gives anything the unit starts all the same, and says so."""
    CONFIG.write_text('streams.door.sources = [{ kind = "url", url = "rtsp://127.0.0.1:9/none" }]\n')
    call("systemctl", "start", UNIT)
    assert "ready reason=all-streams-down" in journal()
    until(lambda: "1 backing off" in show("StatusText"), 60)
    call("systemctl", "stop", UNIT)


def test_one_unit_a_stream() -> None:
    """perceiverd@NAME runs NAME.toml and publishes at a place of its own, beside perceiverd.service."""
    configure("clip", path=ETC / "door.toml")
    call("systemctl", "start", "perceiverd@door")
    heard("clip", "ipc:///run/perceiverd-door/labels")
    call("systemctl", "stop", "perceiverd@door")
    assert show("Result", "perceiverd@door") == "success"


def test_the_journal_can_be_read() -> None:
    """One line for each thing that happened, with its priority; no Python of ours."""
    text = journal()
    print(text[-3000:])
    assert "Traceback" not in text
    assert "cpuinfo" not in text  # torch could not tell what the processor can do
    errors = call("journalctl", "--unit", UNIT, "--priority=err", "--output=cat", "--no-pager", "--quiet")
    assert "reload-refused" in errors
    assert "model-loaded" not in errors


def test_the_doctor_knows_the_service() -> None:
    """As root on an installed machine, `perceiverd doctor` finds the unit, the user and the model, and ends in time."""
    configure("one")
    report = call("perceiverd", "doctor", "--json", check=False)
    found = {each["check"]: each for each in map(json.loads, report.splitlines())}
    print(report)
    assert found["config"]["verdict"] == found["model"]["verdict"] == found["stream one"]["verdict"] == "ok"
    assert "no user can read" not in report


def test_uninstalling_leaves_what_is_the_operators() -> None:
    """Program and units are gone; configuration, secrets and what was stored are there, and told of."""
    configure("one")
    call("systemctl", "enable", "--now", UNIT)
    told = make("uninstall")
    assert "/var/lib/perceiverd" in told
    assert not OPT.exists()
    assert not Path("/usr/local/bin/perceiverd").is_symlink()
    assert (show("LoadState"), show("ActiveState")) == ("not-found", "inactive")
    assert call("pgrep", "--uid", "perceiverd", check=False) == ""
    assert not Path(f"/etc/systemd/system/multi-user.target.wants/{UNIT}").is_symlink()
    assert CONFIG.exists()
    assert (ETC / "secrets.env").exists()
    assert Path("/var/lib/perceiverd").is_dir()
    make("uninstall")
