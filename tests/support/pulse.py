"""A microphone on a machine that has none: the test starts a PulseAudio server and plays audio into its null sink.

The audio comes out of the sink's monitor. ALSA's pulse plugin shows the monitor to PortAudio under the name FAKE.
Server, plugin, ALSA and PortAudio are real.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

FAKE = "fakemic"
RATE_HZ = 48_000
ALSA_CONF = Path("/usr/share/alsa/alsa.conf")
NEEDED = ("pulseaudio", "pactl", "pacat")
PLUGINS = ("/usr/lib/*/alsa-lib/libasound_module_pcm_pulse.so", "/usr/lib64/alsa-lib/libasound_module_pcm_pulse.so")
SINK = f"sink_name=mic rate={RATE_HZ} channels=1 format=s16le"


def missing() -> str | None:
    """Why this machine cannot have such a microphone; None if it can."""
    for program in NEEDED:
        if not shutil.which(program):
            return f"{program} is not installed (Debian: pulseaudio pulseaudio-utils)"
    if not any(list(Path("/").glob(pattern.lstrip("/"))) for pattern in PLUGINS):
        return "ALSA's pulse plugin is not installed (Debian: libasound2-plugins)"
    try:
        import sounddevice  # noqa: F401
    except (ImportError, OSError):
        return "PortAudio is not installed (Debian: libportaudio2)"
    return None


needs_microphone = pytest.mark.skipif(missing() is not None, reason=str(missing()))


class Pulse:
    """The server. A program needs `environment` to use its microphone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        asound = folder / "asound.conf"
        asound.write_text(
            f'pcm.{FAKE} {{ type pulse device "mic.monitor" hint {{ show on description "fake microphone" }} }}\n'
            f"ctl.{FAKE} {{ type pulse }}\n"
        )
        self.environment = {
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": str(folder),
            "PULSE_RUNTIME_PATH": str(folder),
            "PULSE_SERVER": f"unix:{folder}/native",
            "ALSA_CONFIG_PATH": f"{ALSA_CONF}:{asound}",
        }

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = ["pulseaudio", "-n", "--daemonize=no", "--use-pid-file=no", "--exit-idle-time=-1"]
        command += ["--disallow-exit", "--realtime=no", "--high-priority=no", "--log-target=file:/dev/null"]
        command += ["-L", f"module-native-protocol-unix socket={self.folder}/native auth-anonymous=1"]
        command += ["-L", f"module-null-sink {SINK}"]
        self._process = subprocess.Popen(
            command,
            env=os.environ | self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until_s = time.monotonic() + 60
        while self.control("info") is None:
            assert time.monotonic() < until_s and self._process.poll() is None, "pulseaudio does not start"
            time.sleep(0.1)

    def kill(self) -> None:
        """Kill it, as a crash does."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def control(self, *words: str) -> str | None:
        """What `pactl` prints; None if it fails."""
        done = subprocess.run(
            ["pactl", *words], env=os.environ | self.environment, capture_output=True, text=True, timeout=60
        )
        return None if done.returncode else done.stdout.strip()

    @contextmanager
    def playing(self, sound: NDArray[np.float64]) -> Iterator[None]:
        """Play this audio, -1..1 at RATE_HZ, in a loop while the context lasts."""
        path = self.folder / "played.wav"
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE_HZ)
            # Long enough for any test: a second player would start with a gap.
            times = max(1, round(120 * RATE_HZ / len(sound)))
            file.writeframes(np.tile(np.round(sound * 32767).astype("<i2"), times).tobytes())
        command = ["paplay", "--device=mic", str(path)]
        with subprocess.Popen(command, env=os.environ | self.environment, stderr=subprocess.DEVNULL) as player:
            try:
                yield
            finally:
                player.kill()


@contextmanager
def microphone(folder: Path) -> Iterator[Pulse]:
    """A running server; killed afterwards."""
    pulse = Pulse(folder)
    try:
        pulse.start()
        yield pulse
    finally:
        pulse.kill()
