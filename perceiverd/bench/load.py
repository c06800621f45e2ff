"""`perceiverd bench --streams N`: N cameras' worth of a clip through a real daemon, and what becomes of them here.

Each stream is the bundled clip, replayed in real time by a process of its own, as a camera's would be. Told are the
latency from capture to publishing, what was dropped, and where processors' time went.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec

from perceiverd.core.errors import ConfigError, PerceiverdError
from perceiverd.core.paths import shipped_config
from perceiverd.sources.specs import File
from perceiverd.wire.client import subscribe
from perceiverd.wire.messages import Scores

STARTUP_S, STOP_S, SETTLE_S = 120.0, 30.0, 5.0
SERVING = re.compile(r"serving-metrics host=\S+ port=(\d+)")
LISTENING = re.compile(r"listening endpoint=(\S+)")
TAGGING = re.compile(r"^perceiverd_inference_cpu_seconds_total (\S+)$", re.MULTILINE)
TICKS_S = os.sysconf("SC_CLK_TCK")


class Outcome(msgspec.Struct, frozen=True):
    """What became of N streams."""

    streams: int
    seconds: float
    hop_s: float
    expected: int
    """Windows of all streams in this time."""
    tagged: int
    dropped: int
    """Overtaken by newer ones before they could be tagged."""
    p50_ms: float
    p99_ms: float
    """Latency, from the capture of a window's end to its publishing."""
    network_cpu_s: float
    """Processors' seconds in the neural network."""
    daemon_cpu_s: float
    """In the rest of the daemon."""
    decode_cpu_s: float
    """In the sources' processes, as far as another that only decodes, shrinks and resamples takes as much."""
    sources_cpu_s: float
    """In the rest of the sources' processes."""
    load: float
    """Mean number of programs that wanted a processor, at the end; these among them."""
    processors: int

    @property
    def own(self) -> float:
        """Perceiverd's own share of all that time, 0..1: neither the network nor decoding."""
        own_s = self.daemon_cpu_s + self.sources_cpu_s
        return own_s / (own_s + self.network_cpu_s + self.decode_cpu_s)

    def __str__(self) -> str:
        def row(name: str, cpu_s: float) -> str:
            each = 100 * cpu_s / self.seconds / self.streams
            return f"  {name:34}{100 * cpu_s / self.seconds:7.1f} %{each:9.2f} %"

        return "\n".join(
            (
                f"{self.streams} streams for {self.seconds:.0f} s, a window of each every {self.hop_s:g} s",
                f"on {self.processors} processors, with a load of {self.load:.1f}",
                f"latency from capture to publishing: p50 {self.p50_ms:.0f} ms, p99 {self.p99_ms:.0f} ms",
                f"windows: {self.tagged} of {self.expected} tagged, {self.dropped} dropped",
                f"{'of one processor':36}{'all':>9}{'a stream':>11}",
                row("the network", self.network_cpu_s),
                row("the rest of the daemon", self.daemon_cpu_s),
                row("decoding, shrinking, resampling", self.decode_cpu_s),
                row("the rest of the sources", self.sources_cpu_s),
                f"perceiverd's own share, neither network nor decoding: {100 * self.own:.1f} %",
            )
        )


def run(streams: int, seconds: float, model: str, device: str, threads: int, hop_s: float = 0.5) -> Outcome:
    """Raises PerceiverdError where the daemon doesn't start or ends, ConfigError where the clip is missing."""
    clip, model = _clip(), _absolute(model)
    with tempfile.TemporaryDirectory(prefix="perceiverd-bench-") as folder:
        config, log = Path(folder) / "bench.toml", Path(folder) / "log"
        sources = f'sources = [{{ kind = "file", path = {json.dumps(str(clip))}, loop = true }}]'
        config.write_text(
            f"model = {{ name = {json.dumps(model)}, device = {json.dumps(device)}, threads = {threads} }}\n"
            f'window.hop_s = {hop_s}\npublish.endpoint = "ipc://labels"\nmetrics.endpoint = "127.0.0.1:*"\n'
            + "".join(f"[streams.stream{number + 1}]\n{sources}\n" for number in range(streams))
        )
        with log.open("w+") as file, _daemon(config, file) as daemon:
            return _measured(daemon, log, streams, seconds, hop_s, model)


