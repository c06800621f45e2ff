"""What a real daemon serves over HTTP, and that the dashboard, the alerts and the reference contain nothing else."""

import http.client
import json
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from perceiverd import __version__
from perceiverd.core.media import NS_PER_S
from perceiverd.daemon.metrics import pages
from perceiverd.daemon.telemetry import Telemetry
from tests.support.monitoring import (
    ALERTS,
    DASHBOARD,
    PROMTOOL,
    ROOT,
    alerts,
    check_expressions,
    check_firing,
    needs_promtool,
    panels,
)

REFERENCE = (ROOT / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8").partition("\n## The history\n")[0]
DEADLINE_S = 240
"""A busy machine takes minutes to load torch and to start the sources."""
pytestmark = pytest.mark.timeout(DEADLINE_S + 60)


@dataclass
class Served:
    """A daemon at work: `good` is a synthetic stream, `bad` has a file that is missing."""

    port: int
    process: "subprocess.Popen[str]"
    folder: Path

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def ready(self) -> tuple[int, Any]:
        status, body = self.get("/readyz")
        return status, json.loads(body)

    def values(self) -> dict[tuple[str, tuple[str, ...]], float]:
        """Each sample by its name and the values of its labels, in the order of their names."""
        return {
            (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in plain(self.get("/metrics")[1])
            for sample in family.samples
        }


@pytest.fixture(scope="module")
def served(start: Any, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The daemon of this module, once `good` has given windows."""
    folder = tmp_path_factory.mktemp("metrics")
    path, log = folder / "c.toml", folder / "log"
    path.write_text(f"""
        model = {{ name = "{tiny_model}", threads = 1 }}
        publish.endpoint = "ipc://labels"
        metrics.endpoint = "127.0.0.1:*"
        window.hop_s = 0.25
        events = {{ on = 0.01, min_duration_s = 0.0, allow = ["Dog"] }}
        streams.good.sources = [{{ kind = "synthetic" }}]
        streams.bad.sources = [{{ kind = "file", path = "missing.wav" }}]
    """)
    process = start("run", "--config", str(path), log=log)
    end_s = time.monotonic() + DEADLINE_S
    while not (found := re.search(r"metrics-listening .* port=(\d+)", log.read_text())):
        assert time.monotonic() < end_s and process.poll() is None, log.read_text()
        time.sleep(0.05)
    running = Served(int(found[1]), process, folder)
    assert running.get("/healthz")[0] == 200  # from the start
    status, answer = running.ready()  # 503 in any case: `bad` stays down
    assert status == 503 and (answer["why"] == "starting" if "why" in answer else not answer["ready"])
    awaited = [("perceiverd_windows_tagged_total", ("good",)), ("perceiverd_restarts_total", ("failed", "0", "bad"))]
    while (values := running.values()) and min(values.get(each, 0) for each in awaited) < 1:
        assert time.monotonic() < end_s and process.poll() is None, log.read_text()
        time.sleep(0.1)
    yield running
    assert process.poll() is None, log.read_text()


def test_metrics_have_the_values_of_the_daemon(served: Served) -> None:
    """Windows, latency, inference, level, restarts and events of two streams, one of which is down."""
    values = served.values()
    end_s = time.monotonic() + DEADLINE_S
    while min(values[f"perceiverd_stream_{name}", ("good",)] for name in ("up", "ready")) == 0:  # on a busy machine
        assert time.monotonic() < end_s, served.get("/readyz")
        time.sleep(0.1)
        values = served.values()
    assert values["perceiverd_stream_up", ("bad",)] == values["perceiverd_stream_ready", ("bad",)] == 0
    tagged = values["perceiverd_windows_tagged_total", ("good",)]
    assert values["perceiverd_latency_seconds_count", ("good",)] == tagged
    assert values["perceiverd_latency_seconds_bucket", ("+Inf", "good")] == tagged
    assert values["perceiverd_latency_seconds_sum", ("good",)] > 0
    assert values["perceiverd_inference_seconds_count", ()] == tagged  # a batch of one each
    assert -120 <= values["perceiverd_sound_level_dbfs", ("good",)] < 0
    assert ("perceiverd_sound_level_dbfs", ("bad",)) not in values
    assert values["perceiverd_data_age_seconds", ("0", "good")] >= 0
    assert values["perceiverd_restarts_total", ("failed", "0", "bad")] >= 1
    assert values["perceiverd_restarts_total", ("exited", "0", "bad")] == 0
    assert values["perceiverd_media_filled_seconds_total", ("audio", "good")] >= 0
    assert values["perceiverd_windows_incomplete_total", ("audio", "late", "good")] >= 0
    assert values["perceiverd_events_total", ("Dog", "good")] >= 1
    assert values["perceiverd_events_open", ("good",)] <= 1
    (info,) = [labels for name, labels in values if name == "perceiverd_info"]
    assert info[0] == "tiny" and info[2] == __version__


def test_readiness_names_the_stream_that_is_down(served: Served) -> None:
    """/readyz has the reason; the daemon as a whole is healthy."""
    status, answer = served.ready()
    assert (status, answer["ready"]) == (503, False)
    assert set(answer["streams"]) == {"good", "bad"}
    assert not answer["streams"]["bad"]["ready"]
    assert "missing.wav: there is no such file" in answer["streams"]["bad"]["why"]
    assert served.get("/healthz") == (200, '{"healthy":true,"state":"running"}\n')


def test_a_hanging_loop_is_visible() -> None:
    """The pages do not need the loop: the age of its last turn grows, and /healthz answers 503."""
    answers = pages(Telemetry(0), clock=lambda: 600 * NS_PER_S)
    assert b"\nperceiverd_turn_age_seconds 600.0\n" in answers["/metrics"]("").body
    assert answers["/healthz"]("").status == 503
    assert answers["/healthz"]("").body == b'{"healthy":false,"state":"starting","why":"starting for 600 s"}\n'


def test_openmetrics_is_served_on_request(served: Served) -> None:
    """A scraper that asks for OpenMetrics, the stricter format, gets it."""
    status, body = served.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert status == 200
    families = openmetrics(body)  # type: ignore[no-untyped-call]  # 0.26: the plain one has types
    assert "perceiverd_windows_tagged" in {family.name for family in families}


def families(served: Served) -> dict[str, Metric]:
    return {family.name: family for family in plain(served.get("/metrics")[1])}


def test_dashboard_and_alerts_use_existing_metrics(served: Served) -> None:
    """A real daemon exports each metric and label that the dashboard and the alerts use for it."""
    shown = [target["expr"] for panel in panels() for target in panel["targets"]]
    asked = [variable["definition"] for variable in DASHBOARD["templating"]["list"] if variable["type"] == "query"]
    check_expressions(families(served), [*shown, *asked, *alerts().values()])


def test_the_dashboard_is_consistent() -> None:
    """It has what Grafana needs: unique ids, panels that do not overlap, variables that exist."""
    assert DASHBOARD["uid"] and DASHBOARD["title"] and DASHBOARD["schemaVersion"] >= 36
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    for panel in DASHBOARD["panels"]:
        if panel["type"] == "row":
            continue
        assert panel["targets"] and {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(DASHBOARD)))
    assert used <= variables


def test_every_metric_is_documented_and_shown(served: Served) -> None:
    """The reference lists exactly the exported metrics with their labels; dashboard or alerts use all of them."""
    rows = dict(re.findall(r"^\| `((?:perceiverd|process)_\w+)` \|([^|]*)\|", REFERENCE, re.MULTILINE))
    ends = {"counter": "_total"}
    found = families(served)
    exported_labels = {
        name + ends.get(family.type, ""): {label for s in family.samples for label in s.labels} - {"le"}
        for name, family in found.items()
    }
    assert set(rows) == set(exported_labels)
    for name, labels in exported_labels.items():
        if labels:
            assert set(re.findall(r"`(\w+)`", rows[name])) == labels, name
    text = json.dumps(DASHBOARD) + ALERTS.read_text(encoding="utf-8")
    assert {name for name in rows if name not in text} <= {"process_virtual_memory_bytes", "process_start_time_seconds"}


@needs_promtool
def test_promtool_finds_no_fault(served: Served, tmp_path: Path) -> None:
    """Promtool accepts the page, the alerts, and the dashboard's expressions as rules."""
    assert PROMTOOL
    checked = subprocess.run([PROMTOOL, "check", "metrics"], input=served.get("/metrics")[1], text=True, check=True)
    assert checked.returncode == 0
    shown = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
    filled = [
        expr.replace("$__rate_interval", "1m").replace("$instance", ".*").replace("$stream", ".*") for expr in shown
    ]
    rules = [{"record": f"panel:{i}", "expr": expr} for i, expr in enumerate(filled)]
    (tmp_path / "panels.yml").write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    subprocess.run([PROMTOOL, "check", "rules", ALERTS, tmp_path / "panels.yml"], check=True)


@needs_promtool
def test_alerts_fire_when_they_should(tmp_path: Path) -> None:
    """Over 40 minutes of invented metrics each alert fires for what is wrong, and not for what is well."""
    series = {
        'up{job="perceiverd", instance="a"}': "0x40",
        'up{job="perceiverd", instance="b"}': "1x40",
        'perceiverd_turn_age_seconds{instance="a"}': "0+60x40",
        'perceiverd_turn_age_seconds{instance="b"}': "0.1x40",
        'perceiverd_stream_ready{stream="door"}': "1 0x40",
        'perceiverd_stream_ready{stream="gate"}': "1x40",
        'perceiverd_restarts_total{stream="door", source="0", reason="stalled"}': "0+1x40",
        'perceiverd_restarts_total{stream="gate", source="0", reason="stalled"}': "3x40",
        'perceiverd_windows_dropped_total{stream="door"}': "0+30x40",
        'perceiverd_windows_tagged_total{stream="door"}': "0+90x40",
        'perceiverd_windows_dropped_total{stream="gate"}': "0+1x40",
        'perceiverd_windows_tagged_total{stream="gate"}': "0+119x40",
        'perceiverd_latency_seconds_bucket{stream="door", le="5.0"}': "0+60x40",
        'perceiverd_latency_seconds_bucket{stream="door", le="10.0"}': "0+120x40",
        'perceiverd_latency_seconds_bucket{stream="door", le="+Inf"}': "0+120x40",
        'perceiverd_latency_seconds_bucket{stream="gate", le="5.0"}': "0+120x40",
        'perceiverd_latency_seconds_bucket{stream="gate", le="10.0"}': "0+120x40",
        'perceiverd_latency_seconds_bucket{stream="gate", le="+Inf"}': "0+120x40",
        'perceiverd_sound_level_dbfs{stream="door"}': "-120x40",
        'perceiverd_sound_level_dbfs{stream="gate"}': "-120x20 -40 -120x19",
        'perceiverd_stalled{stream="door", source="0", what="dead silence"}': "0 1x40",
        'perceiverd_stalled{stream="gate", source="0", what="dead silence"}': "0x20 1x5 0x20",
        'perceiverd_stalled{stream="door", source="0", what="frozen picture"}': "0 1x40",
        'perceiverd_stalled{stream="gate", source="0", what="frozen picture"}': "0x20 1x2 0x20",
        'perceiverd_skew_seconds{stream="door"}': "-0.06x40",
        'perceiverd_skew_seconds{stream="gate"}': "0.02x20 -0.5 0.02x20",
        'perceiverd_clock_steps_total{stream="door", source="0"}': "0+1x40",
        'perceiverd_clock_steps_total{stream="gate", source="0"}': "2x40",
        'perceiverd_messages_missed_total{instance="a"}': "0+3x40",
        'perceiverd_messages_missed_total{instance="b"}': "7x40",
    }
    about = {
        "PerceiverdDown": 'instance="a"',
        "PerceiverdStuck": 'instance="a"',
        "PerceiverdStreamSilent": 'stream="door"',
        "PerceiverdSourceRestarts": 'stream="door"',
        "PerceiverdDropsWindows": 'stream="door"',
        "PerceiverdLate": 'stream="door"',
        "PerceiverdMicrophoneMute": 'stream="door"',
        "PerceiverdSoundDead": 'stream="door"',
        "PerceiverdPictureFrozen": 'stream="door"',
        "PerceiverdSkew": 'stream="door"',
        "PerceiverdClockSteps": 'stream="door"',
        "PerceiverdMessagesMissed": 'instance="a"',
    }
    assert set(about) == set(alerts())
    check_firing(tmp_path, series, about)
