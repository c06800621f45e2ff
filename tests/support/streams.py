"""Streams as the daemon has them, without sources, network or loop: for tests of what it makes of media and scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np

from perceiverd.config import WindowConfig
from perceiverd.core.clock import now_ns
from perceiverd.core.labels import ontology
from perceiverd.core.media import NS_PER_S, Chunk, Frame, Media
from perceiverd.daemon.reports import Identity
from perceiverd.daemon.settings import StreamSettings
from perceiverd.daemon.stream import StreamState
from perceiverd.model.card import Calibration
from perceiverd.model.geometry import Audio, Geometry, Trunk, Video
from perceiverd.pipeline.rules import EventOptions, Rules, resolve
from perceiverd.pipeline.stalls import StallLimits
from perceiverd.pipeline.windower import Window
from perceiverd.sources.process.arrivals import SourceState
from perceiverd.sources.process.restart import RunState
from perceiverd.sources.snapshots.requests import MediaRequest
from perceiverd.wire.messages import Model

LABELS = ontology().labels
DOG = ontology().find("Dog")
SURE = np.eye(len(LABELS), dtype=np.float32)[DOG.index]
"""Scores of a window that has a dog and nothing else."""
AUDIO = Geometry(527, Trunk(4, 16, 1, 1, 2), Audio(16_000, 8_000, "raw", (160,), 2))
BOTH = Geometry(527, Trunk(4, 16, 1, 1, 2), Audio(16_000, 8_000, "raw", (160,), 2), Video(4, 8, 3, 5, (1, 3, 5), 2))
VIDEO = Geometry(527, Trunk(4, 16, 1, 1, 2), video=Video(4, 8.0, 2, 3, (1, 2, 3), 2))
"""Three models with windows of half a second."""
MODEL = Model("tiny", "ab")
BEGAN_NS = now_ns()
RANDOM = np.random.default_rng(1)

SETTINGS = StreamSettings(
    hop_ns=NS_PER_S // 2,
    tolerance=WindowConfig().tolerance,
    limits=StallLimits(0, 0),
    top=3,
    still_levels=0,
    av_offset_ns=0,
    replayed=frozenset(),
    snapshots=None,
    speech_limit=None,
)


def rules(**options: Any) -> Rules:
    """Events of dogs alone, from the first window on, unless options differ."""
    usual = EventOptions(min_duration_s=0, allow=("Dog",))
    return resolve(LABELS, (Calibration(),) * len(LABELS), msgspec.structs.replace(usual, **options))


def stream(
    geometry: Geometry = AUDIO,
    events: Rules | None = None,
    request_media: Callable[[MediaRequest], bool] = lambda _: False,
    **settings: Any,
) -> StreamState:
    """A stream named `door` with these settings."""
    identity = Identity(MODEL, datetime.now(UTC))
    found = rules() if events is None else events
    return StreamState("door", geometry, found, replace(SETTINGS, **settings), identity, request_media)


def window(number: int) -> Window:
    """Half a second of audio, a quarter of a second after the one before."""
    start_ns = BEGAN_NS + number * NS_PER_S // 4
    return Window(start_ns, start_ns + NS_PER_S // 2, np.zeros(8_000, np.float32), None)


def source(state: RunState, position: int = 0) -> SourceState:
    return SourceState("door", position, "a.mp4", state, "", None, 0.1, {}, 0, 0)


def chunk(at_s: float, level: float = 1.0) -> Chunk:
    """40 ms of noise."""
    return Chunk(round(at_s * NS_PER_S), level * RANDOM.uniform(-1, 1, 640).astype(np.float32), 16_000)


def audio(stream: StreamState, position: int, from_s: float, until_s: float, level: float = 1.0) -> None:
    """Give a stream noise of one source."""
    for n in range(round(from_s * 25), round(until_s * 25)):
        stream.receive(position, chunk(n / 25, level))


def both(
    stream: StreamState, from_s: float, until_s: float, *, freeze_s: float = np.inf, mute_s: float = np.inf
) -> None:
    """Give a stream of `BOTH` noise; from `freeze_s` on its frames are the same, from `mute_s` on its audio is 0."""
    still = RANDOM.integers(0, 255, (3, 5, 3), np.uint8)
    for n in range(round(from_s * 25), round(until_s * 25)):
        pixels = still if n / 25 >= freeze_s else RANDOM.integers(0, 255, (3, 5, 3), np.uint8)
        media: tuple[Media, ...] = Frame(n * NS_PER_S // 25, pixels), chunk(n / 25, n / 25 < mute_s)
        for item in media:
            stream.receive(0, item)
