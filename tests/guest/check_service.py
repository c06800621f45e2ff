"""The installed unit under a real systemd as process 1, from installation to removal. run.sh runs it."""

import json
import os
import re
import signal
import sys
import time
import urllib.request
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
    journal,
    make,
    next_scores,
    show,
    until,
)

HISTORY, PAGE = "perceiverd-history.service", "perceiverd-web.service"
SNAPSHOTS = Path("/var/lib/perceiverd/snapshots")


def test_an_installation_is_complete_and_repeatable() -> None:
    """User and groups exist, systemd has no warnings, and a second installation keeps the configuration."""
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
    """`systemctl start` returns once a window was sent; STATUS shows the streams and the lag."""
    configure("one")
    began_s = time.monotonic()
    call("systemctl", "start", UNIT)
    print(f"READY after {time.monotonic() - began_s:.1f} s")
    assert "ready reason=first-window" in journal()
    until(lambda: re.match(r"streams: 1 up; lag \d+\.\d\d s; [1-9]\d* windows tagged", show("StatusText")), 60)
    assert show("ActiveState") == "active"


def test_only_members_of_the_group_get_labels() -> None:
    """A member of the group gets a window's labels; another user cannot even connect."""
    message = next_scores("one")
    print(message["labels"][:2])
    assert len(message["labels"]) == 10
    connect = f"import socket; socket.socket(socket.AF_UNIX).connect({LABELS[6:]!r})"
    output = call(
        "setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", sys.executable, "-c", connect, check=False
    )
    assert "PermissionError" in output


def test_it_is_confined() -> None:
    """The process is as confined as the unit says: no capabilities, no home folders, a read-only system."""
    pid = show("MainPID")
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert os.listdir(f"/proc/{pid}/root/root") == []  # noqa: PTH208 - through /proc: the view of the process
    flags = {line.split()[4]: line.split()[5] for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()}
    assert "ro" in flags["/"].split(",")
    assert Path("/var/lib/perceiverd").stat().st_mode & 0o777 == 0o710
    assert Path("/run/perceiverd").stat().st_mode & 0o777 == 0o750


def test_a_reload_applies_changes_and_refuses_errors() -> None:
    """The same process gets a new stream; an invalid file changes nothing, and STATUS says why."""
    pid = show("MainPID")
    configure("one", "two")
    call("systemctl", "reload", UNIT)
    next_scores("two")
    CONFIG.write_text("streams = 3\n")
    call("systemctl", "reload", UNIT)
    until(lambda: "reload refused" in show("StatusText"), 60)
    next_scores("one")
    assert show("MainPID") == pid
    assert show("ActiveState") == "active"
    configure("one")
    call("systemctl", "reload", UNIT)
    until(lambda: "refused" not in show("StatusText"), 60)


def test_a_stopped_process_is_killed_and_restarted() -> None:
    """After SIGSTOP the watchdog kills the process; systemd restarts it, and labels come again."""
    pid = int(show("MainPID"))
    os.kill(pid, signal.SIGSTOP)
    stopped_s = time.monotonic()
    until(lambda: show("NRestarts") == "1", WATCHDOG_S + 60)
    print(f"restarted after {time.monotonic() - stopped_s:.1f} s")
    until(lambda: show("ActiveState") == "active", START_S)
    print(f"READY again after {time.monotonic() - stopped_s:.1f} s")
    next_scores("one")
    assert "Watchdog timeout" in journal()
    assert int(show("MainPID")) != pid


def test_a_stop_is_clean() -> None:
    """The service exits with 0 in time and leaves no process, socket or error."""
    began_s = time.monotonic()
    call("systemctl", "stop", UNIT)
    print(f"stopped after {time.monotonic() - began_s:.1f} s")
    assert time.monotonic() - began_s < 15
    assert (show("Result"), show("ExecMainStatus"), show("ActiveState")) == ("success", "0", "inactive")
    assert not Path("/run/perceiverd").exists()
    assert call("pgrep", "--uid", "perceiverd", check=False) == ""


@pytest.mark.parametrize(
    "text", ["streams = 3", 'model.name = "/nowhere"\nstreams.a.sources = [{ kind = "synthetic" }]']
)
def test_an_invalid_configuration_is_not_retried(text: str) -> None:
    """The service exits with 78 and one line that says what is wrong; systemd does not restart it."""
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


def test_a_missing_camera_does_not_stop_the_unit() -> None:
    """If no stream delivers anything, the unit still starts, and the journal says so."""
    CONFIG.write_text('streams.door.sources = [{ kind = "url", url = "rtsp://127.0.0.1:9/none" }]\n')
    call("systemctl", "start", UNIT)
    assert "ready reason=all-streams-down" in journal()
    until(lambda: "1 backing off" in show("StatusText"), 60)
    call("systemctl", "stop", UNIT)


def test_one_unit_per_stream() -> None:
    """perceiverd@NAME runs NAME.toml and publishes at its own endpoint, beside perceiverd.service."""
    configure("clip", path=ETC / "door.toml")
    call("systemctl", "start", "perceiverd@door")
    next_scores("clip", "ipc:///run/perceiverd-door/labels")
    call("systemctl", "stop", "perceiverd@door")
    assert show("Result", "perceiverd@door") == "success"


