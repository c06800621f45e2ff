"""`perceiverd doctor` as its user calls it, on machines that are well and on broken ones."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from perceiverd.config import Config, StreamConfig
from perceiverd.doctor.checks import Finding
from perceiverd.doctor.doctor import checks, told
from perceiverd.sources.specs import Synthetic, Url


def examined(*arguments: str | Path) -> tuple[int, dict[str, Any], str]:
    """The exit status, the findings by what was looked at, and standard error."""
    command = [sys.executable, "-m", "perceiverd", "doctor", "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    return done.returncode, {each["check"]: each for each in map(json.loads, done.stdout.splitlines())}, done.stderr


def test_a_machine_that_is_well(tiny_model: Path, tmp_path: Path) -> None:
    """Every check says what is so, and the status is 0; no noise of libraries beside it."""
    path = tmp_path / "c.toml"
    path.write_text(f"""
        model = {{ name = "{tiny_model}", threads = 1 }}
        publish.endpoint = "ipc://labels"
        streams.test.sources = [{{ kind = "synthetic" }}]
    """)
    status, found, errors = examined("--config", path)
    assert [each for each in found.values() if each["verdict"] == "fault"] == []
    assert (status, errors) == (0, "")
    assert {"config", "clock", "memory", "descriptors", "cameras", "sound cards", "sound library"} < set(found)
    assert {"protocols", "labels", "rights", "state", "service", "stream test", "gpu", "model", "speed"} < set(found)


def test_a_machine_on_which_all_is_broken(tmp_path: Path) -> None:
    """Each fault is told with its remedy, nothing keeps another check from its work, and the status is 1."""
    path = tmp_path / "c.toml"
    path.write_text("""
        model.name = "/nowhere"
        publish.endpoint = "ipc://missing/labels"
        metrics = { endpoint = "192.0.2.1:9464", insecure = true }
        streams.gone.sources = [{ kind = "file", path = "gone.mp4" }]
        streams.shut.sources = [{ kind = "url", url = "rtsp://127.0.0.1:9/" }]
    """)
    began_s = time.monotonic()
    status, found, errors = examined("--config", path)
    assert time.monotonic() - began_s < 100
    assert (status, errors) == (1, "")
    for check in ("model", "labels", "metrics", "stream gone", "stream shut"):
        assert found[check]["verdict"] == "fault", check
        assert found[check]["do"] or "; " in found[check]["what"], check
    assert found["memory"]["verdict"] == "ok"


@pytest.mark.parametrize("text", ["streams = 3", "nonsense", "", "[streams.a]\nsources = []"])
def test_a_configuration_that_is_broken(tmp_path: Path, text: str, tiny_model: Path) -> None:
    """It is told where, and what needs no configuration is looked at all the same."""
    path = tmp_path / "c.toml"
    path.write_text(text)
    command = [sys.executable, "-m", "perceiverd", "doctor", "--config", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as doctor:
        assert doctor.stdout
        first = doctor.stdout.readline()
        second = doctor.stdout.readline() + doctor.stdout.readline()
        doctor.terminate()
    assert first.startswith(f"fault    config         {path}: ")
    assert " -> " in second
    assert "clock" in second


def test_a_configuration_that_is_not_there(tmp_path: Path) -> None:
    """It is one fault, with how to come by one."""
    command = [sys.executable, "-m", "perceiverd", "doctor", "--config", str(tmp_path / "c.toml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    fault, remedy, *others = done.stdout.splitlines()
    assert fault.startswith("fault    config ") and fault.endswith("No such file or directory")
    assert "-> write it (the commented example is configs/perceiverd.toml), or name another with --config" in remedy
    assert not [line for line in others if "c.toml" in line]


def test_a_finding_for_people() -> None:
    """What is so, and below it what to do."""
    assert told(Finding("clock", "ok", "it is")) == "ok       clock          it is"
    lines = told(Finding("clock", "fault", "it is not", "set it")).splitlines()
    assert lines == ["fault    clock          it is not", " " * 24 + "-> set it"]


def test_every_check_has_its_bound() -> None:
    """Streams of slow cameras are given the time they ask for, disabled ones none; the model is timed alone, last."""
    slow = StreamConfig((Url("rtsp://127.0.0.1/", open_timeout_s=60.0),))
    on, off = (StreamConfig((Synthetic(),), enabled=enabled) for enabled in (True, False))
    settings = Config(streams={"slow": slow, "off": off, "on": on})
    found = {check.name: check for check in checks(settings, None, {})}
    assert found["stream slow"].bound_s > 60
    assert found["stream on"].bound_s < 30
    assert "stream off" not in found
    assert [check.name for check in found.values() if check.alone] == ["model"]
    assert list(found)[-1] == "model"
