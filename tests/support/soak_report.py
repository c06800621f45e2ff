"""Summarises the tables of a soak as text and as a picture. Knows no processes."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.soak_tables import Fault, Sample, TaggedWindow, read

EACH_S = 20.0
"""A new fault begins this often."""
HOP_S, WINDOW_S = 0.5, 1.28
BACK_S = 10.0
"""A stream should be back within this time after a fault."""
CAMERAS = ("cam1", "cam2")
STREAMS = (*CAMERAS, "clip", "test")


def summarise(out: Path) -> str:
    """A summary of the tables as text; also draws soak.svg beside them."""
    windows, faults = read(out / "windows.csv", TaggedWindow), read(out / "faults.csv", Fault)
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
            at = bisect_left(ends, fault.until_s + (WINDOW_S if fault.kind != "worker killed" else 0.0))
            if at < len(mine):
                took = max(0.0, mine[at].at_s - fault.until_s)
                recoveries.setdefault(fault.kind, []).append(took)
                worst = max(worst, took)
        counts = ", ".join(f"{count} {reason}" for reason, count in sorted(restarts.get(stream, {}).items())) or "none"
        lines.append(
            f"{stream:8}{counted:6}{expected:10.0f}{100 * counted / expected:8.1f} %  {counts:40} {worst:5.1f} s"
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
        healthy_share(windows, faults),
    ]
    settled = [each for each in samples if each.at_s > 120] or samples
    for name in ("daemon_mb", "daemon_fds", "daemon_threads", "workers", "workers_mb", "workers_fds"):
        values = [float(getattr(each, name)) for each in settled]
        quarter = max(1, len(values) // 4)
        lines.append(
            f"{name:16} first quarter {median(values[:quarter]):7.1f}, last {median(values[-quarter:]):7.1f}, "
            f"most {max(values):7.1f}"
        )
    (out / "soak.svg").write_text("\n".join(plot(samples, windows, faults)))
    return "\n".join(lines)


def back_s(fault: Fault) -> float:
    """The earliest end of a window without a gap: after the fault, the source must fill a whole window."""
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


def healthy_share(windows: Sequence[TaggedWindow], faults: Sequence[Fault]) -> str:
    """How many windows healthy streams had while another one had a fault."""
    count = expected = 0.0
    for fault in faults:
        for stream in STREAMS:
            disturbed = [
                f
                for f in faults
                if f.stream == stream and f.until_s + EACH_S > fault.at_s and f.at_s < fault.until_s + EACH_S
            ]
            if disturbed:
                continue
            expected += EACH_S / HOP_S
            count += sum(fault.at_s <= w.end_s < fault.at_s + EACH_S for w in _of(windows, stream, fault.at_s))
    modalities = Counter(each.modalities for each in windows)
    share = f"{100 * count / expected:.2f} %" if expected else "-"
    return f"windows of healthy streams within 20 s of a fault: {share} of expected; modalities {dict(modalities)}"


def _of(windows: Sequence[TaggedWindow], stream: str, at_s: float) -> list[TaggedWindow]:
    from_, to = (bisect_left(windows, at_s + s, key=lambda each: each.at_s) for s in (0.0, EACH_S + 5))
    return [each for each in windows[from_:to] if each.stream == stream]


def median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def plot(samples: Sequence[Sample], windows: Sequence[TaggedWindow], faults: Sequence[Fault]) -> Iterator[str]:
    """An SVG with four panels over time: windows a minute, memory, descriptors, threads and workers; marks faults."""
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
        ("resident MB", ("daemon_mb", "workers_mb")),
        ("descriptors", ("daemon_fds", "workers_fds")),
        ("threads, workers", ("daemon_threads", "workers")),
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
