"""The process that measures a start: `python -m perceiverd.bench.engine_start MODEL ENGINE THREADS`.

It loads the model, tags one window, and prints its CPU time and memory as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import cast

from perceiverd.model.card import load_card
from perceiverd.model.engine import EngineName
from perceiverd.pipeline.tagger import Tagger


def main(model: str, engine: str, threads: int) -> None:
    """Load, tag, print."""
    Tagger(load_card(Path(model)), "cpu", threads, cast(EngineName, engine)).warm_up()
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    resident_kib = int(next(line for line in lines if line.startswith("VmRSS")).split()[1])
    print(json.dumps({"cpu_s": time.process_time(), "resident_mb": resident_kib * 1024 / 1e6}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
