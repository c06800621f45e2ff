"""`perceiverd devices` without any device, and with a real microphone on a real sound server."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from perceiverd import config
from perceiverd.cli import devices
from perceiverd.core.errors import PerceiverdError
from perceiverd.sources.devices import v4l2
from perceiverd.sources.process.probe import dbfs, measured_rate_hz
from perceiverd.sources.specs import Camera, Microphone
from tests.support.pulse import FAKE, RATE_HZ, Pulse, microphone, missing, needs_microphone

TONE = 0.25 * np.sin(2 * np.pi * 440 * np.arange(RATE_HZ) / RATE_HZ)
no_camera = pytest.mark.skipif(bool(v4l2.paths()), reason="this machine has a camera")


def command(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "perceiverd", "devices", *words],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=110,
    )


@pytest.fixture(scope="module")
def pulse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pulse]:
    with microphone(tmp_path_factory.mktemp("pulse")) as server:
        yield server


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("/dev/video0", Camera(device="/dev/video0")),
        ("/dev/v4l/by-id/usb-046d-index0", Camera(device="/dev/v4l/by-id/usb-046d-index0")),
        ("camera:0", Camera(device=0)),
        ("microphone:3", Microphone(device=3)),
        ("hw:CARD=Device,DEV=0", Microphone(device="hw:CARD=Device,DEV=0")),
        ("/dev/snd/by-id/usb-Yeti", Microphone(device="/dev/snd/by-id/usb-Yeti")),
        ("microphone:hw:CARD=Device", Microphone(device="hw:CARD=Device")),
        ("USB Audio", Microphone(device="USB Audio")),
    ],
)
def test_names_of_devices(name: str, source: Camera | Microphone) -> None:
    """The kind of a path or a stable name is known; a number needs `camera:` or `microphone:` before it."""
    assert devices.named(name) == source


@pytest.mark.parametrize("name", ["0", "/dev/null", "/etc/passwd"])
def test_an_ambiguous_name_is_an_error(name: str) -> None:
    """The error shows how to write the name."""
    with pytest.raises(PerceiverdError, match=r"camera:0 or microphone:0|perceiverd devices"):
        devices.named(name)


@pytest.mark.parametrize("name", ["", " ", "camera:", "microphone:", "camera: ", "camera:1000", "microphone:9999999"])
def test_an_invalid_name_is_one_line(name: str) -> None:
    """The error quotes the name, and says what is wrong and which command lists the names."""
    with pytest.raises(PerceiverdError, match=rf"^'{name}': device must .*; `perceiverd devices` lists them$"):
        devices.named(name)


@no_camera
@pytest.mark.skipif(missing() is None and bool(os.environ.get("PULSE_SERVER")), reason="this machine has a microphone")
def test_a_machine_without_devices_gets_advice() -> None:
    """The output explains what to do, and shows a source that needs no device; the status is 1."""
    nowhere = {"PULSE_SERVER": "unix:/there/is/none", "ALSA_CONFIG_PATH": "/dev/null"}
    done = command(**nowhere)
    assert done.returncode == 1
    assert done.stderr == ""
    assert "Connect a camera" in done.stdout and "docker run --device" in done.stdout and 'kind = "url"' in done.stdout
    assert 'kind = "synthetic"' in done.stdout
    table = json.loads(command("--json", **nowhere).stdout)
    assert table["cameras"] == [] and table["microphones"] == [] and table["configuration"] == []


@no_camera
def test_trying_a_missing_device_is_one_line() -> None:
    """The error is on standard error, and the status is 1."""
    done = command("--try", "camera:7")
    assert done.returncode == 1
    assert done.stdout == "camera:7: opening it as a camera ...\n"
    assert re.fullmatch(r"perceiverd: camera /dev/video7: there is no such device; .*\n", done.stderr)


@needs_microphone
def test_a_microphone_is_listed_with_its_level(pulse: Pulse, tmp_path: Path) -> None:
    """The list has its level in dBFS, and lines that can be copied into a configuration."""
    with pulse.playing(TONE):
        done = command(**pulse.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    level = re.search(rf'device   "{FAKE}"\n.*\n    level    \S+ +(-\d+\.\d) dBFS, peak -\d+\.\d\n', done.stdout)
    assert level and float(level[1]) == pytest.approx(20 * np.log10(0.25 / np.sqrt(2)), abs=1)
    file = tmp_path / "c.toml"
    file.write_text(
        "\n".join(line for line in done.stdout.splitlines() if re.match(r"  [\[ \]s]", line))
        .partition("[streams.room]")[2]
        .join(["[streams.room]", ""])
    )
    (source,) = config.load(file).streams["room"].sources
    assert isinstance(source, Microphone)


@needs_microphone
@pytest.mark.quiet  # a busy machine interrupts the sound
def test_a_microphone_is_tried(pulse: Pulse) -> None:
    """`--try` reports delay, sample rate, jitter and level of three seconds."""
    with pulse.playing(TONE):
        done = command("--try", FAKE, **pulse.environment)
        answers = json.loads(command("--try", FAKE, "--json", **pulse.environment).stdout)
    assert done.returncode == 0, done.stderr
    for word in ("first data   after", "samples per second", "jitter", "0 interruptions", "dBFS"):
        assert word in done.stdout
    heard = next(each for each in answers if each["type"] == "Heard")
    assert heard["rms_dbfs"] == pytest.approx(-15.05, abs=0.5)
    assert heard["rate_hz"] == pytest.approx(44_100, rel=0.01)


@needs_microphone
def test_an_unknown_name_was_looked_for_everywhere(pulse: Pulse) -> None:
    """The error for a name without a kind mentions cameras and microphones."""
    done = command("--try", "nix", **pulse.environment)
    assert done.returncode == 1
    assert re.match(r"perceiverd: 'nix': no camera or microphone has this name; there are .*", done.stderr)


@needs_microphone
@pytest.mark.long
def test_a_sound_server_that_hangs_does_not_hang_the_command() -> None:
    """The process that asks the server is killed in bounded time, and the fault is reported."""
    with tempfile.TemporaryDirectory() as folder, microphone(Path(folder)) as pulse:
        pulse.freeze()
        began_s = time.monotonic()
        try:
            done = command("--try", FAKE, **pulse.environment)
        finally:
            pulse.thaw()
        assert time.monotonic() - began_s < 100
    assert done.returncode == 1
    assert re.search(r"perceiverd: .*(does not answer within|no audio for|has this name)", done.stderr)


def test_ctrl_c_leaves_no_process(tmp_path: Path) -> None:
    """Ctrl-C ends the command and all processes that it has started."""
    process = subprocess.Popen(
        [sys.executable, "-m", "perceiverd", "devices"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout
    process.stdout.readline()
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=100)
    assert process.returncode in (130, 0, 1) and "Traceback" not in errors
    end_s = time.monotonic() + 60
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < end_s
        time.sleep(0.1)


def test_levels_and_rates() -> None:
    """Full scale is 0 dBFS and silence has a floor; the rate comes from the blocks that were least late."""
    assert dbfs(1) == 0 and dbfs(0) == -120 and dbfs(0.5) == pytest.approx(-6.02, abs=0.01)
    late = np.random.default_rng(0).exponential(2e7, 120)
    ends = [(n * 1000, round(n * 1000 / 47_990 * 1e9 + late[n])) for n in range(120)]
    assert measured_rate_hz(ends, 48_000) == pytest.approx(47_990, rel=0.002)
    assert measured_rate_hz(ends[:5], 48_000) == 48_000
