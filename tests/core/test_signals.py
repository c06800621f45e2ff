"""Signals as flags of a loop, raised in this process."""

import signal
import subprocess
import sys

import pytest

from perceiverd.core.signals import SignalFlags

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def test_signals_set_flags_and_handlers_are_put_back() -> None:
    """After `defer_stop` the first SIGINT or SIGTERM asks to stop, a second SIGINT ends the process at once."""
    before = [signal.getsignal(number) for number in NUMBERS]
    with SignalFlags() as first:
        first.defer_stop()
        signal.raise_signal(signal.SIGHUP)
        assert (first.should_reload, first.should_stop) == (True, False)
        signal.raise_signal(signal.SIGINT)
        assert (first.should_stop, first.stopped_by) == (True, "SIGINT")
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    with SignalFlags() as second:
        second.defer_stop()
        signal.raise_signal(signal.SIGTERM)
        assert (second.should_stop, second.stopped_by) == (True, "SIGTERM")
    assert [signal.getsignal(number) for number in NUMBERS] == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_before_defer_stop_the_process_ends_at_once(number: signal.Signals) -> None:
    """Until `defer_stop` the kernel's default action holds: no line of Python runs after the signal."""
    code = (
        "import signal\n"
        "from perceiverd.core.signals import SignalFlags\n"
        f"with SignalFlags(): signal.raise_signal({int(number)}); print('alive')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (-number, "", "")


def test_a_reload_is_kept_for_later_while_the_program_starts() -> None:
    """SIGHUP sets its flag before `defer_stop` too: its default action would end the process."""
    with SignalFlags() as flags:
        signal.raise_signal(signal.SIGHUP)
        assert flags.should_reload
