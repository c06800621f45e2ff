"""The alerts and the dashboard that we ship, and Prometheus's own program that checks them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Metric

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "configs" / "prometheus" / "alerts.yml"
DASHBOARD = json.loads((ROOT / "configs" / "grafana" / "perceiverd.json").read_text(encoding="utf-8"))
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="needs promtool, of the Debian package prometheus")
ENDINGS = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}
OTHERS = ("perceiverd_history_", "perceiverd_web_")
"""How the metrics of programs begin that are not the daemon."""


def panels(program: str = "") -> Iterator[Any]:
    """The panels of a program, by how its metrics begin; empty for the daemon's."""
    for panel in DASHBOARD["panels"]:
        if panel["type"] != "row" and _is_of(program, " ".join(target["expr"] for target in panel["targets"])):
            yield panel


def alerts(program: str = "") -> dict[str, str]:
    """The expressions of a program's alerts, by name."""
    text = re.sub(r">-\n\s+(.*)\n\s+(.*)", r"\1 \2", ALERTS.read_text(encoding="utf-8"))
    found = dict(re.findall(r"alert: (\w+)\n +expr: (.*)$", text, re.MULTILINE))
    assert len(found) == text.count("alert:")
    return {name: expression for name, expression in found.items() if _is_of(program, expression)}


def check_expressions(families: Mapping[str, Metric], expressions: Iterable[str], program: str = "") -> None:
    """Every expression and legend uses metrics and labels that exist."""
    names = {"up"} | {name + end for name, family in families.items() for end in ENDINGS.get(family.type, [""])}
    labels = {label for family in families.values() for label in labels_of(family)}
    for expression in expressions:
        bare = re.sub(r'"[^"]*"', "", expression)
        used = set(re.findall(r"\b(?:perceiverd|process)_\w+|\bup\b", bare))
        others = {name for name in used if not program and name.startswith(OTHERS)}
        assert used and used - others <= names, expression
        named = set(re.findall(r"(\w+)=~?", bare)) | {
            word for by in re.findall(r"by \(([^)]*)\)", bare) for word in by.split(", ")
        }
        assert named <= labels | {"instance", "job"}, expression
    for panel in panels(program):
        for target in panel["targets"]:
            legend = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert legend <= labels | {"instance"}, panel["title"]


def labels_of(family: Metric) -> set[str]:
    """Also of a family without samples, whose labels prometheus_client keeps."""
    return {label for sample in family.samples for label in sample.labels} | {*getattr(family, "_labelnames", ())}


def check_shown(families: Mapping[str, Metric]) -> None:
    """The dashboard or the alerts use every one of these."""
    text = json.dumps(DASHBOARD) + ALERTS.read_text(encoding="utf-8")
    assert [name for name in families if name not in text] == []


def check_firing(folder: Path, series: Mapping[str, str], about: Mapping[str, str]) -> None:
    """After 39 minutes of these values each alert in `about` fires once, for what has these labels, and no other."""
    assert PROMTOOL
    at = [
        {
            "expr": f'count by (alertname) (ALERTS{{alertname="{name}", alertstate="firing"}})'
            f' == 1 and on (alertname) ALERTS{{alertname="{name}", alertstate="firing", {which}}}',
            "eval_time": "39m",
            "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1}],
        }
        for name, which in about.items()
    ]
    test = {
        "rule_files": [str(ALERTS)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": at,
            }
        ],
    }
    path = folder / "test.yml"
    path.write_text(json.dumps(test))
    done = subprocess.run([PROMTOOL, "test", "rules", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _is_of(program: str, expression: str) -> bool:
    job = program.removesuffix("_").replace("_", "-")
    if program:
        return program in expression or f'job="{job}"' in expression
    return not any(_is_of(other, expression) for other in OTHERS)
