"""Loss reports of subscribers, without a socket."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiverd.wire.loss_reports import NAME, LossReport, SubscriberRegistry

BOOT = "0123456789abcdef" * 2


@given(st.from_regex(NAME, fullmatch=True), st.integers(0, 10**15 - 1))
def test_a_report_survives_formatting_and_parsing(name: str, missed: int) -> None:
    """Parsing a report's subscription gives the same report."""
    report = LossReport(BOOT, name, missed)
    assert LossReport.parse(report.subscription.encode()) == report


@pytest.mark.parametrize(
    "subscription",
    [b"", b"scores/a/", b"missed/", f"missed/{BOOT}/a/".encode(), f"missed/{BOOT}/a b/1/".encode(), b"\xff" * 60]
    + [f"missed/{BOOT}/a/{count}/".encode() for count in ("-1", "x", "1" * 16)],
)
def test_other_subscriptions_are_no_reports(subscription: bytes) -> None:
    """A subscription that is not a well-formed report counts as one to messages."""
    assert LossReport.parse(subscription) is None


def test_a_growing_count_is_added_once() -> None:
    """A newer report replaces the one before. The same report again, after a reconnection, adds nothing."""
    registry = SubscriberRegistry(BOOT)
    for missed in (0, 5, 9, 9, 3):
        registry.add(LossReport(BOOT, "a", missed))
    registry.add(LossReport(BOOT, "b", 1))
    assert (registry.missed, registry.losing) == (10, {"a": 9, "b": 1})


def test_losses_remain_when_a_subscriber_leaves() -> None:
    """A subscriber leaves with its last report. If it returns, its losses are not counted again."""
    registry = SubscriberRegistry(BOOT)
    for missed in (0, 5):
        registry.add(LossReport(BOOT, "a", missed))
    registry.withdraw(LossReport(BOOT, "a", 0))
    assert len(registry) == 1
    registry.withdraw(LossReport(BOOT, "a", 5))
    registry.withdraw(LossReport(BOOT, "a", 5))
    assert (len(registry), registry.losing, registry.missed) == (0, {}, 5)
    registry.add(LossReport(BOOT, "a", 6))
    assert registry.missed == 6


def test_losses_of_a_previous_daemon_do_not_count() -> None:
    """A subscriber that survives a restart still has its report to the previous daemon."""
    registry = SubscriberRegistry(BOOT)
    registry.add(LossReport("f" * 32, "a", 5))
    registry.withdraw(LossReport("f" * 32, "a", 5))
    assert (len(registry), registry.missed) == (0, 0)


def test_names_are_forgotten() -> None:
    """Names of subscribers that left are kept up to `remembered`; connected subscribers are always kept."""
    registry = SubscriberRegistry(BOOT, remembered=10)
    registry.add(LossReport(BOOT, "stays", 1))
    for number in range(100):
        registry.add(report := LossReport(BOOT, f"guest-{number}", 1))
        registry.withdraw(report)
    registry.add(LossReport(BOOT, "stays", 2))
    assert registry.missed == 102
    assert len(registry._counts) <= 12
