"""`metrics.md`: every metric that `/metrics` serves, from the collectors themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, get_args, get_origin, get_type_hints

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import Metric

from docs.generate.markdown import code, table
from perceiverd.daemon.metrics import TelemetryCollector
from perceiverd.daemon.telemetry import Distribution, Telemetry, TelemetryFrame
from perceiverd.history.metrics import HistoryCollector, ServiceCounts
from perceiverd.web.guard import RefusedRequests
from perceiverd.web.metrics import WebCollector
from perceiverd.web.service import api_of
from perceiverd.web.settings import WebConfig

OF_DAEMON, OF_STREAM, OF_SOURCE = "The daemon", "A stream", "A source"
SUFFIX = {"counter": "_total"}
"""What the page adds to the name of a family."""


def contents() -> dict[str, str]:
    """The parts of the page."""
    process = ProcessCollector(registry=CollectorRegistry()).collect()
    sections = (f"## {heading}\n\n{_table(found)}" for heading, found in by_subject().items())
    history = HistoryCollector(ServiceCounts(), ()).collect()
    web = WebCollector(api_of(WebConfig()), RefusedRequests()).collect()
    tables = {"process": _table(process), "history": _table(history), "web": _table(web)}
    return {"metrics": "\n\n".join(sections), **tables}


def by_subject() -> dict[str, list[Metric]]:
    """The families of a daemon without streams, by what they describe."""
    board = Telemetry(0)
    board.frame = blank(TelemetryFrame)
    found: dict[str, list[Metric]] = {OF_DAEMON: [], OF_STREAM: [], OF_SOURCE: []}
    for family in TelemetryCollector(board, lambda: 0).collect():
        labels = labels_of(family)
        found[OF_SOURCE if "source" in labels else OF_STREAM if "stream" in labels else OF_DAEMON].append(family)
    return found


def labels_of(family: Metric) -> tuple[str, ...]:
    """The names of a family's labels, which prometheus_client keeps even if there is no sample."""
    return tuple(getattr(family, "_labelnames", ()))


def blank(kind: Any) -> Any:
    """A value of this type that says nothing: zeros, empty text, empty tables. For dataclasses, field by field."""
    if kind is Distribution:
        return Distribution((), (0,), 0.0)
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{field.name: blank(hints[field.name]) for field in dataclasses.fields(kind)})  # type: ignore[operator]
    if type(None) in get_args(kind):
        return None
    origin = get_origin(kind) or kind
    return {} if origin is Mapping else origin()


def _table(families: Iterable[Metric]) -> str:
    return table(("metric", "labels", "type", "meaning"), map(_row, families))


def _row(family: Metric) -> tuple[str, str, str, str]:
    name = family.name + SUFFIX.get(family.type, "")
    return code(name), ", ".join(map(code, labels_of(family))), family.type, family.documentation
