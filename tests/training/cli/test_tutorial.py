"""The tutorial `docs/tutorial/your-own-sounds.md` runs as it is written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TUTORIAL = (ROOT / "docs" / "tutorial" / "your-own-sounds.md").read_text(encoding="utf-8")


@pytest.mark.timeout(300)  # starts Python and torch five times
def test_the_tutorial_runs(tmp_path: Path) -> None:
    """Its program and commands end without an error; the table is as shown; both sounds are found, and nothing else."""
    (program,) = re.findall(r"```python\n(.*?)```", TUTORIAL, re.DOTALL)
    (table,) = re.findall(r"```text\n(.*?)```", TUTORIAL, re.DOTALL)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True)
    printed = []
    for command in re.findall(r"^perceiverd (.*)$", TUTORIAL, re.MULTILINE):
        words = [sys.executable, "-m", "perceiverd", *command.split()]
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
    first, tagged, _, tagged_better = printed
    assert table in first
    for events in (tagged, tagged_better):
        assert re.findall(r"(Gate buzzer|Pump knock)", events) == ["Gate buzzer", "Pump knock"]
