"""`perceiverd doctor` as a user runs it, on a healthy machine and with faults."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from perceiverd.config import Config, StreamConfig
from perceiverd.doctor import doctor
from perceiverd.doctor.checks import Finding
from perceiverd.doctor.doctor import formatted, planned_checks
from perceiverd.sources.specs import Synthetic, Url


def run_doctor(*arguments: str | Path) -> tuple[int, dict[str, Any], str]:
    """The exit status, the findings by the names of their checks, and standard error."""
    command = [sys.executable, "-m", "perceiverd", "doctor", "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    return done.returncode, {each["check"]: each for each in map(json.loads, done.stdout.splitlines())}, done.stderr


def test_a_healthy_machine_has_no_faults(tiny_model: Path, tmp_path: Path) -> None:
    """Every check reports a finding, the status is 0, and libraries print nothing to standard error."""
    path = tmp_path / "c.toml"
    path.write_text(f"""
        model = {{ name = "{tiny_model}", threads = 1 }}
        publish.endpoint = "ipc://labels"
        streams.test.sources = [{{ kind = "synthetic" }}]
    """)
    status, found, errors = run_doctor("--config", path)
    assert [each for each in found.values() if each["verdict"] == "fault"] == []
    assert (status, errors) == (0, "")
    assert {"config", "clock", "memory", "descriptors", "cameras", "sound cards", "sound library"} < set(found)
    assert {"protocols", "labels", "rights", "state", "service", "stream test", "gpu", "model", "speed"} < set(found)


def test_every_fault_is_reported_with_advice(tmp_path: Path) -> None:
    """Each fault comes with advice, no fault stops another check, and the status is 1."""
    path = tmp_path / "c.toml"
    path.write_text("""
        model.name = "/nowhere"
        publish.endpoint = "ipc://missing/labels"
        metrics = { endpoint = "192.0.2.1:9464", insecure = true }
        streams.gone.sources = [{ kind = "file", path = "gone.mp4" }]
        streams.shut.sources = [{ kind = "url", url = "rtsp://127.0.0.1:9/" }]
    """)
    began_s = time.monotonic()
    status, found, errors = run_doctor("--config", path)
    assert time.monotonic() - began_s < 100
    assert (status, errors) == (1, "")
    for check in ("model", "labels", "metrics", "stream gone", "stream shut"):
        assert found[check]["verdict"] == "fault", check
        assert found[check]["do"] or "; " in found[check]["what"], check
    assert found["memory"]["verdict"] == "ok"


@pytest.mark.parametrize("text", ["streams = 3", "nonsense", "", "[streams.a]\nsources = []"])
def test_a_broken_configuration_is_the_first_finding(tmp_path: Path, text: str, tiny_model: Path) -> None:
    """The finding names the file, and the checks that need no configuration still run."""
    path = tmp_path / "c.toml"
    path.write_text(text)
    command = [sys.executable, "-m", "perceiverd", "doctor", "--config", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout
        first = process.stdout.readline()
        second = process.stdout.readline() + process.stdout.readline()
        process.terminate()
    assert first.startswith(f"fault    config         {path}: ")
    assert " -> " in second
    assert "clock" in second


def test_a_missing_configuration_is_one_fault(tmp_path: Path) -> None:
    """A missing file is one fault, with advice on how to write one."""
    command = [sys.executable, "-m", "perceiverd", "doctor", "--config", str(tmp_path / "c.toml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    fault, advice, *others = done.stdout.splitlines()
    assert fault.startswith("fault    config ") and "No such file or directory" in fault
    assert "-> write it (configs/perceiverd.toml is an annotated example), or give another file with --config" in advice
    assert not [line for line in others if "c.toml" in line]


def test_a_finding_is_formatted_in_two_lines() -> None:
    """The first line is what was found; the second, if there is advice, what to do."""
    assert formatted(Finding("clock", "ok", "it is")) == "ok       clock          it is"
    lines = formatted(Finding("clock", "fault", "it is not", "set it")).splitlines()
    assert lines == ["fault    clock          it is not", " " * 24 + "-> set it"]


def test_every_check_has_a_time_limit() -> None:
    """Slow cameras get their configured time, disabled streams have no check, and the model runs last and alone."""
    slow = StreamConfig((Url("rtsp://127.0.0.1/", open_timeout_s=60.0),))
    on, off = (StreamConfig((Synthetic(),), enabled=enabled) for enabled in (True, False))
    settings = Config(streams={"slow": slow, "off": off, "on": on})
    found = {check.name: check for check in planned_checks(settings, None, {})}
    assert found["stream slow"].timeout_s > 60
    assert found["stream on"].timeout_s < 30
    assert "stream off" not in found
    assert [check.name for check in found.values() if check.alone] == ["model"]
    assert list(found)[-1] == "model"


def test_without_a_configuration_the_defaults_are_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without --config and without the service's file, the first finding explains what is checked."""
    monkeypatch.setattr(doctor, "SERVICE_CONFIG", tmp_path / "none.toml")
    finding = next(doctor.findings(None, {}))
    assert (finding.check, finding.verdict) == ("config", "warning")
    assert (
        finding.what
        == f"no --config given and {tmp_path}/none.toml does not exist; checking the defaults, without streams"
    )
    assert finding.do == "perceiverd doctor --config FILE"
