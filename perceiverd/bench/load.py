"""`perceiverd bench --streams N`: replays a clip as N streams through a real daemon and measures what it achieves.

Each stream is the bundled clip, replayed in real time by a process of its own, as a camera's stream is. The report has
the latency from capture to publishing, the dropped windows, and which part used how much CPU time.
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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from perceiverd.core.errors import ConfigError, PerceiverdError
from perceiverd.core.paths import shipped_config
from perceiverd.daemon.spawn import SpawnedDaemon
from perceiverd.sources.specs import File
from perceiverd.wire.client import Subscription, subscribe
from perceiverd.wire.messages import Scores

STARTUP_S = 120.0
"""How long the daemon, all streams, and the helper that only decodes may take to start."""
SETTLE_S = 5.0
"""How long the streams run before the measurement starts."""
INFERENCE_CPU = re.compile(r"^perceiverd_inference_cpu_seconds_total (\S+)$", re.MULTILINE)
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class LoadReport(msgspec.Struct, frozen=True):
    """What a daemon achieved with N streams."""

    streams: int
    seconds: float
    hop_s: float
    expected: int
    """Windows of all streams in this time."""
    tagged: int
    dropped: int
    """Windows that were replaced by newer ones before they could be tagged."""
    p50_ms: float
    """Median latency, from the capture of a window's end to its publishing."""
    p99_ms: float
    network_cpu_s: float
    """CPU time of the neural network."""
    daemon_cpu_s: float
    """CPU time of the rest of the daemon."""
    decode_cpu_s: float
    """CPU time for decoding, scaling and resampling in the sources' processes, estimated: a helper process that does
    nothing else measures it for one stream."""
    sources_cpu_s: float
    """CPU time of the rest of the sources' processes."""
    load: float
    """The system's load average at the end, these processes included."""
    cores: int
    still: bool = False
    """Whether all pictures counted as unchanged; otherwise all counted as new."""
    resident_mb: float = 0.0
    """Memory of the daemon's process at the end, without its sources."""

    @property
    def cpu_s(self) -> float:
        """CPU time of the daemon and its sources."""
        return self.network_cpu_s + self.daemon_cpu_s + self.decode_cpu_s + self.sources_cpu_s

    @property
    def own(self) -> float:
        """Perceiverd's share of all this CPU time, 0..1: everything except the network and decoding."""
        return (self.daemon_cpu_s + self.sources_cpu_s) / self.cpu_s

    def __str__(self) -> str:
        count = f"{self.streams} stream{'s' if self.streams > 1 else ''}"
        pictures = f"{'still' if self.still else 'moving'} pictures"
        return "\n".join(
            (
                f"{count} for {self.seconds:.0f} s, a window of each every {self.hop_s:g} s, {pictures}",
                f"on {self.cores} cores, load average {self.load:.1f}",
                f"latency from capture to publishing: p50 {self.p50_ms:.0f} ms, p99 {self.p99_ms:.0f} ms",
                f"windows: {self.tagged} of {self.expected} tagged, {self.dropped} dropped",
                f"{'CPU, in percent of one core':36}{'all':>9}{'per stream':>11}",
                self._row("network", self.network_cpu_s),
                self._row("rest of the daemon", self.daemon_cpu_s),
                self._row("decoding, scaling, resampling", self.decode_cpu_s),
                self._row("rest of the sources", self.sources_cpu_s),
                f"memory of the daemon, without its sources: {self.resident_mb:.0f} MB",
                f"perceiverd's own share, without network and decoding: {100 * self.own:.1f} %",
            )
        )

    def _row(self, name: str, cpu_s: float) -> str:
        percent = 100 * cpu_s / self.seconds
        return f"  {name:34}{percent:7.1f} %{percent / self.streams:9.2f} %"


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """CPU seconds since each process started."""

    network_s: float
    daemon_s: float
    """Of the daemon's process, the network included."""
    sources_s: float

    def since(self, before: CpuTimes) -> CpuTimes:
        return CpuTimes(
            self.network_s - before.network_s, self.daemon_s - before.daemon_s, self.sources_s - before.sources_s
        )


