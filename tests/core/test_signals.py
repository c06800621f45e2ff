"""Signals as flags of a loop, raised in this process."""

import logging
import signal
import subprocess
import sys

import pytest

from perceiverd.core.signals import STOP, SignalFlags, handling, stopping

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


def test_handlers_are_put_back_after_a_failure() -> None:
    """A handler is called only while its context is open, even if that ends with an error."""
    before, received = [signal.getsignal(number) for number in STOP], list[int]()

    def interrupted() -> None:
        with handling(STOP, lambda number, _: received.append(number)):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    assert received == [signal.SIGINT, signal.SIGTERM]
    assert [signal.getsignal(number) for number in STOP] == before


def test_a_signal_to_stop_is_logged_and_passed_on(caplog: pytest.LogCaptureFixture) -> None:
    """SIGTERM may come again; after the first SIGINT the second one ends the process at once."""
    before, stops = [signal.getsignal(number) for number in STOP], list[None]()
    with caplog.at_level(logging.INFO), stopping(logging.getLogger("perceiverd.x"), lambda: stops.append(None)):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    assert caplog.messages == [f"signal-received name={name}" for name in ("SIGTERM", "SIGTERM", "SIGINT")]
    assert len(stops) == 3
    assert [signal.getsignal(number) for number in STOP] == before


def test_a_process_dies_with_its_parent() -> None:
    """The kernel kills a process that asked for it as soon as its parent has ended."""
    code = (
        "import os, time\n"
        "from perceiverd.core.signals import die_with_parent\n"
        "if os.fork(): time.sleep(1); os._exit(0)\n"
        "die_with_parent()\n"
        "time.sleep(60)\n"
    )
    # The process holds the pipe, so `run` returns when both have ended.
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
