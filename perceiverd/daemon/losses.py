"""Log lines for what the windows of a stream lack. It counts nothing itself and knows no media."""

from __future__ import annotations

import logging

from perceiverd.core.logs import LogLimit, log_event, log_limited
from perceiverd.core.media import NS_PER_S
from perceiverd.pipeline.windower import Counts

logger = logging.getLogger("perceiverd.daemon")

LEAST_NS = NS_PER_S // 10
"""Less than this is not worth a line yet."""


class LossLog:
    """What has been logged of one stream."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._filled_ns: dict[str, int] = {}
        self._counted: dict[tuple[str, str], int] = {}
        """Windows without a modality at the last call, by modality and reason."""
        self._growing: set[tuple[str, str]] = set()
        """What became more between the last two calls."""
        self._filled_limit, self._missing_limit = LogLimit(), LogLimit()

    def log(self, counts: Counts, now_ns: int) -> None:
        """Log the media that was filled since the last line, and each reason for which windows begin to be incomplete.

        Windows that stay incomplete, for hours perhaps, give one line. A modality that never came gives none.
        """
        self._log_filled(counts, now_ns)
        counted = {(modality, str(why)): n for modality, each in counts.missing.items() for why, n in each.items()}
        growing = {key for key, n in counted.items() if n > self._counted.get(key, 0) and key[1] != "no track"}
        for modality, reason in sorted(growing - self._growing):
            self._log_missing(modality, reason, counted[modality, reason], now_ns)
        self._counted, self._growing = counted, growing

    def _log_filled(self, counts: Counts, now_ns: int) -> None:
        filled_ns = dict(counts.filled_ns)
        new_ns = {modality: ns - self._filled_ns.get(modality, 0) for modality, ns in filled_ns.items()}
        if sum(new_ns.values()) >= LEAST_NS and (suppressed := self._filled_limit.admit(now_ns)) is not None:
            self._filled_ns = filled_ns
            audio_s, video_s = (f"{new_ns.get(modality, 0) / NS_PER_S:.2f}" for modality in ("audio", "video"))
            log_event(
                logger,
                logging.WARNING,
                "holes-filled",
                stream=self._stream,
                audio_s=audio_s,
                video_s=video_s,
                suppressed=suppressed,
            )

    def _log_missing(self, modality: str, reason: str, windows: int, now_ns: int) -> None:
        log_limited(
            logger,
            logging.WARNING,
            "windows-incomplete",
            self._missing_limit,
            now_ns,
            stream=self._stream,
            missing=modality,
            reason=reason,
            windows=windows,
        )
