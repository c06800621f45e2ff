"""The whole live path for real: source processes, sockets, runner, windower, a (tiny) network, subscribers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from perceiverd import config
from perceiverd.config import Config, ModelConfig, PublishConfig, StallsConfig
from perceiverd.core.labels import ontology
from perceiverd.daemon.daemon import Daemon
from perceiverd.model.geometry import Audio, Geometry, Trunk, Video
from perceiverd.pipeline.tagger import Tagger
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
    """A real, untrained Perceiver that sees 25 pictures a second, so that 40 ms can be seen: 0.48 s of both."""
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
class Look:
    """What a daemon tagged and what it said."""

    windows: list[Window] = field(default_factory=list)
    heard: list[Message] = field(default_factory=list)

    @property
    def scores(self) -> list[Scores]:
        return [message for message in self.heard if isinstance(message, Scores)]

    @property
    def statuses(self) -> list[Status]:
        return [message for message in self.heard if isinstance(message, Status)]


def watched(
    model: Path,
    folder: Path,
    streams: dict[str, config.StreamConfig],
    until: Callable[[Look], bool],
    monkeypatch: pytest.MonkeyPatch,
    *,
    hop_s: float = 0.1,
    frozen_s: float = 60.0,
    batch_s: float = 0.0,
) -> Look:
    """Run a daemon until what it tagged and said is enough; each window takes its network `batch_s` longer."""
    look, tag, endpoint = Look(), Tagger.tag, f"ipc://{folder}/labels"
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

        def look_on(self: Tagger, windows: list[Window]) -> NDArray[np.float32]:
            look.windows += windows
            time.sleep(batch_s * len(windows))
            while message := subscription.receive_message(0):
                look.heard.append(message)
            if until(look) or time.monotonic() > end_s:
                daemon.stop()
            return tag(self, windows)

        monkeypatch.setattr(Tagger, "tag", look_on)
        daemon.run()
    assert until(look), [(each.time, each.state, each.sources) for each in look.statuses[-3:]]
    return look


def flashes_and_beeps(window: Window) -> tuple[float, float] | None:
    """When, in seconds of the window, flash and beep begin; None where they don't, both."""
    if window.audio is None or window.video is None:
        return None
    white = window.video.min(axis=(1, 2, 3)) > 200
    loud = np.abs(window.audio) > 0.1
    if white[0] or loud[:80].any() or not white.any() or not loud.any():
        return None
    return (int(white.argmax()) + 0.5) / FPS, int(loud.argmax()) / RATE_HZ


@pytest.mark.parametrize("apart", [False, True], ids=["one source", "a camera and a microphone"])
def test_a_flash_and_a_beep_stay_together(
    apart: bool, full_rate_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From source processes to what the network is given, they stay within 40 ms; and what is told of it is true."""
    both: tuple[Source, ...] = (Synthetic(audio=False), Synthetic(video=False)) if apart else (Synthetic(),)

    def pairs(look: Look) -> list[tuple[float, float]]:
        return [pair for window in look.windows if (pair := flashes_and_beeps(window))]

    streams = {"door": config.StreamConfig(both)}
    look = watched(full_rate_model, tmp_path, streams, lambda look: len(pairs(look)) >= 8, monkeypatch)
    apart_ms = [1000 * (flash_s - beep_s) for flash_s, beep_s in pairs(look)]
    assert max(map(abs, apart_ms)) <= 40, apart_ms
    told = [each for each in look.scores if each.skew_ms is not None and each.skew_most_ms is not None]
    assert told
    assert all(abs(each.skew_ms or 0) <= 20 and abs(each.skew_most_ms or 0) <= 40 for each in told)
    assert any(each.skew_ms is not None and each.level_dbfs is not None for each in look.statuses)


def test_an_offset_moves_the_flash(full_rate_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With av_offset_ms = 120 the flash is seen so much later beside the beep."""
    streams = {"door": config.StreamConfig((Synthetic(),), av_offset_ms=120.0)}

    def pairs(look: Look) -> list[tuple[float, float]]:
        return [pair for window in look.windows if (pair := flashes_and_beeps(window))]

    look = watched(full_rate_model, tmp_path, streams, lambda look: len(pairs(look)) >= 4, monkeypatch)
    for flash_s, beep_s in pairs(look):
        assert flash_s - beep_s == pytest.approx(0.12, abs=0.04)


@pytest.mark.parametrize("gone", ["video", "audio"])
def test_a_stream_goes_on_by_what_it_still_has(
    gone: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its camera it hears, without its microphone it sees, and it has both again when both are back."""
    camera, microphone = Synthetic(audio=False), Synthetic(video=False)
    fault = Fault("crash", 1.5, camera if gone == "video" else microphone)
    monkeypatch.setattr(source_process, "WORKER", worker_command(fault))
    left = ("audio",) if gone == "video" else ("video",)

    def there_and_back(look: Look) -> bool:
        told = [each.modalities for each in look.scores]
        if ("audio", "video") not in told:
            return False
        after = told[told.index(("audio", "video")) :]
        return left in after and ("audio", "video") in after[after.index(left) :]

    streams = {"door": config.StreamConfig((camera, microphone))}
    look = watched(tiny_model, tmp_path, streams, there_and_back, monkeypatch)
    position = 0 if gone == "video" else 1
    last = look.statuses[-1]
    assert last.sources[position].restarts.get("exited", 0) >= 1
    assert not last.sources[1 - position].restarts


def test_a_frozen_picture_is_masked_told_and_mended(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream goes on by ear while the source is started again, and sees when it moves; then it is patient."""
    # It moves for less than is waited before it is started a second time: no cure, and so patience.
    monkeypatch.setattr(source_process, "WORKER", worker_command(Fault("freeze", 0.5)))
    streams = {"door": config.StreamConfig((Synthetic(),))}

    def mended(look: Look) -> bool:
        told = [each.modalities for each in look.scores]
        stalls = any(source.stalls for each in look.statuses for source in each.sources)
        restarted = any(source.restarts.get("frozen") for each in look.statuses for source in each.sources)
        return stalls and restarted and ("audio",) in told and told[-1] == ("audio", "video")

    look = watched(tiny_model, tmp_path, streams, mended, monkeypatch, frozen_s=1.0)
    assert {stall for each in look.statuses for source in each.sources for stall in source.stalls} == {"frozen picture"}
    assert look.statuses[-1].sources[0].restarts["frozen"] >= 1


def test_overload_stretches_the_hop_evenly(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four streams, and a network that takes 0.2 s for each where 0.1 s is the hop: all have the same share, fresh."""
    streams = {name: config.StreamConfig((Synthetic(),)) for name in "abcd"}

    def enough(look: Look) -> bool:
        return sum(each.stream == "a" for each in look.scores) >= 8

    look = watched(tiny_model, tmp_path, streams, enough, monkeypatch, batch_s=0.2)
    shares = Counter(each.stream for each in look.scores)
    assert set(shares) == set("abcd")
    assert max(shares.values()) - min(shares.values()) <= 3  # those whose sources started first
    last = {each.stream: each for each in look.statuses}
    for name in "abcd":
        assert last[name].dropped > last[name].windows
        assert (last[name].hop_s or 0) > 0.3
    # A turn that is under way, its own, and the windower's patience; on a busy machine some more.
    assert max(each.latency_ms for each in look.scores) < 6000
