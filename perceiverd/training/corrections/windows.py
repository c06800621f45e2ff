"""The windows of corrections and of ordinary hours: cut, and turned into the vectors before a model's last layer."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from perceiverd.core.errors import MediaError
from perceiverd.core.logs import log_event
from perceiverd.core.media import NS_PER_S
from perceiverd.corrections import Correction
from perceiverd.evaluation.manifest import ManifestRow
from perceiverd.model.card import Card
from perceiverd.model.checkpoint import load_network
from perceiverd.model.encoding import audio_tokens, video_tokens
from perceiverd.model.geometry import Geometry
from perceiverd.pipeline.windower import Window
from perceiverd.sources.snapshots import recent
from perceiverd.training.corrections.rows import Vectors
from perceiverd.training.distill import rehearsal
from perceiverd.training.finetune import clip_cache

logger = logging.getLogger("perceiverd.training")

CLIP_HOP_S = 0.25
"""Between two windows of a clip."""
HOP_S = 0.5
"""Between two windows of ordinary hours: the daemon's default hop."""
GAINS_DB = (-12.0, -6.0, 0.0, 6.0)
"""A clip is learnt at each of these gains, because a sound may be louder or quieter next time."""
QUIET_DB = 25.0
"""A window this much below the loudest one of a mark is not taken as an example of it."""
OVERLAP = 0.5
"""A window shows a mark if it has this share of it, or if the mark fills this share of the window."""
BATCH = 16


@dataclass(frozen=True, eq=False)
class Run:
    """Windows of a contiguous stretch of ordinary sound, HOP_S apart."""

    stream: str
    start: datetime
    """UTC of the first window's start; of files without a time, the start of 1970."""
    samples: NDArray[np.float32]

    def windows(self, geometry: Geometry) -> Iterator[Window]:
        """All whole windows."""
        assert geometry.audio
        length, hop = geometry.audio.samples, round(HOP_S * geometry.audio.rate_hz)
        for first in range(0, len(self.samples) - length + 1, hop):
            start_ns = first * NS_PER_S // geometry.audio.rate_hz
            yield Window(start_ns, start_ns + geometry.window_ns, self.samples[first : first + length], None)

    def count(self, geometry: Geometry) -> int:
        """How many windows it has."""
        assert geometry.audio
        return max(0, 1 + (len(self.samples) - geometry.audio.samples) // round(HOP_S * geometry.audio.rate_hz))


class Embedder:
    """Vectors before the last layer of one model, on the CPU."""

    def __init__(self, card: Card) -> None:
        self.card = card
        self.network, self.last = rehearsal.headless(load_network(card))
        self.network.eval().requires_grad_(False)

    def vectors(self, windows: Sequence[Window]) -> Vectors:
        """(N, width) of windows with any mix of modalities."""
        found = np.zeros((len(windows), self.card.geometry.vector_width), np.float32)
        for kind in dict.fromkeys(window.modalities for window in windows):
            rows = [at for at, window in enumerate(windows) if window.modalities == kind]
            for first in range(0, len(rows), BATCH):
                part = rows[first : first + BATCH]
                found[part] = self._batch([windows[at] for at in part])
        return found

    def logits(self, vectors: Vectors) -> NDArray[np.float32]:
        """(N, classes) of the model as it is."""
        with torch.inference_mode():
            return np.asarray(self.last(torch.from_numpy(vectors)).numpy())

    def _batch(self, windows: Sequence[Window]) -> Vectors:
        contents, geometry = {}, self.card.geometry
        if "audio" in windows[0].modalities and geometry.audio:
            contents["audio"] = audio_tokens(
                torch.from_numpy(np.stack([window.audio for window in windows if window.audio is not None])),
                geometry.audio,
            )
        if "video" in windows[0].modalities and geometry.video:
            stacked = np.stack([window.video for window in windows if window.video is not None])
            contents["video"] = video_tokens(torch.from_numpy(stacked), geometry.video)
        with torch.inference_mode():
            return np.asarray(self.network(contents).numpy(), np.float32)


def clip_windows(path: Path, geometry: Geometry, hop_s: float = CLIP_HOP_S) -> list[Window]:
    """All windows of a clip; times count from its start. Raises MediaError."""
    row = ManifestRow(0, path, 0.0, None, ())
    (clip,) = clip_cache.decode(path, [row], geometry.media_format)
    if isinstance(clip, MediaError):
        raise clip
    return clip.windows(geometry, round(hop_s * NS_PER_S))


def of_mark(windows: Sequence[Window], correction: Correction) -> list[Window]:
    """The windows that show the marked time; all of them if the clip's time is not known exactly."""
    if correction.sound_start is None:
        return list(windows)
    begin_ns, end_ns = (
        round((each - correction.sound_start).total_seconds() * NS_PER_S) for each in (correction.start, correction.end)
    )
    found = []
    for window in windows:
        shared_ns = min(end_ns, window.end_ns) - max(begin_ns, window.start_ns)
        if shared_ns >= OVERLAP * min(end_ns - begin_ns, window.end_ns - window.start_ns):
            found.append(window)
    return found or [max(windows, key=lambda one: min(end_ns, one.end_ns) - max(begin_ns, one.start_ns))]


def audible(windows: Sequence[Window]) -> list[Window]:
    """The windows whose loudest moment is not far below that of the loudest window."""
    levels = [0.0 if one.audio is None else float(np.abs(one.audio).max()) for one in windows]
    least = max(levels) * 10 ** (-QUIET_DB / 20)
    return [window for window, level in zip(windows, levels, strict=True) if window.audio is None or level >= least]


def variants(windows: Sequence[Window], noise: Sequence[NDArray[np.float32]], seed: int) -> list[Window]:
    """Each window at several gains, with background from `noise` mixed in if there is any."""
    rng, found = np.random.default_rng(seed), []
    for window in windows:
        for gain_db in GAINS_DB if window.audio is not None else (0.0,):
            audio = window.audio
            if audio is not None:
                audio = audio * np.float32(10 ** (gain_db / 20))
                if noise and gain_db:
                    audio = audio + noise[int(rng.integers(len(noise)))]
                audio = np.clip(audio, -1, 1).astype(np.float32)
            found.append(Window(window.start_ns, window.end_ns, audio, window.pictures))
    return found


LONGEST_RUN = 30
"""Files of recent sound that are held in memory at once: ten minutes."""


def recent_runs(folder: Path, stream: str, geometry: Geometry, after: datetime) -> Iterator[Run]:
    """The contiguous stretches of recent sound of a stream since a time, the newest first."""
    parts: list[recent.RecentSegment] = []
    for each in reversed(recent.segments(folder, stream, after)):
        apart = parts and parts[0].start - each.end > timedelta(milliseconds=recent.JOIN_MS)
        if apart or len(parts) >= LONGEST_RUN:
            yield from _run(stream, parts, geometry)
            parts = []
        parts.insert(0, each)
    if parts:
        yield from _run(stream, parts, geometry)


def _run(stream: str, parts: Sequence[recent.RecentSegment], geometry: Geometry) -> Iterator[Run]:
    assert geometry.audio
    found = []
    for each in parts:
        try:
            samples, rate_hz = recent.read(each.path)
        except FileNotFoundError:
            return  # it became too old a moment ago
        if rate_hz != geometry.audio.rate_hz:
            log_event(logger, logging.WARNING, "background-skipped", file=str(each.path), rate_hz=rate_hz)
            return
        found.append(samples)
    yield Run(stream, parts[0].start, np.concatenate(found))
