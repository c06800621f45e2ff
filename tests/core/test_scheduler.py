"""Real processes that share a core, and one that sleeps."""

import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from perceiverd.core.scheduler import all_waited_ns, waited_ns

BUSY = "import time\nend_s = time.monotonic() + 60\nwhile time.monotonic() < end_s: pass"
THREAD = f"import threading, time\nthreading.Thread(target=exec, args=({BUSY!r}, {{}})).start()\ntime.sleep(60)"
SLEEP = "import time; print(flush=True); time.sleep(60)"


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="this kernel does not count such times")
def test_waiting_for_a_core_is_measured() -> None:
    """Of busy processes that share a core each waits, with its main thread or another; one that sleeps does not."""
    core = str(min(os.sched_getaffinity(0)))
    with ExitStack() as running:
        pids = list[int]()
        for code in (SLEEP, BUSY, THREAD):
            command = ["taskset", "-c", core, sys.executable, "-c", code]
            process = running.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))
            running.callback(process.kill)
            pids.append(process.pid)
            if code == SLEEP:
                assert process.stdout and process.stdout.readline()  # from now on it sleeps
        sleeping, busy, threaded = pids
        end_s = time.monotonic() + 60
        before_ns = all_waited_ns(sleeping)
        while min(waited_ns(busy), all_waited_ns(threaded)) < 500_000_000:
            assert time.monotonic() < end_s
            time.sleep(0.05)
        assert all_waited_ns(sleeping) - before_ns < 400_000_000
        main_ns = waited_ns(busy)  # both times grow, so the smaller one is read first
        assert main_ns <= all_waited_ns(busy)
        main_ns = waited_ns(threaded)
        assert main_ns < all_waited_ns(threaded)


def test_a_process_that_is_gone_waits_for_nothing() -> None:
    """Both are 0 for a number that no process has."""
    with subprocess.Popen([sys.executable, "-c", "pass"]) as process:
        process.wait()
    assert waited_ns(process.pid) == all_waited_ns(process.pid) == 0
