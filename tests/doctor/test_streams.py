"""The daemon's parts, tried for a moment: broken models and sources, real ones."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from perceiverd.config import Config, ModelConfig, StreamConfig, WindowConfig
from perceiverd.core.media import MediaFormat, VideoFormat
from perceiverd.doctor import streams
from perceiverd.doctor.checks import Finding
from perceiverd.sources.specs import Camera, File, Synthetic, Url

WANTED = MediaFormat(16_000, VideoFormat(16, 24, 8.0))


def test_a_model_that_works_is_timed(tiny_model: Path) -> None:
    """The GPU, the model and the streams it can serve are told, each in a line."""
    gpu, model, speed = streams.model(Config(model=ModelConfig(str(tiny_model), threads=1)))
    assert (gpu.check, model.check, speed.check) == ("gpu", "model", "speed")
    assert (model.verdict, speed.verdict) == ("ok", "ok")
    assert "streams" in speed.what


def test_more_streams_than_can_be_served_are_a_warning(tiny_model: Path) -> None:
    """With a hop that leaves no time, the hop that would do is named."""
    many = {str(i): StreamConfig((Synthetic(),)) for i in range(50)}
    settings = Config(model=ModelConfig(str(tiny_model), threads=1), window=WindowConfig(hop_s=0.001), streams=many)
    *_, speed = streams.model(settings)
    assert speed.verdict == "warning"
    assert "50 are wanted" in speed.what
    assert "set window.hop_s = " in speed.do


@pytest.mark.parametrize(
    ("one_s", "many_s", "hop_s", "count"),
    [(0.1, 0.4, 0.5, 4), (0.1, 0.1, 0.5, 3001), (0.4, 1.6, 0.5, 1), (0.41, 1.6, 0.5, 0), (0.1, 0.25, 0.5, 7)],
)
def test_streams_are_counted(one_s: float, many_s: float, hop_s: float, count: int) -> None:
    """As many as fit into four fifths of a hop: the first costs a batch of one, each other what a batch grows by."""
    assert streams.servable(one_s, many_s, hop_s) == count


def test_broken_models_are_faults(tiny_model: Path, tmp_path: Path) -> None:
    """A missing one, weights of another sha256, a GPU that is not there."""
    (missing,) = streams.model(Config(model=ModelConfig(str(tmp_path / "none"))))
    assert missing.verdict == "fault"
    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    _, found = streams.model(Config(model=ModelConfig(str(broken))))
    assert found.verdict == "fault"
    assert "sha256" in found.what
    _, found = streams.model(Config(model=ModelConfig(str(tiny_model), device="cuda:99")))
    assert found.verdict == "fault"
    assert "cuda:99" in found.what
    assert found.do


def tried(*sources: Camera | File | Synthetic | Url, bound_s: float = 20.0, **environment: str) -> list[Finding]:
    return list(streams.stream("door", sources, WANTED, environment, bound_s))


def test_streams_are_tried_as_the_daemon_runs_them(wav: Callable[[float], Path]) -> None:
    """What came, and after how long; a clip that ends at once has come all the same."""
    (found,) = tried(Synthetic())
    assert found.verdict == "ok"
    assert "pictures and sound, the first after" in found.what
    first, second = tried(File(str(wav(0.5))), Synthetic(audio=False), bound_s=40)
    assert (first.check, second.check) == ("stream door 1", "stream door 2")
    assert ": sound, " in first.what
    assert ": pictures, " in second.what


def test_sources_that_give_nothing_are_faults(tmp_path: Path) -> None:
    """A missing file, a port where nobody listens, a source that hangs: what is wrong, once, and what to do."""
    (missing,) = tried(File(str(tmp_path / "none.mp4")))
    assert missing.verdict == "fault"
    assert missing.what.count("none.mp4") == 1
    (refused,) = tried(Url("rtsp://name:word@127.0.0.1:9/door"))
    assert refused.verdict == "fault"
    assert "word" not in refused.what
    assert refused.what.endswith("; check the port, and that the device is on")
    assert refused.do == ""
    (unplugged,) = tried(Camera("/dev/video99"))
    assert unplugged.what.startswith("camera /dev/video99: there is no such device; ")
    assert unplugged.what.count("/dev/video99") == 1
    (dies,) = tried(Synthetic(crash_after_s=0.0))
    assert dies.do
    (hangs,) = tried(Synthetic(stall_after_s=0.0), bound_s=3)
    assert hangs.verdict == "fault"
    assert "nothing came within 3 s" in hangs.what


def test_a_secret_that_only_the_service_has_is_no_fault() -> None:
    """The source is not tried, and how to try it is told; with the secret it is."""
    url = Url("rtsp://name:${WORD}@127.0.0.1:9/door")
    (found,) = tried(url)
    assert found.verdict == "warning"
    assert "WORD" in found.what
    assert found.do.startswith("as root: systemd-run ")
    assert "EnvironmentFile=/etc/perceiverd/secrets.env" in found.do
    (credential,) = tried(Url("rtsp://name:${credential:word}@127.0.0.1:9/door"))
    assert "LoadCredential=word:FILE" in credential.what
    assert credential.do == ""
    (found,) = tried(url, WORD="hush")
    assert found.verdict == "fault"
    assert "hush" not in found.what


def test_protocols_are_told() -> None:
    """What FFmpeg lacks is a fault where a stream wants it."""
    (found,) = streams.protocols({"door": StreamConfig((Url("rtsp://127.0.0.1/"),))})
    assert found.verdict == "ok"
    assert "rtsp, " in found.what
