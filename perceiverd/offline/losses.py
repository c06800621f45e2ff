"""Log lines for what the windows of a file lacked: holes that were filled, and windows without audio or video."""

from __future__ import annotations

import logging

from perceiverd.core.logs import log_event
from perceiverd.core.media import NS_PER_S
from perceiverd.pipeline.windower import Counts

logger = logging.getLogger("perceiverd.offline")

LEAST_NS = NS_PER_S // 10
"""Less in a whole file is not logged: in most files audio and video begin and end some milliseconds apart."""


def log_losses(file: str, counts: Counts) -> None:
    """Log a line for the holes of a file, and one for each reason why windows lack audio or video.

    Windows that lack all have no record; `missing=all` counts them. A file without an audio track, or without a video
    track, lacks nothing.
    """
    if sum(counts.filled_ns.values()) >= LEAST_NS:
        audio_s, video_s = (f"{counts.filled_ns.get(each, 0) / NS_PER_S:.2f}" for each in ("audio", "video"))
        log_event(logger, logging.WARNING, "holes-filled", file=file, audio_s=audio_s, video_s=video_s)
    for modality, reasons in counts.missing.items():
        for reason, windows in reasons.items():
            if reason != "no track":
                _log_windows(file, modality, reason, windows, counts)
    if counts.skipped:
        _log_windows(file, "all", "hole", counts.skipped, counts)


def _log_windows(file: str, missing: str, reason: str, windows: int, counts: Counts) -> None:
    log_event(
        logger,
        logging.WARNING,
        "windows-incomplete",
        file=file,
        missing=missing,
        reason=reason,
        windows=windows,
        of=counts.windows + counts.skipped,
    )
