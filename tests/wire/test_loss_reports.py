"""What subscribers say of themselves, on paper."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiverd.wire.loss_reports import NAME, LossReport, SubscriberRegistry

BOOT = "0123456789abcdef" * 2


@given(st.from_regex(NAME, fullmatch=True), st.integers(0, 10**15 - 1))
def test_what_is_said_is_read(name: str, missed: int) -> None:
    """Subscription and back is the same report."""
    report = LossReport(BOOT, name, missed)
    assert LossReport.read(report.subscription.encode()) == report


@pytest.mark.parametrize(
    "subscription",
    [b"", b"scores/a/", b"missed/", f"missed/{BOOT}/a/".encode(), f"missed/{BOOT}/a b/1/".encode(), b"\xff" * 60]
    + [f"missed/{BOOT}/a/{count}/".encode() for count in ("-1", "x", "1" * 16)],
)
def test_everything_else_is_a_subscription_to_messages(subscription: bytes) -> None:
    """Whatever a peer sends is none of these, or well-formed."""
    assert LossReport.read(subscription) is None


def test_a_count_that_grows_is_added_once() -> None:
    """A newer report takes the place of the one before; the same one said again, after a reconnection, adds nothing."""
    register = SubscriberRegistry(BOOT)
    for missed in (0, 5, 9, 9, 3):
        register.come(LossReport(BOOT, "a", missed))
    register.come(LossReport(BOOT, "b", 1))
    assert (register.missed, register.losing) == (10, {"a": 9, "b": 1})


def test_who_has_left_is_not_there_and_what_it_missed_stays() -> None:
    """It leaves with its last report; when it comes again its losses are not new."""
    register = SubscriberRegistry(BOOT)
    for missed in (0, 5):
        register.come(LossReport(BOOT, "a", missed))
    register.leave(LossReport(BOOT, "a", 0))
    assert len(register) == 1
    register.leave(LossReport(BOOT, "a", 5))
    register.leave(LossReport(BOOT, "a", 5))
    assert (len(register), register.losing, register.missed) == (0, {}, 5)
    register.come(LossReport(BOOT, "a", 6))
    assert register.missed == 6


def test_what_was_missed_from_another_daemon_is_not_ours() -> None:
    """A subscriber that lived through a restart still says what it told the one before."""
    register = SubscriberRegistry(BOOT)
    register.come(LossReport("f" * 32, "a", 5))
    register.leave(LossReport("f" * 32, "a", 5))
    assert (len(register), register.missed) == (0, 0)


def test_names_are_not_remembered_for_ever() -> None:
    """Subscribers that come and go for months take no more room than `remembered`; those who are there are kept."""
    register = SubscriberRegistry(BOOT, remembered=10)
    register.come(LossReport(BOOT, "stays", 1))
    for number in range(100):
        register.come(report := LossReport(BOOT, f"guest-{number}", 1))
        register.leave(report)
    register.come(LossReport(BOOT, "stays", 2))
    assert register.missed == 102
    assert len(register._counts) <= 12
