"""Hours of a real daemon whose real sources are troubled all the time: `python tests/soak.py --minutes 120 --out DIR`.

Four streams at real time with the bundled model: two network cameras behind networks of their own, the bundled clip
over and over, and the synthetic source. Every 20 s something is broken, by a plan that the seed decides. What happens
is written to DIR as it happens (windows.csv, samples.csv, faults.csv, daemon.log); `--summarise` tells what is there,
and draws it, at any time.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from perceiverd.wire.client import subscribe
from perceiverd.wire.messages import Scores, Status
from tests.support.network_camera import NEEDS, Camera, Network, available, cuttable

EACH_S, SAMPLE_S = 20.0, 5.0
HOP_S, WINDOW_S = 0.5, 1.28
CAMERAS = ("cam1", "cam2")
STREAMS = (*CAMERAS, "clip", "test")
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
BACK_S = 10.0
"""A stream should be back within so many seconds."""


@dataclass(frozen=True)
class Window:
    """One message of scores; times in seconds since the soak began."""

    at_s: float
    stream: str
    end_s: float
    latency_ms: float
    modalities: str
    dropped: int


@dataclass(frozen=True)
class Fault:
    """Something that was broken from `at_s` to `until_s`."""

    at_s: float
    until_s: float
    stream: str
    kind: str


@dataclass(frozen=True)
class Sample:
    """What the processes hold at a moment; memory is resident megabytes."""

    at_s: float
    daemon_mb: float
    daemon_fds: int
    daemon_threads: int
    children: int
    children_mb: float
    children_fds: int
    load: float
    tagged: int
    dropped: int
    restarts: str
    """By stream and reason, as JSON."""


Row = TypeVar("Row", Window, Fault, Sample)


class Table:
    """A CSV file that grows by whole lines."""

    def __init__(self, path: Path, kind: type[Any]) -> None:
        self._file = path.open("w", newline="", buffering=1)
        self._writer = csv.DictWriter(self._file, [field.name for field in fields(kind)])
        self._writer.writeheader()

    def add(self, row: Window | Fault | Sample) -> None:
        told = {key: round(value, 3) if isinstance(value, float) else value for key, value in asdict(row).items()}
        self._writer.writerow(told)


def read(path: Path, kind: type[Row]) -> list[Row]:
    """The rows of such a file; a line that is being written is left out."""
    types: dict[str, Callable[[str], Any]] = {"float": float, "int": int, "str": str}
    rows = []
    with path.open(newline="") as file:
        for line in csv.DictReader(file):
            with contextlib.suppress(ValueError, TypeError, KeyError):
                rows.append(kind(**{each.name: types[str(each.type)](line[each.name]) for each in fields(kind)}))
    return rows


# ---------------------------------------------------------------------------------------------------- processes
def children_of(pid: int) -> list[int]:
    try:
        told = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(each) for each in told.split()]


def held(pid: int) -> tuple[float, int, int]:
    """Resident megabytes, descriptors and threads of a process; zeros where it has gone."""
    try:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        fds = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
        return int(status.get("VmRSS", "0 kB").split()[0]) / 1024, fds, int(status["Threads"])
    except (OSError, KeyError):
        return 0.0, 0, 0


def child_of(daemon: int, stream: str, cameras: Sequence[Camera], clip: Path) -> int | None:
    """The process of this stream's source, told by what it has open."""
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
    """Paths of a process' files, and `tcp:HOST:PORT` of its connections."""
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


# ----------------------------------------------------------------------------------------------------- the soak
class Soak:
    def __init__(self, out: Path, minutes: float, seed: int) -> None:
        self._out, self._minutes, self._chance = out, minutes, random.Random(seed)
        self._windows = Table(out / "windows.csv", Window)
        self._faults = Table(out / "faults.csv", Fault)
        self._samples = Table(out / "samples.csv", Sample)
        self._clip = Path(__file__).parent.parent / "configs/demo/clip.mp4"
        self._statuses: dict[str, Status] = {}
        self._over = False
        self._began_s = time.monotonic()
        self._plan: list[tuple[str, str]] = []
        """What is still to come of this round: every kind of fault for every stream, in an order by chance."""

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
                        Window(
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
        own, children = held(self._daemon.pid), [held(pid) for pid in children_of(self._daemon.pid)]
        told = list(self._statuses.values())
        restarts = {status.stream: status.sources[0].restarts for status in told}
        self._samples.add(
            Sample(
                self._now_s,
                *own,
                len(children),
                sum(each[0] for each in children),
                sum(each[1] for each in children),
                os.getloadavg()[0],
                sum(status.windows for status in told),
                sum(status.dropped for status in told),
                json.dumps(restarts),
            )
        )

    def _break(self) -> tuple[float, Callable[[], None]] | None:
        """The next fault of the plan: until when, and what mends it."""
        if not self._plan:
            self._plan = [(kind, stream) for kind in ("child killed", "child stopped") for stream in STREAMS]
            self._plan += [(kind, stream) for kind in ("server killed", "server stopped") for stream in CAMERAS] * 2
            self._plan += [(kind, stream) for kind in ("network cut", "network slowed") for stream in CAMERAS] * 2
            self._chance.shuffle(self._plan)
        kind, stream = self._plan.pop()
        lasts_s = self._chance.choice((1.0, 3.0, 6.0, 9.0, 12.0))
        place = CAMERAS.index(stream) if stream in CAMERAS else 0
        camera, network = self._cameras[place], self._networks[place]
        mend: Callable[[], None]
        if kind.startswith("child"):
            pid = child_of(self._daemon.pid, stream, self._cameras, self._clip)
            if pid is None:
                return None  # it is being started again
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if kind == "child killed" else signal.SIGSTOP)
            lasts_s = 0.0 if kind == "child killed" else lasts_s

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