def run(
    streams: int, seconds: float, model: str, device: str, threads: int, hop_s: float = 0.5, *, still: bool = False
) -> LoadReport:
    """Measure for this many seconds; `still`: as if no picture showed anything new.

    Raises PerceiverdError if the daemon fails, ConfigError if the clip is missing.
    """
    model = _absolute(model)
    with tempfile.TemporaryDirectory(prefix="perceiverd-bench-") as folder:
        config = Path(folder) / "bench.toml"
        config.write_text(_configuration(streams, model, device, threads, hop_s, still=still))
        with SpawnedDaemon(config, STARTUP_S) as daemon, subscribe(daemon.endpoint(), ("scores/",)) as subscription:
            _wait_for_streams(daemon, subscription, streams)
            return _measured(daemon, subscription, streams, seconds, hop_s, model, still=still)


def _configuration(streams: int, model: str, device: str, threads: int, hop_s: float, *, still: bool) -> str:
    sources = f'sources = [{{ kind = "file", path = {json.dumps(str(_clip()))}, loop = true }}]'
    return (
        f"model = {{ name = {json.dumps(model)}, device = {json.dumps(device)}, threads = {threads} }}\n"
        f"window = {{ hop_s = {hop_s}, still_levels = {255 if still else 0} }}\n"
        f'publish.endpoint = "ipc://labels"\nmetrics.endpoint = "127.0.0.1:*"\n'
        + "".join(f"[streams.stream{number + 1}]\n{sources}\n" for number in range(streams))
    )


def _scores(daemon: SpawnedDaemon, subscription: Subscription, until: Callable[[], bool]) -> Iterator[Scores]:
    """The scores that arrive until the condition holds. Raises PerceiverdError if the daemon ends."""
    while not until():
        if not daemon.is_running:
            raise PerceiverdError(f"the daemon ended; its last line: {daemon.last_lines(1)}")
        if isinstance(item := subscription.receive_message(0.2), Scores):
            yield item


def _wait_for_streams(daemon: SpawnedDaemon, subscription: Subscription, streams: int) -> None:
    """Return SETTLE_S after each stream has published scores. Raises PerceiverdError if one does not in time."""
    started, deadline_s = set[str](), time.monotonic() + STARTUP_S
    for item in _scores(daemon, subscription, lambda: len(started) == streams):
        started.add(item.stream)
        if time.monotonic() > deadline_s:
            raise PerceiverdError(f"only {len(started)} of {streams} streams started within {STARTUP_S:g} s")
    settled_s = time.monotonic() + SETTLE_S
    for _ in _scores(daemon, subscription, lambda: time.monotonic() >= settled_s):
        pass


def _measured(
    daemon: SpawnedDaemon,
    subscription: Subscription,
    streams: int,
    seconds: float,
    hop_s: float,
    model: str,
    *,
    still: bool,
) -> LoadReport:
    metrics_url = daemon.metrics_url()
    decoder = _start_decoder(model, 0.8 * seconds)
    start_s, before = time.monotonic(), _cpu_times(daemon.pid, metrics_url)
    scores = list(_scores(daemon, subscription, lambda: time.monotonic() >= start_s + seconds))
    took_s, used = time.monotonic() - start_s, _cpu_times(daemon.pid, metrics_url).since(before)
    decoding_s = min(used.sources_s, _decoder_result(decoder) * took_s * streams)
    p50_ms, p99_ms = _percentiles([each.latency_ms for each in scores])
    return LoadReport(
        streams=streams,
        seconds=took_s,
        hop_s=hop_s,
        expected=round(streams * took_s / hop_s),
        tagged=len(scores),
        dropped=sum(each.dropped for each in scores),
        p50_ms=p50_ms,
        p99_ms=p99_ms,
        network_cpu_s=used.network_s,
        daemon_cpu_s=max(0.0, used.daemon_s - used.network_s),
        decode_cpu_s=decoding_s,
        sources_cpu_s=used.sources_s - decoding_s,
        load=os.getloadavg()[0],
        cores=len(os.sched_getaffinity(0)),
        still=still,
        resident_mb=_resident_mb(daemon.pid),
    )


