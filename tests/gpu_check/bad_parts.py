"""A part of the check that ends badly, for tests: `python -m tests.gpu_check.bad_parts ... crash` or `hang`."""

import os
import signal
import sys
import time

print(f"now I {sys.argv[-1]}", flush=True)
if sys.argv[-1] == "crash":
    os.kill(os.getpid(), signal.SIGSEGV)
time.sleep(600)
