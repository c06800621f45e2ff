"""Real sources, working and broken, that are tried for a moment."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from perceiverd.config import StreamConfig
from perceiverd.core.media import MediaFormat, VideoFormat
from perceiverd.doctor import streams
from perceiverd.doctor.checks import Finding
from perceiverd.sources.process import source_process
from perceiverd.sources.specs import Camera, File, Pipe, Source, Synthetic, Url
from tests.support.faults import Fault, worker_command

WANTED = MediaFormat(16_000, VideoFormat(16, 24, 8.0))


def tried(*sources: Source, timeout_s: float = 80.0, **environment: str) -> list[Finding]:
    return list(streams.try_sources("door", sources, WANTED, environment, timeout_s))


def test_working_sources_are_ok(wav: Callable[[float], Path]) -> None:
    """The finding names the data and the time until the first; a short clip that ends also counts."""
    (found,) = tried(Synthetic())
    assert found.verdict == "ok"
    assert "audio and video, the first data after" in found.what
    first, second = tried(File(str(wav(0.5))), Synthetic(audio=False), timeout_s=80)
    assert (first.check, second.check) == ("stream door 1", "stream door 2")
    assert ": audio, " in first.what
    assert ": video, " in second.what


def test_sources_without_data_are_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing file, a refused connection, a missing camera, a crash and a hang are faults with one message."""
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
    monkeypatch.setattr(source_process, "WORKER", worker_command(Fault("crash")))
    (dies,) = tried(Synthetic())
    assert dies.do
    monkeypatch.setattr(source_process, "WORKER", worker_command(Fault("hang")))
    (hangs,) = tried(Synthetic(), timeout_s=3)
    assert hangs.verdict == "fault"
    assert "no data within 3 s" in hangs.what


def test_a_missing_secret_is_a_warning() -> None:
    """Without its secret the source is not tried, and the advice explains how to; with the secret it is tried."""
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


def test_the_protocols_of_ffmpeg_are_listed() -> None:
    """The finding lists the URL schemes that FFmpeg can open."""
    (found,) = streams.protocols({"door": StreamConfig((Url("rtsp://127.0.0.1/"),))})
    assert found.verdict == "ok"
    assert "rtsp, " in found.what


def test_pipes_are_looked_at_and_not_read(tmp_path: Path) -> None:
    """A FIFO and standard input are ok without a writer; a missing FIFO is a fault that says what to do."""
    os.mkfifo(tmp_path / "there")
    standard, fifo, missing = tried(Pipe("-"), Pipe(str(tmp_path / "there")), Pipe(str(tmp_path / "missing")))
    assert (standard.verdict, fifo.verdict, missing.verdict) == ("ok", "ok", "fault")
    assert "is a FIFO" in fifo.what
    assert missing.what == f"{tmp_path}/missing: there is no such FIFO; make it: mkfifo {tmp_path}/missing"
