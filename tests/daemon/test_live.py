"""The whole live path: source processes, sockets, supervisor, windower, a real (tiny) network, subscribers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from perceiverd import config
from perceiverd.config import Config, ModelConfig, PublishConfig, StallsConfig
from perceiverd.core.labels import ontology
from perceiverd.daemon.daemon import Daemon
from perceiverd.model.geometry import Audio, Geometry, Trunk, Video
from perceiverd.pipeline.tagger import PendingScores, Tagger
from perceiverd.pipeline.windower import Window
from perceiverd.sources.process import source_process
from perceiverd.sources.specs import Source, Synthetic
from perceiverd.wire.client import subscribe
from perceiverd.wire.messages import Message, Scores, Status
from tests.support.faults import Fault, worker_command

DEADLINE_S = 90
RATE_HZ, FPS = 16_000, 25


@pytest.fixture(scope="module")
def full_rate_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real, untrained Perceiver for 25 frames a second, so that 40 ms are visible: 0.48 s of both modalities."""
    import torch

    from perceiverd.model.checkpoint import save_model
    from perceiverd.model.perceiver import Perceiver

    geometry = Geometry(
        classes=527,
        trunk=Trunk(latents=4, width=16, cross_attends=1, layers=1, heads=2),
        audio=Audio(rate_hz=RATE_HZ, samples=7_680, form="raw", patch=(160,), bands=2),
        video=Video(frames=12, fps=FPS, height=16, width=24, patch=(1, 8, 8), bands=2),
    )
    folder = tmp_path_factory.mktemp("models") / "full-rate"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Perceiver(geometry.modalities, geometry.trunk, geometry.classes)
    save_model(folder, network, geometry, ontology().labels, name="full-rate", licence="CC0-1.0")
    return folder


@dataclass
class Recording:
    """What a daemon tagged and published."""

    windows: list[Window] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)

    @property
    def scores(self) -> list[Scores]:
        return [message for message in self.messages if isinstance(message, Scores)]

    @property
    def statuses(self) -> list[Status]:
        return [message for message in self.messages if isinstance(message, Status)]


def record(
    model: Path,
    folder: Path,
    streams: dict[str, config.StreamConfig],
    until: Callable[[Recording], bool],
    monkeypatch: pytest.MonkeyPatch,
    *,
    hop_s: float = 0.1,
    frozen_s: float = 60.0,
    batch_s: float = 0.0,
) -> Recording:
    """Run a daemon until the recording is enough; its network takes `batch_s` longer for each window."""
    recording, begin, endpoint = Recording(), Tagger.begin, f"ipc://{folder}/labels"
    settings = Config(
        model=ModelConfig(name=str(model), threads=1),
        window=config.WindowConfig(hop_s=hop_s),
        publish=PublishConfig(endpoint=endpoint, status_interval_s=0.2),
        stalls=StallsConfig(frozen_s=frozen_s),
        streams=streams,
    )
    daemon = Daemon(settings)
    end_s = time.monotonic() + DEADLINE_S

    with subscribe(endpoint) as subscription:

        def recorded(self: Tagger, windows: Sequence[Window]) -> PendingScores:
            recording.windows += windows
            time.sleep(batch_s * len(windows))
            while message := subscription.receive_message(0):
                recording.messages.append(message)
            if until(recording) or time.monotonic() > end_s:
                daemon.stop()
            return begin(self, windows)

        monkeypatch.setattr(Tagger, "begin", recorded)
        daemon.run()
    assert until(recording), [(each.time, each.state, each.sources) for each in recording.statuses[-3:]]
    return recording


def flashes_and_beeps(window: Window) -> tuple[float, float] | None:
    """When flash and beep begin, in seconds of the window; None unless both begin in it."""
    if window.audio is None or window.video is None:
        return None
    white = window.video.min(axis=(1, 2, 3)) > 200
    loud = np.abs(window.audio) > 0.1
    if white[0] or loud[:80].any() or not white.any() or not loud.any():
        return None
    return (int(white.argmax()) + 0.5) / FPS, int(loud.argmax()) / RATE_HZ


