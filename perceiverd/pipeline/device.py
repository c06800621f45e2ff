"""Names of the devices on which the network runs. It loads no torch, so that configuration and commands can use it."""

from __future__ import annotations

import re

DEVICE_PATTERN = re.compile(r"auto|cpu|cuda(:\d{1,3})?")
