"""What a window lacks, in words."""

from __future__ import annotations

from perceiverd.wire import holes


def test_losses_are_described() -> None:
    """Missing media comes with its reason, filled media with its length; media that never came is no loss."""
    assert holes.described({}, {}) == holes.described({}, {"video": "no track"}) == ""
    assert holes.described({"video": 84.7}, {"audio": "late"}) == "no audio: late, 85 ms of video filled"