# -------------------------------------------------------------------------------------------- what came of it
def summarise(out: Path) -> str:
    """What the tables tell, in words; draws soak.svg beside them."""
    windows, faults = read(out / "windows.csv", Window), read(out / "faults.csv", Fault)
    samples = read(out / "samples.csv", Sample)
    if not windows or not samples:
        return "nothing yet"
    lines = [f"{samples[-1].at_s / 60:.1f} minutes, {len(faults)} faults, {len(windows)} windows", ""]
    lines.append("stream  tagged  expected  share   restarts   longest from a fault's end to its next whole window")
    restarts = json.loads(samples[-1].restarts)
    recoveries: dict[str, list[float]] = {}
    for stream in STREAMS:
        mine = [each for each in windows if each.stream == stream]
        if not mine:
            lines.append(f"{stream:8} none")
            continue
        away = [(each.at_s, back_s(each)) for each in faults if each.stream == stream]
        begin_s, end_s = mine[0].end_s, mine[-1].end_s
        there_s = end_s - begin_s - sum(min(b, end_s) - min(a, end_s) for a, b in merged(away))
        counted = sum(not any(a < each.end_s <= b for a, b in away) for each in mine)
        expected = there_s / HOP_S
        ends = [each.end_s for each in mine]
        worst = 0.0
        for fault in (each for each in faults if each.stream == stream):
            at = bisect_left(ends, fault.until_s + (WINDOW_S if fault.kind != "child killed" else 0.0))
            if at < len(mine):
                took = max(0.0, mine[at].at_s - fault.until_s)
                recoveries.setdefault(fault.kind, []).append(took)
                worst = max(worst, took)
        told = ", ".join(f"{count} {reason}" for reason, count in sorted(restarts.get(stream, {}).items())) or "none"
        lines.append(
            f"{stream:8}{counted:6}{expected:10.0f}{100 * counted / expected:8.1f} %  {told:40} {worst:5.1f} s"
        )
    lines += ["", "fault             count   median    worst   over 10 s"]
    for kind, took_s in sorted(recoveries.items()):
        over = sum(each > BACK_S for each in took_s)
        lines.append(f"{kind:16}{len(took_s):7}{median(took_s):8.1f} s{max(took_s):8.1f} s{over:9}")
    calm = [each for each in windows if not any(f.at_s - 1 <= each.at_s <= f.until_s + BACK_S for f in faults)]
    latencies = sorted(each.latency_ms for each in calm or windows)
    lines += [
        "",
        f"latency p50 {latencies[len(latencies) // 2]:.0f} ms, p99 {latencies[len(latencies) * 99 // 100]:.0f} ms",
        f"{sum(each.dropped for each in windows)} windows overtaken",
        f"load {min(s.load for s in samples):.1f} to {max(s.load for s in samples):.1f}",
        both(windows, faults),
    ]
    settled = [each for each in samples if each.at_s > 120] or samples
    for name in ("daemon_mb", "daemon_fds", "daemon_threads", "children", "children_mb", "children_fds"):
        values = [float(getattr(each, name)) for each in settled]
        quarter = max(1, len(values) // 4)
        lines.append(
            f"{name:16} first quarter {median(values[:quarter]):7.1f}, last {median(values[-quarter:]):7.1f}, "
            f"most {max(values):7.1f}"
        )
    (out / "soak.svg").write_text("\n".join(drawn(samples, windows, faults)))
    return "\n".join(lines)


def back_s(fault: Fault) -> float:
    """When the first window without a hole can have ended: what was asleep for a while has a window's time to go."""
    return fault.until_s + WINDOW_S


def merged(spans: Sequence[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    last: tuple[float, float] | None = None
    for begin, end in sorted(spans):
        if last and begin <= last[1]:
            last = last[0], max(last[1], end)
            continue
        if last:
            yield last
        last = begin, end
    if last:
        yield last


def both(windows: Sequence[Window], faults: Sequence[Fault]) -> str:
    """Streams that were not broken, while another was."""
    count = expected = 0.0
    for fault in faults:
        for stream in STREAMS:
            touched = [
                f
                for f in faults
                if f.stream == stream and f.until_s + EACH_S > fault.at_s and f.at_s < fault.until_s + EACH_S
            ]
            if touched:
                continue
            expected += EACH_S / HOP_S
            count += sum(fault.at_s <= w.end_s < fault.at_s + EACH_S for w in _of(windows, stream, fault.at_s))
    modalities = Counter(each.modalities for each in windows)
    share = f"{100 * count / expected:.2f} %" if expected else "-"
    return (
        f"windows of untouched streams in the 20 s from a fault on: {share} of expected; modalities {dict(modalities)}"
    )


def _of(windows: Sequence[Window], stream: str, at_s: float) -> list[Window]:
    from_, to = (bisect_left(windows, at_s + s, key=lambda each: each.at_s) for s in (0.0, EACH_S + 5))
    return [each for each in windows[from_:to] if each.stream == stream]


def median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def drawn(samples: Sequence[Sample], windows: Sequence[Window], faults: Sequence[Fault]) -> Iterator[str]:
    """Five panels over time: windows a minute, memory, descriptors, threads and children, faults."""
    width, height, left = 900, 110, 70
    end_s = max(samples[-1].at_s, 60.0)
    minutes = int(end_s // 60)
    per_minute = Counter((each.stream, int(each.at_s // 60)) for each in windows)
    panels: list[tuple[str, list[tuple[str, list[tuple[float, float]]]]]] = [
        (
            "windows a minute",
            [(s, [(m * 60.0 + 30, float(per_minute[s, m])) for m in range(minutes)]) for s in STREAMS],
        )
    ]
    for title, names in (
        ("resident MB", ("daemon_mb", "children_mb")),
        ("descriptors", ("daemon_fds", "children_fds")),
        ("threads, children", ("daemon_threads", "children")),
    ):
        panels.append((title, [(n, [(s.at_s, float(getattr(s, n))) for s in samples]) for n in names]))
    colours = ("#0969da", "#9a6700", "#1a7f37", "#8250df")
    total = len(panels) * (height + 50) + 40
    box = f'viewBox="0 0 {width + left + 20} {total}" font-family="sans-serif" font-size="12"'
    yield f'<svg xmlns="http://www.w3.org/2000/svg" {box}>'
    yield '<rect width="100%" height="100%" fill="#ffffff"/>'
    for number, (title, rows) in enumerate(panels):
        top = number * (height + 50) + 30
        most = max((v for _, points in rows for _, v in points), default=1.0) * 1.1 or 1.0
        yield f'<text x="{left}" y="{top - 8}" fill="#24292f" font-weight="600">{title}</text>'
        yield f'<path d="M{left} {top}V{top + height}H{left + width}" stroke="#d0d7de" fill="none"/>'
        yield f'<text x="{left - 6}" y="{top + 10}" text-anchor="end" fill="#57606a">{most:.0f}</text>'
        for fault in faults:
            x = left + width * fault.at_s / end_s
            yield f'<path d="M{x:.1f} {top + height}v5" stroke="#cf222e"/>'
        for place, (name, points) in enumerate(rows):
            path = "L".join(f"{left + width * t / end_s:.1f} {top + height * (1 - v / most):.1f}" for t, v in points)
            if path:
                yield f'<path d="M{path}" stroke="{colours[place]}" fill="none" stroke-width="1.2"/>'
            yield f'<text x="{left + 200 + place * 130}" y="{top - 8}" fill="{colours[place]}">{name}</text>'
    yield f'<text x="{left}" y="{total - 8}" fill="#57606a">{end_s / 60:.0f} minutes; a red stroke is a fault</text>'
    yield "</svg>"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--summarise", action="store_true", help="only tell what is there")
    told = parser.parse_args()
    if not told.summarise:
        if not available():
            print(NEEDS, file=sys.stderr)
            return 1
        told.out.mkdir(parents=True, exist_ok=True)
        Soak(told.out, told.minutes, told.seed).run()
    text = summarise(told.out)
    (told.out / "summary.txt").write_text(text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