def _percentiles(latencies_ms: Sequence[float]) -> tuple[float, float]:
    """The median and the 99th percentile. Raises PerceiverdError if there is no latency."""
    ordered = sorted(latencies_ms)
    if not ordered:
        raise PerceiverdError("no window was tagged in this time; use more seconds or fewer streams")
    return ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]


def _absolute(model: str) -> str:
    """A model's name as it is, a path as an absolute path: the daemon's paths start at its configuration's folder."""
    return str(Path(model).absolute()) if "/" in model else model


def _start_decoder(model: str, seconds: float) -> subprocess.Popen[str]:
    """Start the helper process: this module as a program."""
    command = [sys.executable, "-m", "perceiverd.bench.load", str(_clip()), model, str(seconds)]
    null = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=null, stdout=subprocess.PIPE, stderr=null, text=True)


def _decoder_result(decoder: subprocess.Popen[str]) -> float:
    """CPU seconds per second of the clip, from the helper. Raises PerceiverdError if it failed or hangs."""
    try:
        printed, _ = decoder.communicate(timeout=STARTUP_S)
        return float(printed)
    except subprocess.TimeoutExpired:
        decoder.kill()
        decoder.communicate()
        raise PerceiverdError(f"the decoding helper did not end within {STARTUP_S:g} s; try again") from None
    except ValueError:
        raise PerceiverdError(
            f"the decoding helper failed (status {decoder.returncode}), so its share is unknown; try again"
        ) from None


def _cpu_times(pid: int, metrics_url: str) -> CpuTimes:
    """CPU times of the daemon and its sources so far. Raises PerceiverdError if one of them has ended."""
    try:
        with urllib.request.urlopen(metrics_url, timeout=10) as page:
            inference = INFERENCE_CPU.search(page.read().decode())
        assert inference, "the daemon's metrics contain the network's CPU time"
        sources = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return CpuTimes(float(inference[1]), _cpu_s(pid), sum(_cpu_s(int(source)) for source in sources))
    except OSError:  # /proc has no files for a process that has ended
        raise PerceiverdError("the daemon or a source ended during the measurement; try fewer streams") from None


def _cpu_s(pid: int) -> float:
    """CPU seconds of a process: fields utime and stime of proc_pid_stat(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def _resident_mb(pid: int) -> float:
    """Resident memory of a process, in 1e6 bytes: field resident of proc_pid_statm(5)."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        raise PerceiverdError("the daemon ended during the measurement; try fewer streams") from None
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


def _decode(clip: Path, model: str, seconds: float) -> None:
    """Print how many CPU seconds it takes to only decode one second of the clip for this model.

    It runs at the clip's own pace and beside the streams, because a busy core needs more CPU time for the same work.
    """
    from perceiverd.model.card import load_card
    from perceiverd.sources import file

    items = file.media(File(str(clip), loop=True), load_card(model).geometry.media_format)
    next(items)
    settled_s = time.monotonic() + min(2.0, seconds / 2)
    while time.monotonic() < settled_s:
        next(items)
    start_s, start_cpu_s = time.monotonic(), time.process_time()
    while time.monotonic() < start_s + seconds:
        next(items)
    print((time.process_time() - start_cpu_s) / (time.monotonic() - start_s))


def _clip() -> Path:
    if path := shipped_config("demo/clip.mp4"):
        return path
    raise ConfigError("configs/demo/clip.mp4 is missing; it is part of perceiverd: reinstall the package")


if __name__ == "__main__":
    _decode(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
