"""ONNX Runtime without its telemetry. Everything in perceiverd imports the library from here.

Its builds (seen in 1.32) collect usage data in the user's cache folder and send them to Microsoft. perceiverd sends
nothing to anybody. The variable must be set before the import: `disable_telemetry_events` comes too late.
"""

from __future__ import annotations

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime

__all__ = ["onnxruntime"]
