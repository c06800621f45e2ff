"""What the page reports of itself: metrics for Prometheus, and a probe. The HTTP thread reads plain values."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from http import HTTPStatus

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from perceiverd.core.http import Page, Reply
from perceiverd.web.api import Api
from perceiverd.web.connections import BoundedProtocol
from perceiverd.web.guard import RefusedRequests

STUCK_S = 15.0
"""A loop that has not turned for this long is stuck."""


def pages(api: Api, refused: RefusedRequests) -> Mapping[str, Page]:
    """`/metrics`, `/healthz` and `/readyz`, by path. It is ready as soon as it runs."""
    registry = CollectorRegistry()
    registry.register(WebCollector(api, refused))
    ProcessCollector(registry=registry)

    def metrics(accept: str) -> Reply:
        encode, kind = choose_encoder(accept)
        return Reply(encode(registry), kind)

    def healthy(accept: str) -> Reply:
        if (age_s := time.monotonic() - api.watcher.ticked_s) > STUCK_S:
            return Reply(f"the loop is stuck since {age_s:.0f} s\n".encode(), status=HTTPStatus.SERVICE_UNAVAILABLE)
        return Reply(b"ok\n")

    return {"/metrics": metrics, "/healthz": healthy, "/readyz": healthy}


class WebCollector(Collector):
    """Makes the metrics when Prometheus asks for them."""

    def __init__(self, api: Api, refused: RefusedRequests) -> None:
        self._api, self._refused = api, refused

    def collect(self) -> Iterator[Metric]:
        api, feed = self._api, self._api.watcher.feed
        for name, what, value in (
            ("questions", "Questions to the history.", api.pool.asked),
            ("questions_refused", "Questions that were refused because too many waited.", api.pool.refused),
            ("followers_refused", "Browsers that could not follow because there were too many.", feed.refused),
            ("events_dropped", "Events that were not sent to a browser because it was too slow.", feed.dropped),
            ("clips_converted", "Clips that were made playable for browsers.", api.converter.converted),
            ("clips_failed", "Clips that could not be made playable.", api.converter.failed),
            ("passwords_wrong", "Attempts to sign in with a wrong password.", api.wrong_passwords),
            ("logins_limited", "Attempts to sign in that came too soon.", api.logins.refused),
            (
                "connections_refused",
                "Connections that were closed because there were too many.",
                BoundedProtocol.refused,
            ),
            ("connections_cut", "Connections that were cut because the browser was too slow.", BoundedProtocol.slow),
        ):
            yield CounterMetricFamily(f"perceiverd_web_{name}", what, value)
        for name, what, size in (
            ("followers", "Browsers that follow live.", len(feed.followers)),
            ("sessions", "Browsers that are signed in.", len(api.sessions)),
            ("questions_waiting", "Questions to the history that wait or run.", api.pool.waiting),
            ("turn_age_seconds", "Seconds since the loop last turned.", time.monotonic() - api.watcher.ticked_s),
        ):
            yield GaugeMetricFamily(f"perceiverd_web_{name}", what, size)
        refused = CounterMetricFamily(
            "perceiverd_web_requests_refused", "Requests that were refused before a handler.", labels=["reason"]
        )
        for reason, count in dict(self._refused.counts).items():
            refused.add_metric([reason], count)
        up = GaugeMetricFamily(
            "perceiverd_web_daemon_up", "1 if messages are received from the daemon, otherwise 0.", labels=["machine"]
        )
        missed = CounterMetricFamily(
            "perceiverd_web_messages_missed", "Messages that were published and not received.", labels=["machine"]
        )
        for machine in api.watcher.machines.values():
            up.add_metric([machine.name], float(not machine.silent))
            missed.add_metric([machine.name], machine.missed)
        yield from (refused, up, missed)