def _measured(
    daemon: subprocess.Popen[bytes], log: Path, streams: int, seconds: float, hop_s: float, model: str
) -> Outcome:
    endpoint = _awaited(daemon, log, LISTENING)
    pages = f"http://127.0.0.1:{_awaited(daemon, log, SERVING)}/metrics"
    with subscribe(endpoint, ("scores/",)) as subscription:

        def heard(until: Callable[[], bool]) -> Iterator[Scores]:
            while not until():
                if daemon.poll() is not None:
                    raise PerceiverdError(f"the daemon ended; its last line: {_last(log)}")
                if isinstance(item := subscription.receive(0.2), Scores):
                    yield item

        there, deadline_s = set[str](), time.monotonic() + STARTUP_S
        for item in heard(lambda: len(there) == streams):
            there.add(item.stream)
            if time.monotonic() > deadline_s:
                raise PerceiverdError(f"only {len(there)} of {streams} streams came up within {STARTUP_S:g} s")
        settled_s = time.monotonic() + SETTLE_S
        for _ in heard(lambda: time.monotonic() >= settled_s):
            pass
        alone = [sys.executable, "-m", "perceiverd.bench.load", str(_clip()), model, str(0.8 * seconds)]
        none = subprocess.DEVNULL
        decoding = subprocess.Popen(alone, stdin=none, stdout=subprocess.PIPE, stderr=none, text=True)
        began_s, before = time.monotonic(), _spent(daemon.pid, pages)
        scores = list(heard(lambda: time.monotonic() >= began_s + seconds))
        took_s, after = time.monotonic() - began_s, _spent(daemon.pid, pages)
    spent = {name: after[name] - before[name] for name in before}
    decoding_s = min(spent["children"], _told(decoding) * took_s * streams)
    latencies = sorted(each.latency_ms for each in scores)
    if not latencies:
        raise PerceiverdError("no window was tagged in this time; take longer, or fewer streams")
    return Outcome(
        streams=streams,
        seconds=took_s,
        hop_s=hop_s,
        expected=round(streams * took_s / hop_s),
        tagged=len(scores),
        dropped=sum(each.dropped for each in scores),
        p50_ms=latencies[len(latencies) // 2],
        p99_ms=latencies[len(latencies) * 99 // 100],
        network_cpu_s=spent["network"],
        daemon_cpu_s=max(0.0, spent["daemon"] - spent["network"]),
        decode_cpu_s=decoding_s,
        sources_cpu_s=spent["children"] - decoding_s,
        load=os.getloadavg()[0],
        processors=len(os.sched_getaffinity(0)),
    )


def _absolute(model: str) -> str:
    """A model's name as it is, a path from here: the daemon takes paths from its configuration's folder."""
    return str(Path(model).absolute()) if "/" in model else model


def _told(decoding: subprocess.Popen[str]) -> float:
    """What the helper that only decodes has printed. Raises PerceiverdError where it failed, or hangs."""
    try:
        told, _ = decoding.communicate(timeout=STARTUP_S)
        return float(told)
    except subprocess.TimeoutExpired:
        decoding.kill()
        decoding.communicate()
        raise PerceiverdError(f"decoding alone was not done {STARTUP_S:g} s after its time; try again") from None
    except ValueError:
        raise PerceiverdError(
            f"decoding alone failed (status {decoding.returncode}), so its share cannot be told; try again"
        ) from None


def _spent(pid: int, pages: str) -> dict[str, float]:
    """Processors' seconds so far: of the daemon, of the network in it, and of its children. Raises PerceiverdError."""
    try:
        with urllib.request.urlopen(pages, timeout=10) as page:
            tagging = TAGGING.search(page.read().decode())
        assert tagging, "the daemon tells its network's time"
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return {
            "network": float(tagging[1]),
            "daemon": _cpu_s(pid),
            "children": sum(_cpu_s(int(child)) for child in children),
        }
    except OSError:  # of a process that is gone
        raise PerceiverdError("the daemon or a source of its ended while it was measured; try fewer streams") from None


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_S


def _decoding(clip: Path, model: str, seconds: float) -> None:
    """Print how many of a processor's seconds a second of the clip takes that is only decoded, as a model wants it.

    At the clip's own pace, beside the streams: a processor that does something else meanwhile takes longer for it.
    """
    from perceiverd.model.card import load_card
    from perceiverd.sources import file

    items = file.media(File(str(clip), loop=True), load_card(model).geometry.media_format)
    next(items)
    settled_s = time.monotonic() + min(2.0, seconds / 2)
    while time.monotonic() < settled_s:
        next(items)
    began_s, began_cpu_s = time.monotonic(), time.process_time()
    while time.monotonic() < began_s + seconds:
        next(items)
    print((time.process_time() - began_cpu_s) / (time.monotonic() - began_s))


@contextmanager
def _daemon(config: Path, log: IO[str]) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "perceiverd", "run", "--config", str(config)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT) as child:
        try:
            yield child
        finally:
            child.terminate()
            try:
                child.wait(STOP_S)
            except subprocess.TimeoutExpired:
                child.kill()


def _awaited(daemon: subprocess.Popen[bytes], log: Path, line: re.Pattern[str]) -> str:
    deadline_s = time.monotonic() + STARTUP_S
    while time.monotonic() < deadline_s:
        over = daemon.poll() is not None
        if found := line.search(log.read_text(errors="replace")):
            return found[1]
        if over:
            raise PerceiverdError(f"the daemon did not start: {_last(log)}")
        time.sleep(0.05)
    raise PerceiverdError(f"the daemon did not start within {STARTUP_S:g} s")


def _last(log: Path) -> str:
    return (log.read_text(errors="replace").splitlines() or ["(nothing)"])[-1]


def _clip() -> Path:
    if path := shipped_config("demo/clip.mp4"):
        return path
    raise ConfigError("configs/demo/clip.mp4 is missing: it comes with perceiverd, beside or inside the package")


if __name__ == "__main__":
    _decoding(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
