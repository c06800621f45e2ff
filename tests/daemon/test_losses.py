"""Log lines for holes and incomplete windows of a stream."""

from __future__ import annotations

import pytest

from perceiverd.core.media import NS_PER_S
from perceiverd.daemon.losses import LossLog
from perceiverd.pipeline.windower import Counts

MS = NS_PER_S // 1_000


def test_filled_media_is_logged_with_its_length(caplog: pytest.LogCaptureFixture) -> None:
    """Each line has what was filled since the last line; less than 0.1 s waits for more."""
    log = LossLog("door")
    for second, audio_ms in enumerate((0, 60, 140, 140, 400)):
        log.log(Counts(filled_ns={"audio": audio_ms * MS}), second * NS_PER_S)
    assert [record.message for record in caplog.records] == [
        "holes-filled stream=door audio_s=0.14 video_s=0.00 suppressed=0",
        "holes-filled stream=door audio_s=0.26 video_s=0.00 suppressed=0",
    ]


def test_incomplete_windows_are_logged_when_they_begin(caplog: pytest.LogCaptureFixture) -> None:
    """Windows that stay incomplete give one line; another reason, or the same one later, gives another."""
    log = LossLog("door")
    for second, (late, hole, never) in enumerate([(0, 0, 1), (2, 0, 2), (4, 0, 3), (4, 1, 4), (5, 1, 5)]):
        log.log(
            Counts(missing={"audio": {"late": late, "hole": hole}, "video": {"no track": never}}), second * NS_PER_S
        )
    assert [record.message for record in caplog.records] == [
        "windows-incomplete stream=door missing=audio reason=late windows=2 suppressed=0",
        "windows-incomplete stream=door missing=audio reason=hole windows=1 suppressed=0",
        "windows-incomplete stream=door missing=audio reason=late windows=5 suppressed=0",
    ]


def test_losses_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Holes all day are logged once a minute, and the lines have all of them."""
    log = LossLog("door")
    for second in range(3_600):
        log.log(Counts(filled_ns={"video": second * NS_PER_S}), second * NS_PER_S)
    assert len(caplog.records) < 75
    assert sum(float(record.message.split("video_s=")[1].split()[0]) for record in caplog.records) > 3_500
