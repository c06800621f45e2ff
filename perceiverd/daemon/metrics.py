"""Telemetry in the format of Prometheus, and the pages that `[metrics]` serves.

An age is computed when it is asked for, from the moment that the loop recorded. So it grows while the loop is stuck.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from itertools import accumulate
from typing import get_args

import msgspec
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from perceiverd.core.clock import Clock, now_ns
from perceiverd.core.http import Page, Reply
from perceiverd.core.media import NS_PER_S
from perceiverd.daemon.health import UP, Verdict, healthy, ready, why_not_ready
from perceiverd.daemon.telemetry import Distribution, StreamTelemetry, Telemetry, TelemetryFrame
from perceiverd.model.engine import DeviceHealth
from perceiverd.pipeline.stalls import DEAD, FROZEN
from perceiverd.pipeline.windower import MissingReason
from perceiverd.sources.process.arrivals import Modality
from perceiverd.sources.process.restart import Reason
from perceiverd.wire.messages import SourceStatus

MODALITIES = get_args(Modality)
RECENT_OUTCOMES = ("written", "speech", "unjudged", "no source")
LIVE_REASONS: tuple[MissingReason, ...] = ("no track", "hole", "late")

Rows = Iterable[tuple[Sequence[str], float]]
"""The values of a metric, each after the values of its labels."""


def pages(telemetry: Telemetry, clock: Clock = now_ns) -> Mapping[str, Page]:
    """`/metrics`, `/healthz` and `/readyz`, by path."""
    registry = CollectorRegistry()
    registry.register(TelemetryCollector(telemetry, clock))
    ProcessCollector(registry=registry)

    def metrics(accept: str) -> Reply:
        encode, kind = choose_encoder(accept)
        return Reply(encode(registry), kind)

    def answer(judge: Callable[[Telemetry, int], Verdict]) -> Reply:
        verdict = judge(telemetry, clock())
        status = HTTPStatus.OK if verdict.good else HTTPStatus.SERVICE_UNAVAILABLE
        return Reply(msgspec.json.encode(verdict.details) + b"\n", "application/json", status)

    return {"/metrics": metrics, "/healthz": lambda _: answer(healthy), "/readyz": lambda _: answer(ready)}


class TelemetryCollector(Collector):
    """Makes the metrics from the newest telemetry when Prometheus asks for them."""

    def __init__(self, telemetry: Telemetry, clock: Clock) -> None:
        self._telemetry, self._clock = telemetry, clock

    def collect(self) -> Iterator[Metric]:
        now, frame = self._clock(), self._telemetry.frame
        turned_s = _s(now - self._telemetry.turned_ns)
        yield _gauge("perceiverd_turn_age_seconds", "Seconds since the loop last turned.", (), [((), turned_s)])
        if frame is not None:
            yield from _of_daemon(frame)
            yield from _of_streams(frame, now)
            yield from _of_sources(frame, now)


def _of_daemon(frame: TelemetryFrame) -> Iterator[Metric]:
    names = (frame.version, frame.model, frame.sha256)
    yield _gauge("perceiverd_info", "Version and model; always 1.", ("version", "model", "sha256"), [(names, 1)])
    for name, what, value in (
        ("perceiverd_subscriptions", "Subscriptions at the publisher.", frame.subscriptions),
        ("perceiverd_subscribers", "Subscribers that report what they miss.", frame.subscribers),
    ):
        yield _gauge(name, what, (), [((), value)])
    for name, what, value in (
        ("perceiverd_messages_missed", "Messages that subscribers have reported as missed.", frame.missed),
        ("perceiverd_overflows", "How often a subscriber's queue was full.", frame.overflows),
        ("perceiverd_clients_refused", "How often a client's key was not on the list.", frame.refused),
        ("perceiverd_suspends", "How often the machine was suspended.", frame.suspends),
    ):
        yield _counter(name, what, (), [((), value)])
    cpu_s = [((), frame.inference_cpu_s)]
    yield _counter("perceiverd_inference_cpu_seconds", "CPU seconds that the network took.", (), cpu_s)
    yield _histogram(
        "perceiverd_inference_seconds", "Seconds that the network took for a batch.", (), [((), frame.inference)]
    )
    yield from _of_device(frame.device)


def _of_device(health: DeviceHealth | None) -> Iterator[Metric]:
    """Of the GPU; without samples if the network runs on a CPU by choice."""

    def one(value: Callable[[DeviceHealth], float]) -> Rows:
        return [] if health is None else [((), value(health))]

    limit = "Most windows that go to the GPU together; 0 while the CPU does its work; absent without a GPU."
    yield _gauge("perceiverd_batch_limit", limit, (), one(lambda found: found.batch_limit))
    yield _gauge(
        "perceiverd_device_lost",
        "1 if the GPU failed and the process must be started again to use it; absent without a GPU.",
        *((), one(lambda found: found.is_lost)),
    )
    yield _counter(
        "perceiverd_device_memory_short",
        "How often a batch did not fit into the GPU's memory.",
        *((), one(lambda found: found.out_of_memory)),
    )
    yield _counter(
        "perceiverd_windows_on_cpu",
        "Windows that the CPU computed in the GPU's place.",
        *((), one(lambda found: found.windows_on_cpu)),
    )
    yield _gauge(
        "perceiverd_device_preparing",
        "1 while the GPU's engine is built again or made ready for batches of other sizes; absent without a GPU.",
        *((), one(lambda found: found.is_preparing)),
    )
    yield _counter(
        "perceiverd_device_builds",
        "Attempts to build the GPU's engine again after a failure.",
        *((), one(lambda found: found.builds)),
    )
    yield _counter(
        "perceiverd_device_build_failures",
        "How often the GPU's engine could not be built again.",
        *((), one(lambda found: found.failed_builds)),
    )


def _of_streams(frame: TelemetryFrame, now_ns: int) -> Iterator[Metric]:
    streams = frame.streams

    def each(value: Callable[[StreamTelemetry], float | None]) -> Rows:
        return [((name,), found) for name, stream in streams.items() if (found := value(stream)) is not None]

    def is_up(stream: StreamTelemetry) -> float:
        return stream.status.state == UP

    def is_ready(stream: StreamTelemetry) -> float:
        return not why_not_ready(stream, frame.recent_ns, now_ns)

    def age_s(stream: StreamTelemetry) -> float | None:
        sent_ns = stream.counters.sent_ns
        return None if sent_ns is None else _s(now_ns - sent_ns)

    by = ("stream",)
    yield _gauge("perceiverd_stream_up", "1 while all sources of the stream deliver.", by, each(is_up))
    yield _gauge("perceiverd_stream_ready", "1 while the stream gives labels, or has ended.", by, each(is_ready))
    yield _gauge("perceiverd_window_age_seconds", "Seconds since scores were last sent.", by, each(age_s))
    yield _counter("perceiverd_windows_tagged", "Windows tagged and sent.", by, each(lambda s: s.status.windows))
    yield _counter(
        "perceiverd_windows_dropped", "Windows dropped for newer ones.", by, each(lambda s: s.status.dropped)
    )
    yield _counter("perceiverd_media_late", "Frames and chunks ignored as too old.", by, each(lambda s: s.status.late))
    yield _counter("perceiverd_gaps", "Gaps in the stream's media.", by, each(lambda s: s.status.gaps))
    yield from _of_holes(streams)
    yield _histogram(
        "perceiverd_latency_seconds",
        "Seconds from the capture of a window's end to the publishing of its scores.",
        *(by, [((name,), stream.counters.latency) for name, stream in streams.items()]),
    )
    yield _gauge(
        "perceiverd_sound_level_dbfs",
        "Level (root mean square) of the last window's audio, dB of full scale; absent if it had none.",
        *(by, each(lambda stream: stream.status.level_dbfs)),
    )
    yield from _of_events(streams)
    yield _counter(
        "perceiverd_recent_sound_seconds",
        "Seconds of recent sound, by what became of it.",
        ("stream", "outcome"),
        [
            ((name, outcome), stream.status.recent_s.get(outcome, 0))
            for name, stream in streams.items()
            for outcome in RECENT_OUTCOMES
        ],
    )
    yield _gauge(
        "perceiverd_hop_seconds",
        "Mean time between recent tagged windows; longer than the hop if windows were dropped.",
        *(by, each(lambda stream: stream.status.hop_s)),
    )
    yield _gauge(
        "perceiverd_skew_seconds",
        "How much later the last window's frames were captured than its audio, on average; absent if one is missing.",
        *(by, each(lambda stream: _of_ms(stream.status.skew_ms))),
    )
    yield _gauge(
        "perceiverd_skew_most_seconds",
        "The same at the model's tick where it is furthest from 0.",
        *(by, each(lambda stream: _of_ms(stream.status.skew_most_ms))),
    )


def _of_holes(streams: Mapping[str, StreamTelemetry]) -> Iterator[Metric]:
    statuses = {name: stream.status for name, stream in streams.items()}
    yield _counter(
        "perceiverd_media_filled_seconds",
        "Seconds of media that were missing and were filled.",
        ("stream", "modality"),
        [((name, what), each.filled_s.get(what, 0)) for name, each in statuses.items() for what in MODALITIES],
    )
    yield _counter(
        "perceiverd_windows_incomplete",
        "Windows without a modality, by the reason.",
        ("stream", "modality", "reason"),
        [
            ((name, what, reason), each.missing.get(what, {}).get(reason, 0))
            for name, each in statuses.items()
            for what in MODALITIES
            for reason in LIVE_REASONS
        ],
    )


def _of_events(streams: Mapping[str, StreamTelemetry]) -> Iterator[Metric]:
    counters = {name: stream.counters for name, stream in streams.items()}
    yield _gauge(
        "perceiverd_events_open",
        "Events that are open.",
        *(("stream",), [((name,), each.events_open) for name, each in counters.items()]),
    )
    yield _counter(
        "perceiverd_events",
        "Events that began.",
        *(
            ("stream", "label"),
            [((name, label), n) for name, each in counters.items() for label, n in each.events.items()],
        ),
    )
    yield _counter(
        "perceiverd_events_suppressed",
        "How often a label had no event, or none of its own.",
        ("stream", "reason"),
        [((name, reason), n) for name, each in counters.items() for reason, n in each.suppressed.items()],
    )


def _of_sources(frame: TelemetryFrame, now_ns: int) -> Iterator[Metric]:
    sources = [
        ((name, str(position)), source)
        for name, stream in frame.streams.items()
        for position, source in enumerate(stream.status.sources)
    ]

    def each(value: Callable[[SourceStatus], float | None]) -> Rows:
        return [(place, found) for place, source in sources if (found := value(source)) is not None]

    def age_s(source: SourceStatus) -> float | None:
        return None if source.data_age_s is None else source.data_age_s + _s(now_ns - frame.at_ns)

    by = ("stream", "source")
    yield _gauge(
        "perceiverd_data_age_seconds", "Seconds since the source's last frame or chunk arrived.", by, each(age_s)
    )
    yield _counter(
        "perceiverd_media_dropped",
        "Frames and chunks dropped because the daemon was behind.",
        *(by, each(lambda source: source.dropped)),
    )
    yield _counter(
        "perceiverd_restarts",
        "How often the source was lost and restarted.",
        (*by, "reason"),
        [((*place, why), one.restarts.get(why, 0)) for place, one in sources for why in get_args(Reason)],
    )
    yield _gauge(
        "perceiverd_stalled",
        "1 while the video is frozen, or the audio dead, and counts as missing.",
        (*by, "what"),
        [((*place, what), float(what in one.stalls)) for place, one in sources for what in (FROZEN, DEAD)],
    )
    yield _gauge(
        "perceiverd_clock_drift_ppm",
        "How fast the device's clock runs, in millionths; negative if it is slow.",
        *(by, each(lambda source: source.drift_ppm)),
    )
    yield _gauge(
        "perceiverd_clock_jitter_seconds",
        "How late the device's readings arrive on average.",
        *(by, each(lambda source: _of_ms(source.jitter_ms))),
    )
    yield _counter(
        "perceiverd_clock_steps",
        "Steps of the device's clock, and overflows; each is a gap.",
        *(by, each(lambda source: source.steps)),
    )
    yield _counter(
        "perceiverd_snapshots_failed",
        "Snapshots, and files of recent sound, that could not be written.",
        *(by, each(lambda source: source.snapshots_failed)),
    )
    yield _counter(
        "perceiverd_sound_overflows",
        "How often audio was lost because this machine was too slow to read it.",
        *(by, each(lambda source: source.overflows)),
    )


def _gauge(name: str, what: str, by: Sequence[str], rows: Rows) -> Metric:
    family = GaugeMetricFamily(name, what, labels=by)
    for labels, value in rows:
        family.add_metric(labels, value)
    return family


def _counter(name: str, what: str, by: Sequence[str], rows: Rows) -> Metric:
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


def _of_ms(ms: float | None) -> float | None:
    """Milliseconds in seconds."""
    return None if ms is None else ms / 1000
