"""Log lines for what the windows of a file lacked."""

from __future__ import annotations

import pytest

from perceiverd.core.media import NS_PER_S
from perceiverd.offline.losses import log_losses
from perceiverd.pipeline.windower import Counts, MissingReason


def test_losses_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """One line for all holes, and one for each modality and reason; a file without a track lacks nothing."""
    missing: dict[str, dict[MissingReason, int]] = {"audio": {"hole": 2, "too far apart": 3}, "video": {"no track": 9}}
    log_losses("a.mkv", Counts(9, filled_ns={"audio": NS_PER_S // 2}, missing=missing))
    assert [record.message for record in caplog.records] == [
        "holes-filled file=a.mkv audio_s=0.50 video_s=0.00",
        "windows-incomplete file=a.mkv missing=audio reason=hole windows=2 of=9",
        'windows-incomplete file=a.mkv missing=audio reason="too far apart" windows=3 of=9',
    ]


def test_a_few_milliseconds_are_no_loss(caplog: pytest.LogCaptureFixture) -> None:
    """In most files audio and video begin and end some milliseconds apart; that is not logged."""
    log_losses("a.mkv", Counts(9, filled_ns={"audio": NS_PER_S // 20, "video": NS_PER_S // 25}))
    assert not caplog.records
