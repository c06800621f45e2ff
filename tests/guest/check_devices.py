"""A camera and a microphone through the hardened unit, with the kernel's test drivers. run.sh runs it."""

import shutil
import subprocess
import time
import wave
from collections.abc import Iterator
from pathlib import Path

import av
import pytest

from perceiverd.sources import specs
from tests.guest.installation import CONFIG, START_S, UNIT, call, clip, journal, next_scores, show, until

DRIVER = Path("/sys/bus/platform/drivers/vivid")
CAMERA = Path("/dev/video0")

pytestmark = [
    pytest.mark.skipif(not hasattr(specs, "Camera"), reason="this perceiverd has no cameras"),
    pytest.mark.skipif(not CAMERA.exists(), reason="there is no camera in this guest"),
    pytest.mark.skipif(not shutil.which("aplay"), reason="needs alsa-utils"),
]


@pytest.fixture(scope="module", autouse=True)
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Plays the bundled clip's audio in a loop into the card whose other end is the microphone."""
    path = tmp_path_factory.mktemp("sound") / "clip.wav"
    with av.open(str(clip())) as container, wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48_000)
        resampler = av.AudioResampler("s16", "mono", 48_000)
        for frame in container.decode(audio=0):
            for piece in resampler.resample(frame):
                file.writeframes(piece.to_ndarray().tobytes())
    player = subprocess.Popen(["sh", "-c", f"while aplay -q -D plughw:Loopback,0,0 {path}; do :; done"])
    yield
    player.kill()
    player.wait()
    call("systemctl", "stop", UNIT)


def modalities() -> set[str]:
    """The modalities of the stream's next window."""
    return set(next_scores("room")["modalities"])


def test_camera_and_microphone_form_one_stream() -> None:
    """The confined service opens both, and its windows have audio and video."""
    CONFIG.write_text("""
        [streams.room]
        sources = [
            { kind = "camera", device = "/dev/video0" },
            { kind = "microphone", device = "hw:CARD=Loopback,DEV=1" },
        ]
    """)
    call("systemctl", "start", UNIT)
    until(lambda: modalities() == {"audio", "video"}, START_S)
    message = next_scores("room")
    print(message["labels"][:3], "latency", message["latency_ms"], "ms")
    assert show("NRestarts") == "0"


def test_a_camera_that_is_unplugged_and_plugged_in_again() -> None:
    """Without its camera the stream continues with audio; the camera returns, and the service never restarts."""
    pid = show("MainPID")
    (DRIVER / "unbind").write_text("vivid.0")
    until(lambda: modalities() == {"audio"}, 60)
    until(lambda: "0 up" not in show("StatusText") and "backing off" in show("StatusText"), 60)
    (DRIVER / "bind").write_text("vivid.0")
    call("udevadm", "settle")
    plugged_s = time.monotonic()
    until(lambda: modalities() == {"audio", "video"}, 60)
    print(f"the camera was back {time.monotonic() - plugged_s:.1f} s after it was plugged in")
    assert show("MainPID") == pid
    assert show("ActiveState") == "active"
    print(journal()[-2000:])


def test_no_other_device_can_be_opened() -> None:
    """With the unit's device rules, the camera can be opened and the kernel's log cannot."""
    user = ("--property=User=perceiverd", "--property=SupplementaryGroups=video audio")
    closed = ("--property=DevicePolicy=closed",)
    allowed = ("--property=DeviceAllow=char-video4linux rw", "--property=DeviceAllow=char-alsa rw")
    run = ("systemd-run", "--quiet", "--pipe", "--wait", *user, *closed, *allowed)
    call(*run, "head", "-c", "0", CAMERA)
    root = ("systemd-run", "--quiet", "--pipe", "--wait", *closed)
    assert "not permitted" in call(*root, "head", "-c", "1", "/dev/kmsg", check=False)