def test_the_journal_is_readable() -> None:
    """The journal has one line per event, with its priority, and no traceback."""
    text = journal()
    print(text[-3000:])
    assert "Traceback" not in text
    assert "cpuinfo" not in text  # torch would print it if it could not read the CPU's features
    errors = call("journalctl", "--unit", UNIT, "--priority=err", "--output=cat", "--no-pager", "--quiet")
    assert "reload-refused" in errors
    assert "model-loaded" not in errors


def test_the_doctor_checks_the_service() -> None:
    """As root on an installed machine, `perceiverd doctor` finds the unit, the user and the model, and ends in time."""
    configure("one")
    report = call("perceiverd", "doctor", "--json", check=False)
    found = {each["check"]: each for each in map(json.loads, report.splitlines())}
    print(report)
    assert found["config"]["verdict"] == found["model"]["verdict"] == found["stream one"]["verdict"] == "ok"
    assert "no user can read" not in report


def test_the_history_records_the_service() -> None:
    """Its unit runs with a user of its own, stores what the service publishes, and only its group may read that."""
    configure("one")
    call("systemctl", "restart", UNIT)
    call("systemctl", "start", HISTORY)
    until(lambda: show("StatusText", HISTORY).startswith("1 of 1 daemons reached"), START_S)
    assert call("ps", "-o", "user:32=", "-p", show("MainPID", HISTORY)).strip() == "perceiverd-history"
    until(lambda: "local/one" in call("perceiverd", "history", "list", check=False), 60)
    member = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--groups=perceiverd-history")
    assert "local/one" in call(*member, "/opt/perceiverd/bin/perceiverd", "history", "list")
    stranger = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
    refusal = call(*stranger, "/opt/perceiverd/bin/perceiverd", "history", "list", check=False)
    assert "this user may not read it" in refusal
    assert '"history","verdict":"ok"' in call("perceiverd", "doctor", "--json", check=False).replace(" ", "")
    call("systemctl", "stop", HISTORY)
    assert (show("Result", HISTORY), show("ActiveState", HISTORY)) == ("success", "inactive")


def test_the_page_shows_the_service() -> None:
    """Its unit runs with a user of its own, which may pass to the snapshots and list nothing else of the service."""
    configure("one")
    (ETC / "web.toml").write_text('[server]\nlisten = "127.0.0.1:*"\n')  # a container shares its host's ports
    call("systemctl", "restart", UNIT)
    started = call("systemctl", "start", PAGE, check=False)
    assert started == "", journal(PAGE)
    until(lambda: show("StatusText", PAGE).startswith("1 of 1 daemons reached"), START_S)
    assert call("ps", "-o", "user:32=", "-p", show("MainPID", PAGE)).strip() == "perceiverd-web"
    place = journal(PAGE).rpartition("web-started page=")[2].split()[0]
    with urllib.request.urlopen(f"{place}api/1/streams", timeout=START_S) as answer:
        (stream,) = json.load(answer)["streams"]
    assert (stream["machine"], stream["stream"], stream["state"]) == ("local", "one", "up")
    with urllib.request.urlopen(place, timeout=START_S) as answer:
        assert b"perceiverd" in answer.read()
    assert SNAPSHOTS.stat().st_mode & 0o7777 == 0o2750
    groups = "--groups=perceiverd-labels,perceiverd-media"
    page = ("setpriv", "--reuid=perceiverd-web", "--regid=perceiverd-web", groups)
    call(*page, "ls", SNAPSHOTS)
    assert "Permission denied" in call(*page, "ls", SNAPSHOTS.parent, check=False)
    assert "Permission denied" in call(*page, "touch", SNAPSHOTS / "x", check=False)
    stranger = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
    assert "Permission denied" in call(*stranger, "ls", SNAPSHOTS, check=False)
    assert '"web","verdict":"ok"' in call("perceiverd", "doctor", "--json", check=False).replace(" ", "")
    call("systemctl", "stop", PAGE)
    assert (show("Result", PAGE), show("ActiveState", PAGE)) == ("success", "inactive")


def test_uninstalling_keeps_the_operators_files() -> None:
    """Program and units are removed; configuration, secrets and stored files stay, and the output lists them."""
    configure("one")
    call("systemctl", "enable", "--now", UNIT)
    output = make("uninstall")
    assert "/var/lib/perceiverd" in output
    assert not OPT.exists()
    assert not Path("/usr/local/bin/perceiverd").is_symlink()
    assert (show("LoadState"), show("ActiveState")) == ("not-found", "inactive")
    assert call("pgrep", "--uid", "perceiverd", check=False) == ""
    assert not Path(f"/etc/systemd/system/multi-user.target.wants/{UNIT}").is_symlink()
    assert CONFIG.exists()
    assert (ETC / "secrets.env").exists()
    assert Path("/var/lib/perceiverd").is_dir()
    make("uninstall")
