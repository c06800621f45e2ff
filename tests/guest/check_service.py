"""The unit as it is installed, under a real systemd as process 1, in the order of an operator's day. Run by run.sh."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ETC, OPT = Path("/etc/perceiverd"), Path("/opt/perceiverd")
CONFIG = ETC / "perceiverd.toml"
DEPENDENCIES = Path("/srv/deps")
UNIT = "perceiverd.service"
LABELS = "ipc:///run/perceiverd/labels"
START_S = 240
"""One slow core loads torch and the model."""
WATCHDOG_S = 20

SUBSCRIBER = """
import sys, zmq
subscriber = zmq.Context().socket(zmq.SUB)
subscriber.connect(sys.argv[1])
subscriber.subscribe(sys.argv[2])
if not subscriber.poll(60_000):
    sys.exit("nothing came")
sys.stdout.buffer.write(subscriber.recv_multipart()[1])
"""


def call(*command: str | Path, timeout: float = START_S, check: bool = True) -> str:
    """What a command prints, both streams; fails where it does."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout)
    assert not check or done.returncode == 0, done.stdout
    return done.stdout


def show(name: str, unit: str = UNIT) -> str:
    return call("systemctl", "show", "--value", f"--property={name}", unit).strip()


def journal(unit: str = UNIT) -> str:
    call("journalctl", "--sync", check=False)
    return call("journalctl", "--unit", unit, "--output=short-precise", "--no-pager", "--quiet")


def until(holds: Callable[[], Any], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds} s\n{journal()}"
        time.sleep(0.2)


def heard(stream: str, endpoint: str = LABELS) -> dict[str, Any]:
    """The next scores of a stream, to a plain subscriber that is nobody but a member of the group."""
    as_member = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--groups=perceiverd-labels")
    message: dict[str, Any] = json.loads(
        call(*as_member, sys.executable, "-c", SUBSCRIBER, endpoint, f"scores/{stream}/")
    )
    return message


def clip() -> Path:
    return next(OPT.glob("lib/python*/site-packages/perceiverd/configs/demo/clip.mp4"))


def configure(*streams: str, path: Path = CONFIG) -> None:
    """So many streams of the bundled clip, under these names."""
    sources = f'sources = [{{ kind = "file", path = "{clip()}", loop = true }}]'
    path.write_text("".join(f"[streams.{name}]\n{sources}\n" for name in streams), encoding="utf-8")


def make(target: str) -> str:
    wheel = next(ROOT.parent.glob("perceiverd-*.whl"))
    # Torch and the like are borrowed: see run.sh.
    flags = "--no-index --no-deps --force-reinstall"
    return call(
        "make", "-C", ROOT, "--no-print-directory", target, "PYTHON=/usr/bin/python3", f"PACKAGE={wheel}",
        f"PIP_FLAGS={flags}",
    )  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def installed() -> Iterator[None]:
    """`make install`, and a unit that may be killed without a long wait; `make uninstall` is the last test."""
    call("/usr/bin/python3", "-m", "venv", OPT)
    (next(OPT.glob("lib/python*/site-packages")) / "borrowed.pth").write_text(f"{DEPENDENCIES}\n")
    assert "installed." in make("install")
    drop_in = Path(f"/etc/systemd/system/{UNIT}.d/test.conf")
    drop_in.parent.mkdir()
    drop_in.write_text(f"[Service]\nWatchdogSec={WATCHDOG_S}\nRestartSec=1\n")
    call("systemctl", "daemon-reload")
    yield
    call("systemctl", "stop", UNIT, check=False)


def test_an_installation_is_whole_and_can_be_repeated() -> None:
    """User and groups are there, systemd finds nothing to warn of, and a second one leaves the configuration alone."""
    assert "perceiverd-labels" in call("getent", "group", "perceiverd-labels")
    assert re.search(r"\b(video)\b.*\b", call("id", "perceiverd"))
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
    until(lambda: re.match(r"streams: 1 up; lag \d+\.\d\d s; [1-9]\d* windows tagged", show("StatusText")), 30)
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
    until(lambda: "reload refused" in show("StatusText"), 10)
    heard("one")
    assert show("MainPID") == pid
    assert show("ActiveState") == "active"
    configure("one")
    call("systemctl", "reload", UNIT)
    until(lambda: "refused" not in show("StatusText"), 10)


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
    until(lambda: "1 backing off" in show("StatusText"), 30)
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
    told = make("uninstall")
    assert "/var/lib/perceiverd" in told
    assert not OPT.exists()
    assert not Path("/usr/local/bin/perceiverd").is_symlink()
    assert show("LoadState") == "not-found"
    assert CONFIG.exists()
    assert (ETC / "secrets.env").exists()
    assert Path("/var/lib/perceiverd").is_dir()
    make("uninstall")
