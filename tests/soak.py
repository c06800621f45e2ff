"""Hours of a real daemon whose real sources have faults all the time: `python tests/soak.py --minutes 120 --out DIR`.

Runs four streams in real time with the bundled model: two network cameras on networks of their own, the bundled clip in
a loop, and the synthetic source. Every 20 s it causes a fault; the seed decides which. It writes windows.csv,
samples.csv, faults.csv and daemon.log to DIR as it runs. `--summarise` prints and draws what is there, at any time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from perceiverd.wire.client import subscribe
from perceiverd.wire.messages import Scores, Status
from tests.support.network_camera import NEEDS, Camera, Network, available, cuttable
from tests.support.soak_report import CAMERAS, EACH_S, HOP_S, STREAMS, summarise
from tests.support.soak_tables import Fault, Sample, Table, TaggedWindow

SAMPLE_S = 5.0
CONFIG = """
[window]
hop_s = {hop}
[publish]
endpoint = "ipc://{out}/labels"
[streams.cam1]
sources = [{{ kind = "url", url = "rtsp://viewer:${{SOAK_PASSWORD}}@{cam1}" }}]
[streams.cam2]
sources = [{{ kind = "url", url = "{cam2}", transport = "udp" }}]
[streams.clip]
sources = [{{ kind = "file", path = "{clip}", loop = true }}]
[streams.test]
sources = [{{ kind = "synthetic" }}]
"""
PASSWORD = "hunter2"


def children_of(pid: int) -> list[int]:
    try:
        pids = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(each) for each in pids.split()]


def resources_of(pid: int) -> tuple[float, int, int]:
    """Resident megabytes, descriptors and threads of a process; zeros if it is gone."""
    try:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        fds = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
        return int(status.get("VmRSS", "0 kB").split()[0]) / 1024, fds, int(status["Threads"])
    except (OSError, KeyError):
        return 0.0, 0, 0


def worker_of(daemon: int, stream: str, cameras: Sequence[Camera], clip: Path) -> int | None:
    """The worker process of this stream's source, recognised by its open files and connections."""
    for pid in children_of(daemon):
        opened = _opened(pid)
        wanted: dict[str, bool] = {
            "clip": str(clip) in opened,
            "cam1": cameras[0].serves(opened),
            "cam2": cameras[1].serves(opened),
        }
        wanted["test"] = not any(wanted.values()) and not any(each.startswith("tcp:") for each in opened)
        if wanted[stream]:
            return pid
    return None


def _opened(pid: int) -> set[str]:
    """Paths of a process's open files, and `tcp:HOST:PORT` of its connections."""
    links, inodes = set[str](), set[str]()
    with contextlib.suppress(OSError):
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                link = str(fd.readlink())
                (inodes if link.startswith("socket:") else links).add(link)
        for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
            parts = line.split()
            if f"socket:[{parts[9]}]" in inodes:
                host, port = parts[2].split(":")
                address = ".".join(str(int(host[at : at + 2], 16)) for at in (6, 4, 2, 0))
                links.add(f"tcp:{address}:{int(port, 16)}")
    return links


