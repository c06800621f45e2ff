"""What is on the board, in Prometheus's words, and the pages that `[metrics]` serves.

An age is computed when it is asked for, from the moment that the loop noted: it grows when the loop is stuck.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from itertools import accumulate

import msgspec
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from perceiverd.core.clock import Clock, now_ns
from perceiverd.core.media import NS_PER_S
from perceiverd.daemon.health import Verdict, healthy, lacking, ready
from perceiverd.daemon.http import Page, Reply
from perceiverd.daemon.telemetry import Distribution, StreamReading, Telemetry, TelemetryFrame
from perceiverd.pipeline.stalls import DEAD, FROZEN

UP = "up"

Rows = Iterable[tuple[Sequence[str], float]]
"""The values of a metric, each after the values of its labels."""


def pages(board: Telemetry, clock: Clock = now_ns) -> Mapping[str, Page]:
    """`/metrics`, `/healthz` and `/readyz`, by their paths."""
    registry = CollectorRegistry()
    registry.register(_Exposition(board, clock))
    ProcessCollector(registry=registry)

    def metrics(accept: str) -> Reply:
        encode, kind = choose_encoder(accept)
        return Reply(encode(registry), kind)

    def told(judge: Callable[[Telemetry, int], Verdict]) -> Reply:
        verdict = judge(board, clock())
        status = HTTPStatus.OK if verdict.good else HTTPStatus.SERVICE_UNAVAILABLE
        return Reply(msgspec.json.encode(verdict.told) + b"\n", "application/json", status)

    return {"/metrics": metrics, "/healthz": lambda _: told(healthy), "/readyz": lambda _: told(ready)}


class _Exposition(Collector):
    """Makes the metrics of the snapshot that is on the board when it is asked."""

    def __init__(self, board: Telemetry, clock: Clock) -> None:
        self._board, self._clock = board, clock

    def collect(self) -> Iterator[Metric]:
        now, snapshot = self._clock(), self._board.snapshot
        yield _gauge(
            "perceiverd_turn_age_seconds", "Since the loop last turned.", (), [((), _s(now - self._board.turned_ns))]
        )
        if snapshot is not None:
            yield from _of_daemon(snapshot)
            yield from _of_streams(snapshot, now)
            yield from _of_sources(snapshot, now)


def _of_daemon(snapshot: TelemetryFrame) -> Iterator[Metric]:
    who = (snapshot.version, snapshot.model, snapshot.sha256)
    yield _gauge("perceiverd_info", "Who runs; always 1.", ("version", "model", "sha256"), [(who, 1)])
    for name, what, value in (
        ("perceiverd_subscriptions", "Subscriptions in force at the publisher.", snapshot.subscriptions),
        ("perceiverd_subscribers", "Subscribers that report what they miss.", snapshot.subscribers),
    ):
        yield _gauge(name, what, (), [((), value)])
    for name, what, value in (
        ("perceiverd_messages_missed", "Messages that subscribers have reported as missed.", snapshot.missed),
        ("perceiverd_overflows", "Times that a subscriber's queue was found full.", snapshot.overflows),
        ("perceiverd_clients_refused", "Times that a client's key was not on the list.", snapshot.refused),
        ("perceiverd_suspends", "Times that the machine was suspended.", snapshot.suspends),
    ):
        yield _counter(name, what, (), [((), value)])
    took = [((), snapshot.inference_cpu_s)]
    yield _counter("perceiverd_inference_cpu_seconds", "Processors' time that the network took.", (), took)
    yield _histogram(
        "perceiverd_inference_seconds", "What the network took for a batch.", (), [((), snapshot.inference)]
    )


def _of_streams(snapshot: TelemetryFrame, now: int) -> Iterator[Metric]:
    streams = snapshot.streams

    def each(value: Callable[[StreamReading], float | None]) -> Rows:
        return [((name,), found) for name, stream in streams.items() if (found := value(stream)) is not None]

    def is_ready(stream: StreamReading) -> float:
        return not lacking(stream, snapshot.lately_ns, now)

    def age(stream: StreamReading) -> float | None:
        return None if stream.sent_ns is None else _s(now - stream.sent_ns)

    by = ("stream",)
    yield _gauge("perceiverd_stream_up", "1 while all its sources deliver.", by, each(lambda s: s.state == UP))
    yield _gauge("perceiverd_stream_ready", "1 while it has windows sent, or has ended.", by, each(is_ready))
    yield _gauge("perceiverd_window_age_seconds", "Since scores were last sent.", by, each(age))
    yield _counter("perceiverd_windows_tagged", "Windows tagged and sent.", by, each(lambda s: s.tagged))
    yield _counter("perceiverd_windows_dropped", "Windows overtaken by newer ones.", by, each(lambda s: s.dropped))
    yield _counter("perceiverd_media_late", "Frames and chunks refused as too old.", by, each(lambda s: s.late))
    yield _counter("perceiverd_gaps", "Times that its line was torn.", by, each(lambda s: s.gaps))
    yield _histogram(
        "perceiverd_latency_seconds",
        "From the capture of a window's end to the publishing of its scores.",
        *(by, [((name,), stream.latency) for name, stream in streams.items()]),
    )
    yield _gauge(
        "perceiverd_sound_level_dbfs",
        "Root mean square of the last window's sound; absent where it had none.",
        *(by, each(lambda s: s.sound_dbfs)),
    )
    yield _gauge("perceiverd_events_open", "Events that go on.", by, each(lambda s: s.open))
    yield _counter(
        "perceiverd_events",
        "Events that began.",
        *((*by, "label"), [((name, label), n) for name, s in streams.items() for label, n in s.events.items()]),
    )
    yield _counter(
        "perceiverd_events_suppressed",
        "Times that a label had no event, or none of its own.",
        *((*by, "reason"), [((name, why), n) for name, s in streams.items() for why, n in s.suppressed.items()]),
    )
    yield _gauge(
        "perceiverd_hop_seconds",
        "From one tagged window to the next lately, stretched where windows were dropped.",
        *(by, each(lambda s: s.hop_s)),
    )
    yield _gauge(
        "perceiverd_skew_seconds",
        "How much later the last window's pictures were taken than its sound; absent where one is missing.",
        *(by, each(lambda s: s.skew_s)),
    )
    yield _gauge(
        "perceiverd_skew_most_seconds",
        "The same at the model's tick where it is furthest from 0.",
        *(by, each(lambda s: s.skew_most_s)),
    )


def _of_sources(snapshot: TelemetryFrame, now: int) -> Iterator[Metric]:
    sources = [
        ((name, str(position)), source)
        for name, stream in snapshot.streams.items()
        for position, source in enumerate(stream.sources)
    ]
    by = ("stream", "source")
    yield _gauge(
        "perceiverd_data_age_seconds",
        "Since the source's last frame or chunk came.",
        *(by, [(place, _s(now - one.data_ns)) for place, one in sources if one.data_ns is not None]),
    )
    yield _counter(
        "perceiverd_media_dropped",
        "Frames and chunks that found no room on their way.",
        *(by, [(place, one.dropped) for place, one in sources]),
    )
    yield _counter(
        "perceiverd_restarts",
        "Times that the source was lost and started again.",
        (*by, "reason"),
        [((*place, reason), count) for place, one in sources for reason, count in one.restarts.items()],
    )
    yield _gauge(
        "perceiverd_stalled",
        "1 while what comes is nothing, and counts as missing.",
        (*by, "what"),
        [((*place, what), float(what in one.stalls)) for place, one in sources for what in (FROZEN, DEAD)],
    )
    yield _gauge(
        "perceiverd_clock_drift_ppm",
        "By how many millionths the device's clock runs fast.",
        *(by, [(place, one.drift_ppm) for place, one in sources if one.drift_ppm is not None]),
    )
    yield _gauge(
        "perceiverd_clock_jitter_seconds",
        "How late the device's readings come on average.",
        *(by, [(place, one.jitter_s) for place, one in sources if one.jitter_s is not None]),
    )
    yield _counter(
        "perceiverd_clock_steps",
        "Sudden steps of the device's clock, and overflows, a gap each.",
        *(by, [(place, one.steps) for place, one in sources]),
    )
    yield _counter(
        "perceiverd_sound_overflows",
        "Losses of sound that this machine was too slow to take.",
        *(by, [(place, one.overflows) for place, one in sources]),
    )


def _gauge(name: str, what: str, by: Sequence[str], rows: Rows) -> Metric:
    family = GaugeMetricFamily(name, what, labels=by)
    for labels, value in rows:
        family.add_metric(labels, value)
    return family


def _counter(name: str, what: str, by: Sequence[str], rows: Rows) -> Metric:
    """On the page its name ends in `_total`."""
    family = CounterMetricFamily(name, what, labels=by)
    for labels, value in rows:
        family.add_metric(labels, value)
    return family


def _histogram(name: str, what: str, by: Sequence[str], rows: Iterable[tuple[Sequence[str], Distribution]]) -> Metric:
    family = HistogramMetricFamily(name, what, labels=by)
    for labels, found in rows:
        bounds = [*(str(bound) for bound in found.bounds), "+Inf"]
        family.add_metric(labels, list(zip(bounds, accumulate(found.counts), strict=True)), found.total)
    return family


def _s(ns: int) -> float:
    return ns / NS_PER_S
