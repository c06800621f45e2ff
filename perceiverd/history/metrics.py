"""What the history reports of itself: metrics for Prometheus, and a probe. The HTTP thread reads plain values."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from perceiverd.core.http import Page, Reply
from perceiverd.history.recording import DaemonRecorder

STUCK_S = 60.0
"""A loop that has not turned for this long is stuck."""


@dataclass(slots=True)
class ServiceCounts:
    """What the service has done, for metrics and for systemd."""

    written: int = 0
    """Operations carried out."""
    events: int = 0
    """Messages of events stored."""
    failures: int = 0
    """Transactions that failed."""
    refused: int = 0
    """Operations that SQLite refused for their content, and that were dropped."""
    lost: int = 0
    """Messages of events that could not be written and were dropped."""
    removed: int = 0
    """Events removed by the retention."""
    waiting: int = 0
    """Operations that wait to be written."""
    size_bytes: int = 0
    free_bytes: int = 0
    """Of the disk with the database."""
    turned_s: float = field(default_factory=time.monotonic)
    """When the loop last turned, on the monotonic clock."""
    failing: str = ""
    """Why nothing can be written; empty if it can."""


def pages(counts: ServiceCounts, daemons: Sequence[DaemonRecorder]) -> Mapping[str, Page]:
    """`/metrics`, `/healthz` and `/readyz`, by path. It is ready as soon as it runs."""
    registry = CollectorRegistry()
    registry.register(HistoryCollector(counts, daemons))
    ProcessCollector(registry=registry)

    def metrics(accept: str) -> Reply:
        encode, kind = choose_encoder(accept)
        return Reply(encode(registry), kind)

    def healthy(accept: str) -> Reply:
        if (age_s := time.monotonic() - counts.turned_s) > STUCK_S:
            return Reply(f"the loop is stuck since {age_s:.0f} s\n".encode(), status=HTTPStatus.SERVICE_UNAVAILABLE)
        if counts.failing:
            why = f"nothing is stored: {counts.failing}\n"
            return Reply(why.encode(), status=HTTPStatus.SERVICE_UNAVAILABLE)
        return Reply(b"ok\n")

    return {"/metrics": metrics, "/healthz": healthy, "/readyz": healthy}


class HistoryCollector(Collector):
    """Makes the metrics when Prometheus asks for them."""

    def __init__(self, counts: ServiceCounts, daemons: Sequence[DaemonRecorder]) -> None:
        self._counts, self._daemons = counts, daemons

    def collect(self) -> Iterator[Metric]:
        counts = self._counts
        for name, what, value in (
            ("events_stored", "Messages of events that were stored.", counts.events),
            ("events_lost", "Messages of events that were received and could not be stored.", counts.lost),
            ("events_removed", "Events removed because they were old, or the database too large.", counts.removed),
            ("rows_refused", "Rows that the database refused because of their content.", counts.refused),
            ("write_failures", "Transactions that failed; their content is tried again.", counts.failures),
        ):
            yield CounterMetricFamily(f"perceiverd_history_{name}", what, value)
        for name, what, size in (
            ("database_bytes", "Size of the database with its log.", float(counts.size_bytes)),
            ("disk_free_bytes", "What is free on the disk with the database.", float(counts.free_bytes)),
            (
                "rows_waiting",
                "Rows that wait to be written; the oldest are dropped beyond 20,000.",
                float(counts.waiting),
            ),
            ("turn_age_seconds", "Seconds since the loop last turned.", time.monotonic() - counts.turned_s),
            ("failing", "1 if nothing can be stored at present, otherwise 0.", float(bool(counts.failing))),
        ):
            yield GaugeMetricFamily(f"perceiverd_history_{name}", what, size)
        yield from self._of_daemons()

    def _of_daemons(self) -> Iterator[Metric]:
        up = GaugeMetricFamily(
            "perceiverd_history_daemon_up",
            "1 if messages are received from the daemon, otherwise 0.",
            labels=["machine"],
        )
        missed = CounterMetricFamily(
            "perceiverd_history_messages_missed", "Messages that were published and not received.", labels=["machine"]
        )
        offset = GaugeMetricFamily(
            "perceiverd_history_clock_offset_seconds",
            "How far the daemon's clock is ahead of ours.",
            labels=["machine"],
        )
        for daemon in self._daemons:
            up.add_metric([daemon.machine], float(not daemon.silent))
            missed.add_metric([daemon.machine], daemon.missed)
            if daemon.clock.offset_ms is not None:
                offset.add_metric([daemon.machine], daemon.clock.offset_ms / 1000)
        yield from (up, missed, offset)