class Soak:
    """One run: the cameras, the daemon, the faults and the tables."""

    def __init__(self, out: Path, minutes: float, seed: int) -> None:
        self._out, self._minutes, self._chance = out, minutes, random.Random(seed)
        self._windows = Table(out / "windows.csv", TaggedWindow)
        self._faults = Table(out / "faults.csv", Fault)
        self._samples = Table(out / "samples.csv", Sample)
        self._clip = Path(__file__).parent.parent / "configs/demo/clip.mp4"
        self._statuses: dict[str, Status] = {}
        self._over = False
        self._began_s = time.monotonic()
        self._plan: list[tuple[str, str]] = []
        """The remaining faults of this round: each kind for each stream, in random order."""

    def run(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        with ExitStack() as opened:
            networks = [opened.enter_context(Network(number)) for number in (1, 2)] if cuttable() else [None, None]
            passwords = (f"viewer:{PASSWORD}", None)
            self._networks = networks
            self._cameras = [
                opened.enter_context(Camera(network, password))
                for network, password in zip(networks, passwords, strict=True)
            ]
            self._daemon = opened.enter_context(self._started())
            opened.callback(self._daemon.terminate)
            self._loop()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._over = True

    @property
    def _now_s(self) -> float:
        return time.monotonic() - self._began_s

    def _started(self) -> subprocess.Popen[bytes]:
        bare = {name: camera.url for name, camera in zip(CAMERAS, self._cameras, strict=True)}
        bare["cam1"] = bare["cam1"].removeprefix("rtsp://")
        config = self._out / "soak.toml"
        config.write_text(CONFIG.format(hop=HOP_S, out=self._out.resolve(), clip=self._clip, **bare))
        with (self._out / "daemon.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "perceiverd", "run", "--config", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"SOAK_PASSWORD": PASSWORD},
            )

    def _loop(self) -> None:
        utc_s = time.time() - time.monotonic() + self._began_s
        next_sample_s, next_fault_s, settle_s = 0.0, 60.0, self._minutes * 60 - 30
        mending: tuple[float, Callable[[], None]] | None = None
        with subscribe(f"ipc://{self._out.resolve()}/labels") as subscription:
            while not self._over and self._now_s < self._minutes * 60:
                if self._daemon.poll() is not None:
                    print(f"the daemon ended with status {self._daemon.returncode} at {self._now_s:.0f} s", flush=True)
                    return
                item = subscription.receive_message(0.1)
                if isinstance(item, Scores):
                    self._windows.add(
                        TaggedWindow(
                            *(self._now_s, item.stream, item.end.timestamp() - utc_s, item.latency_ms),
                            *("+".join(item.modalities), item.dropped),
                        )
                    )
                elif isinstance(item, Status):
                    self._statuses[item.stream] = item
                if self._now_s >= next_sample_s:
                    next_sample_s += SAMPLE_S
                    self._sample()
                if mending and self._now_s >= mending[0]:
                    mending[1]()
                    mending = None
                if next_fault_s <= self._now_s < settle_s and not mending:
                    next_fault_s += EACH_S
                    mending = self._break()

    def _sample(self) -> None:
        own, workers = resources_of(self._daemon.pid), [resources_of(pid) for pid in children_of(self._daemon.pid)]
        statuses = list(self._statuses.values())
        restarts = {status.stream: status.sources[0].restarts for status in statuses}
        self._samples.add(
            Sample(
                self._now_s,
                *own,
                len(workers),
                sum(each[0] for each in workers),
                sum(each[1] for each in workers),
                os.getloadavg()[0],
                sum(status.windows for status in statuses),
                sum(status.dropped for status in statuses),
                json.dumps(restarts),
            )
        )

    def _break(self) -> tuple[float, Callable[[], None]] | None:
        """Cause the next fault of the plan; returns when it ends and what ends it."""
        if not self._plan:
            self._plan = [(kind, stream) for kind in ("worker killed", "worker stopped") for stream in STREAMS]
            self._plan += [(kind, stream) for kind in ("server killed", "server stopped") for stream in CAMERAS] * 2
            self._plan += [(kind, stream) for kind in ("network cut", "network slowed") for stream in CAMERAS] * 2
            self._chance.shuffle(self._plan)
        kind, stream = self._plan.pop()
        lasts_s = self._chance.choice((1.0, 3.0, 6.0, 9.0, 12.0))
        place = CAMERAS.index(stream) if stream in CAMERAS else 0
        camera, network = self._cameras[place], self._networks[place]
        mend: Callable[[], None]
        if kind.startswith("worker"):
            pid = worker_of(self._daemon.pid, stream, self._cameras, self._clip)
            if pid is None:
                return None  # it is being restarted
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if kind == "worker killed" else signal.SIGSTOP)
            lasts_s = 0.0 if kind == "worker killed" else lasts_s

            def mend() -> None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        elif kind == "server killed":
            camera.kill()
            mend = camera.start
        elif kind == "server stopped":
            camera.freeze()
            mend = camera.thaw
        elif network is None:
            return None
        elif kind == "network cut":
            network.cut()
            mend = network.mend
        else:
            network.slow(100)  # a fifth of what it sends

            def mend() -> None:
                network.slow(0)

        at_s = self._now_s

        def over() -> None:
            mend()
            self._faults.add(Fault(at_s, self._now_s, stream, kind))

        return at_s + lasts_s, over


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--summarise", action="store_true", help="only summarise what is in DIR")
    options = parser.parse_args()
    if not options.summarise:
        if not available():
            print(NEEDS, file=sys.stderr)
            return 1
        options.out.mkdir(parents=True, exist_ok=True)
        Soak(options.out, options.minutes, options.seed).run()
    text = summarise(options.out)
    (options.out / "summary.txt").write_text(text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