@pytest.mark.parametrize("apart", [False, True], ids=["one source", "a camera and a microphone"])
@pytest.mark.quiet
def test_a_flash_and_a_beep_stay_together(
    apart: bool, full_rate_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the sources to the network's input they stay within 40 ms, and the published skew agrees."""
    both: tuple[Source, ...] = (Synthetic(audio=False), Synthetic(video=False)) if apart else (Synthetic(),)

    def pairs(recording: Recording) -> list[tuple[float, float]]:
        return [pair for window in recording.windows if (pair := flashes_and_beeps(window))]

    streams = {"door": config.StreamConfig(both)}
    recording = record(full_rate_model, tmp_path, streams, lambda recording: len(pairs(recording)) >= 8, monkeypatch)
    apart_ms = [1000 * (flash_s - beep_s) for flash_s, beep_s in pairs(recording)]
    assert max(map(abs, apart_ms)) <= 40, apart_ms
    skewed = [each for each in recording.scores if each.skew_ms is not None and each.skew_most_ms is not None]
    assert skewed
    assert all(abs(each.skew_ms or 0) <= 20 and abs(each.skew_most_ms or 0) <= 40 for each in skewed)
    assert any(each.skew_ms is not None and each.level_dbfs is not None for each in recording.statuses)


@pytest.mark.quiet
def test_an_offset_moves_the_flash(full_rate_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With av_offset_ms = 120 the flash comes 120 ms later beside the beep."""
    streams = {"door": config.StreamConfig((Synthetic(),), av_offset_ms=120.0)}

    def pairs(recording: Recording) -> list[tuple[float, float]]:
        return [pair for window in recording.windows if (pair := flashes_and_beeps(window))]

    recording = record(full_rate_model, tmp_path, streams, lambda recording: len(pairs(recording)) >= 4, monkeypatch)
    for flash_s, beep_s in pairs(recording):
        assert flash_s - beep_s == pytest.approx(0.12, abs=0.04)


@pytest.mark.parametrize("gone", ["video", "audio"])
def test_a_stream_continues_with_one_modality(
    gone: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its camera it has audio, without its microphone video, and it has both when both are back."""
    camera, microphone = Synthetic(audio=False), Synthetic(video=False)
    fault = Fault("crash", 1.5, camera if gone == "video" else microphone)
    monkeypatch.setattr(source_process, "WORKER", worker_command(fault))
    left = ("audio",) if gone == "video" else ("video",)

    def there_and_back(recording: Recording) -> bool:
        found = [each.modalities for each in recording.scores]
        if ("audio", "video") not in found:
            return False
        after = found[found.index(("audio", "video")) :]
        return left in after and ("audio", "video") in after[after.index(left) :]

    streams = {"door": config.StreamConfig((camera, microphone))}
    recording = record(tiny_model, tmp_path, streams, there_and_back, monkeypatch)
    position = 0 if gone == "video" else 1
    last = recording.statuses[-1]
    assert last.sources[position].restarts.get("exited", 0) >= 1
    assert not last.sources[1 - position].restarts


def test_frozen_video_is_masked_published_and_restarted(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream continues with audio while its source is restarted, and has video again once it moves."""
    # It moves for less time than the pause before the second restart: the restart has not helped, so the pause doubles.
    monkeypatch.setattr(source_process, "WORKER", worker_command(Fault("freeze", 0.5)))
    streams = {"door": config.StreamConfig((Synthetic(),))}

    def mended(recording: Recording) -> bool:
        found = [each.modalities for each in recording.scores]
        stalls = any(source.stalls for each in recording.statuses for source in each.sources)
        restarted = any(source.restarts.get("frozen") for each in recording.statuses for source in each.sources)
        return stalls and restarted and ("audio",) in found and found[-1] == ("audio", "video")

    recording = record(tiny_model, tmp_path, streams, mended, monkeypatch, frozen_s=1.0)
    assert {stall for each in recording.statuses for source in each.sources for stall in source.stalls} == {
        "frozen picture"
    }
    assert recording.statuses[-1].sources[0].restarts["frozen"] >= 1


@pytest.mark.quiet
def test_overload_stretches_the_hop_evenly(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With four streams, 0.2 s per window and a hop of 0.1 s, all streams get the same share, and labels stay fresh."""
    streams = {name: config.StreamConfig((Synthetic(),)) for name in "abcd"}

    def enough(recording: Recording) -> bool:
        return sum(each.stream == "a" for each in recording.scores) >= 8

    recording = record(tiny_model, tmp_path, streams, enough, monkeypatch, batch_s=0.2)
    shares = Counter(each.stream for each in recording.scores)
    assert set(shares) == set("abcd")
    assert max(shares.values()) - min(shares.values()) <= 3  # those whose sources started first
    last = {each.stream: each for each in recording.statuses}
    for name in "abcd":
        assert last[name].dropped > last[name].windows
        assert (last[name].hop_s or 0) > 0.3
    # A turn under way, its own turn, and the windower's tolerance; on a busy machine some more.
    assert max(each.latency_ms for each in recording.scores) < 6000
