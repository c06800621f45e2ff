"""Commands of an operator in a guest in which perceiverd is installed, and what they return."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
ETC, OPT = Path("/etc/perceiverd"), Path("/opt/perceiverd")
CONFIG = ETC / "perceiverd.toml"
DEPENDENCIES = Path("/srv/deps")
UNIT = "perceiverd.service"
LABELS = "ipc:///run/perceiverd/labels"
START_S = 600
"""How long a start may take: one core, which is shared, loads torch and the model."""
WATCHDOG_S = 20

SUBSCRIBER = """
import sys, zmq
subscriber = zmq.Context().socket(zmq.SUB)
subscriber.connect(sys.argv[1])
subscriber.subscribe(sys.argv[2])
if not subscriber.poll(300_000):
    sys.exit("nothing came")
sys.stdout.buffer.write(subscriber.recv_multipart()[1])
"""


def call(*command: str | Path, timeout: float = START_S, check: bool = True) -> str:
    """What a command prints on both streams; fails if the command does."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout)
    assert not check or done.returncode == 0, done.stdout
    return done.stdout


def show(name: str, unit: str = UNIT) -> str:
    return call("systemctl", "show", "--value", f"--property={name}", unit).strip()


def journal(unit: str = UNIT) -> str:
    call("journalctl", "--sync", check=False)
    return call("journalctl", "--unit", unit, "--output=short-precise", "--no-pager", "--quiet")


def until(holds: Callable[[], Any], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds} s\n{journal()}"
        time.sleep(0.2)


def next_scores(stream: str, endpoint: str = LABELS) -> dict[str, Any]:
    """The next scores of a stream, as a user gets them who is only a member of the group of subscribers."""
    as_member = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--groups=perceiverd-labels")
    message: dict[str, Any] = json.loads(
        call(*as_member, sys.executable, "-c", SUBSCRIBER, endpoint, f"scores/{stream}/")
    )
    return message


def clip() -> Path:
    return next(OPT.glob("lib/python*/site-packages/perceiverd/configs/demo/clip.mp4"))


def configure(*streams: str, path: Path = CONFIG) -> None:
    """Write a configuration with one stream of the bundled clip for each name."""
    sources = f'sources = [{{ kind = "file", path = "{clip()}", loop = true }}]'
    path.write_text("".join(f"[streams.{name}]\n{sources}\n" for name in streams), encoding="utf-8")


def make(target: str) -> str:
    wheel = next(ROOT.parent.glob("perceiverd-*.whl"))
    # Torch and the other dependencies come from the tests' environment: see run.sh.
    flags = "--no-index --no-deps --force-reinstall"
    return call(
        "make", "-C", ROOT, "--no-print-directory", target, "PYTHON=/usr/bin/python3", f"PACKAGE={wheel}",
        f"PIP_FLAGS={flags}",
    )  # fmt: skip
