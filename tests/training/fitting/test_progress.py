"""Progress lines of a fit that runs without a terminal."""

from __future__ import annotations

import logging

import pytest

from perceiverd.training.fitting.progress import progress_reporter


def test_without_a_terminal_progress_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The first line comes after 10 s; it has the stage, its share, the step and the last value of each figure."""
    with caplog.at_level(logging.INFO), progress_reporter(None, silent=False) as reporter, reporter.stage("labels"):
        reporter.update(1, 0.25, loss=2.0, norm=1.0)
        assert caplog.messages == []
        reporter._reported_s -= 10
        reporter.update(2, 0.5, loss=0.123456)
        reporter.update(3, 0.75, loss=0.1)
    assert caplog.messages == ["fit-progress stage=labels percent=50 step=2 loss=0.1235 norm=1"]


def test_a_silent_reporter_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Only one process of a group reports."""
    with caplog.at_level(logging.INFO), progress_reporter(None, silent=True) as reporter, reporter.stage("labels"):
        reporter._reported_s -= 10
        reporter.update(1, 0.5, loss=2.0)
    assert caplog.messages == []
