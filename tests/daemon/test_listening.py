"""The whole daemon with a microphone: a sound is played to it, and its label is published."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from perceiverd.core.media import Chunk, MediaFormat
from perceiverd.sources.decode import container
from perceiverd.wire.client import subscribe
from perceiverd.wire.messages import Scores, Status
from tests.support.program import Start
from tests.support.pulse import FAKE, RATE_HZ, Pulse, microphone, needs_microphone

CLIP = Path(__file__).parents[2] / "configs" / "demo" / "clip.mp4"
BARKING_S = (3.2, 6.4)
"""From truth.tsv."""
DEADLINE_S = 100


@pytest.fixture(scope="module")
def pulse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pulse]:
    with microphone(tmp_path_factory.mktemp("pulse")) as server:
        yield server


def barking() -> NDArray[np.float64]:
    """The dog of the bundled clip."""
    items = container.read(CLIP, MediaFormat(audio_rate_hz=RATE_HZ))
    samples = np.concatenate([item.samples for item in items if isinstance(item, Chunk)])
    return samples[round(BARKING_S[0] * RATE_HZ) : round(BARKING_S[1] * RATE_HZ)].astype(np.float64)


@needs_microphone
def test_a_dog_that_is_played_to_the_microphone_is_published(pulse: Pulse, start: Start, tmp_path: Path) -> None:
    """It goes through PulseAudio, ALSA and PortAudio to the bundled model and to a subscriber; nothing is lost."""
    path, log = tmp_path / "c.toml", tmp_path / "log"
    path.write_text(f"""
        publish = {{ endpoint = "ipc://labels" }}
        [streams.room]
        sources = [{{ kind = "microphone", device = "{FAKE}" }}]
    """)
    best: dict[str, float] = {}
    status: Status | None = None
    with pulse.playing(barking()), subscribe(f"ipc://{tmp_path}/labels") as subscription:
        start("run", "--config", str(path), log=log, **pulse.environment)
        end_s = time.monotonic() + DEADLINE_S
        while max(best.get("Dog", 0), best.get("Bark", 0)) < 0.5 or status is None:
            assert time.monotonic() < end_s, (best, log.read_text())
            match message := subscription.receive_message(1):
                case Scores():
                    assert message.modalities == ("audio",)
                    best |= {tag.name: max(tag.score, best.get(tag.name, 0)) for tag in message.labels}
                case Status() if message.state == "up":
                    status = message
    assert status.sources[0].source == FAKE
    assert sum(status.sources[0].restarts.values()) == 0 and status.sources[0].dropped == 0
