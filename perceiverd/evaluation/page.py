"""The result as one HTML page: it needs no other file and makes no request. Knows no model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from string import Template

from perceiverd.evaluation import reliability, text
from perceiverd.evaluation.charts import PAGE, Panel, diagonal
from perceiverd.evaluation.plots import NamedIntervals, PlotPoint, Series, interval_plot, xy_plot
from perceiverd.evaluation.results import ERRORS, LETTERS, MEASURES, EvaluationResult, LabelResult, ModelResult

TEMPLATE = Path(__file__).with_name("page.html")
MOST_ROWS = 40
"""The most labels in the plot; the table has all."""

Cell = str | tuple[str, float]
"""What a cell shows; and the number to sort it by."""


def page(result: EvaluationResult) -> str:
    """The whole page."""
    names = " and ".join(model.name for model in result.models)
    title = f"{names} on {Path(result.manifest).name}"
    body = "\n".join(
        [f"<h1>{escape(title)}</h1>", *_head(result), *_measures(result), *_plots(result), *_tables(result)]
    )
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(title=escape(title), body=body)


def _head(result: EvaluationResult) -> Iterator[str]:
    units = "windows" if result.truth == "events" else "clips"
    counts = " and ".join(str(count) for count in dict.fromkeys(result.units))
    yield (
        f"<p>{result.files} files of {result.recordings} recordings, {text.hours(result.hours)}, {counts} {units},"
        f" a window every {result.hop_s:g} s. Intervals are 95 %, from {result.rounds} draws of recordings."
        f" Rows of the manifest that were not measured: {len(result.failures)}.</p>"
    )
    yield f'<p class="faint">perceiverd {escape(result.version)}, {escape(result.manifest)} read as {result.truth}</p>'
    yield from (f"<p>{escape(note)}</p>" for note in result.notes)


def _named(models: Sequence[ModelResult]) -> list[str]:
    """The models' names, with their letters if there are two."""
    if len(models) == 1:
        return [models[0].name]
    return [f"{letter}: {model.name}" for letter, model in zip(LETTERS, models, strict=True)]


def _measures(result: EvaluationResult) -> Iterator[str]:
    paired = {each.measure: each.difference for each in result.differences if each.measure in MEASURES}
    heads = ["measure", "better is", *_named(result.models), *(["B minus A"] if paired else [])]
    rows = []
    for name, meaning in MEASURES.items():
        values = [model.measures.get(name) for model in result.models]
        if any(values):
            cells = [text.interval(value) if value else "-" for value in values]
            difference = [text.interval(paired[name]) if name in paired else "-"] if paired else []
            rows.append([meaning, "lower" if name in ERRORS else "higher", *cells, *difference])
    yield "<h2>Measures</h2>"
    yield from _table("Measures with their intervals", heads, rows)


def _plots(result: EvaluationResult) -> Iterator[str]:
    yield '<h2>Plots</h2><div class="plots">'
    models = result.models
    if any(model.alerts and model.alerts[0].true for model in models):
        yield _figure(
            "Events by threshold",
            xy_plot(
                "Events by threshold",
                "Share of events found against false alarms per hour, with intervals; a table below has the numbers.",
                "false alarms per hour",
                "share found",
                [Series(name, points=_alert_points(model)) for name, model in zip(_named(models), models, strict=True)],
            ),
        )
    if any(model.bins for model in models):
        yield _figure("Calibration", _reliability_plot(models))
    if any(model.psds_curves for model in models):
        yield _figure(
            "PSD-ROC, setting 1",
            xy_plot(
                "PSD-ROC, setting 1",
                "Share of events found, less its deviation over the labels, against false alarms per hour.",
                "false alarms per hour",
                "effective share found",
                [
                    Series(name, steps=model.psds_curves.get("psds1", ()))
                    for name, model in zip(_named(models), models, strict=True)
                ],
            ),
        )
    if rows := _label_intervals(models):
        yield _figure(
            f"Average precision of {len(rows)} labels"
            if len(rows) < MOST_ROWS
            else f"The {MOST_ROWS} most common labels",
            interval_plot(
                "Average precision by label",
                "With intervals; the table of labels has the numbers.",
                "average precision",
                _named(models),
                rows,
            ),
        )
    yield "</div>"


def _alert_points(model: ModelResult) -> list[PlotPoint]:
    return [
        PlotPoint(each.false_alarms_per_hour, each.found_share, text.threshold(each.threshold)) for each in model.alerts
    ]


def _reliability_plot(models: Sequence[ModelResult]) -> str:
    rows = [(name, reliability.dots(model.bins)) for name, model in zip(_named(models), models, strict=True)]
    svg = diagonal([Panel("", rows)], "mean score", "share with the label", PAGE)
    what = "Calibration. Share of windows or clips that have the label, by score; ideal dots lie on the diagonal."
    return svg.replace("<svg ", f'<svg role="img" aria-label="{what}" ', 1)


def _label_intervals(models: Sequence[ModelResult]) -> list[NamedIntervals]:
    """The labels of most recordings, the best of the first model first."""
    by_mid = [{label.mid: label for label in model.labels} for model in models]
    known = [label for label in models[0].labels if math.isfinite(label.average_precision.value)]
    common = sorted(known, key=lambda label: -label.recordings)[:MOST_ROWS]
    best = sorted(common, key=lambda label: -label.average_precision.value)
    return [
        NamedIntervals(label.name, [own[label.mid].average_precision if label.mid in own else None for own in by_mid])
        for label in best
    ]


def _tables(result: EvaluationResult) -> Iterator[str]:
    yield "<h2>Events by the daemon's rules</h2>"
    yield (
        "<p>“own” is each label's own threshold, from the model and the configuration. The time to alert reaches from"
        " the start of an event to the end of the window with which the daemon publishes it. Flips are beginnings and"
        " ends of events; those of raw scores are crossings of the threshold without smoothing.</p>"
    )
    for name, model in zip(_named(result.models), result.models, strict=True):
        yield from _alert_table(name, model)
    if result.differences and len(result.models) > 1:
        yield from _alert_differences(result)
    yield "<h2>Labels</h2>"
    yield '<label for="search">Show labels that contain</label><input id="search" type="search" autocomplete="off">'
    yield '<p id="shown" class="faint" role="status"></p>'
    yield from _labels(result)
    if result.unmeasured:
        yield f"<p>Not measured, because a model lacks them: {escape(', '.join(result.unmeasured))}</p>"
    if result.failures:
        yield f"<h2>Rows that were not measured</h2><p>{len(result.failures)} rows of the manifest:</p><ul>"
        yield from (f"<li>line {each.line}: {escape(each.error)}</li>" for each in result.failures)
        yield "</ul>"


def _alert_table(name: str, model: ModelResult) -> Iterator[str]:
    heads = [
        "threshold", "found", "of", "share found", "false alarms", "false alarms per hour",
        "time to alert: median s", "90 % within s", "flips per hour", "flips per hour of raw scores",
    ]  # fmt: skip
    rows = [
        [
            text.threshold(each.threshold),
            str(each.found),
            str(each.true),
            text.interval(each.found_share, 2),
            str(each.false_alarms),
            text.interval(each.false_alarms_per_hour, 2),
            text.interval(each.delay_median_s, 2),
            text.interval(each.delay_p90_s, 2),
            text.number(each.flips_per_hour, 1),
            text.number(each.raw_flips_per_hour, 1),
        ]
        for each in model.alerts
    ]
    yield from _table(f"Events of {name}", heads, rows)


def _alert_differences(result: EvaluationResult) -> Iterator[str]:
    by_key = {(each.measure, each.threshold): each.difference for each in result.differences}
    rows = [
        [
            text.threshold(each.threshold),
            text.interval(by_key["found_share", each.threshold], 2),
            text.interval(by_key["false_alarms_per_hour", each.threshold], 2),
        ]
        for each in result.models[0].alerts
    ]
    yield from _table("B minus A", ["threshold", "share found", "false alarms per hour"], rows)


def _labels(result: EvaluationResult) -> Iterator[str]:
    models = result.models
    prefixes = [f"{letter}: " for letter in LETTERS] if len(models) > 1 else [""]
    heads = ["label", "recordings"]
    for prefix in prefixes:
        heads += [f"{prefix}{what}" for what in ("average precision", "AUC", "d'", "PSDS 1", "found", "false alarms")]
    by_mid = [{label.mid: label for label in model.labels} for model in models]
    rows: list[list[Cell]] = []
    for mid in dict.fromkeys(label.mid for model in models for label in model.labels):
        own = [labels.get(mid) for labels in by_mid]
        known = next(label for label in own if label)
        cells = [cell for label in own for cell in _label_cells(label)]
        rows.append([known.name, (str(known.recordings), known.recordings), *cells])
    yield from _table("Labels; press a heading to sort", heads, rows, name="labels")


def _label_cells(label: LabelResult | None) -> Sequence[Cell]:
    if label is None:
        return [*[("-", math.nan)] * 4, *[("0", 0.0)] * 2]
    own = label.alerts[0]
    share = own.found / own.true if own.true else math.nan
    return [
        (text.interval(label.average_precision), label.average_precision.value),
        (text.number(label.auc.value), label.auc.value),
        (text.number(label.d_prime, 2), label.d_prime),
        (text.number(label.psds1), math.nan if label.psds1 is None else label.psds1),
        (f"{own.found} of {own.true}", share),
        (str(own.false_alarms), own.false_alarms),
    ]


def _figure(caption: str, svg: str) -> str:
    return f"<figure><figcaption>{escape(caption)}</figcaption>{svg}</figure>"


def _table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[Cell]], name: str = "") -> Iterator[str]:
    """A table in a frame that scrolls; with a name it can be sorted."""
    kind = f' id="{name}" class="sorts"' if name else ""
    yield f'<div class="wide" tabindex="0" role="region" aria-label="{escape(caption)}"><table{kind}>'
    yield f"<caption>{escape(caption)}</caption><thead><tr>"
    for head in heads:
        inner = f'<button type="button">{escape(head)}</button>' if name else escape(head)
        yield f'<th scope="col">{inner}</th>'
    yield "</tr></thead><tbody>"
    for row in rows:
        first, *others = row
        yield f'<tr><th scope="row">{escape(str(first))}</th>{"".join(map(_cell, others))}</tr>'
    yield "</tbody></table></div>"


def _cell(cell: Cell) -> str:
    if isinstance(cell, str):
        return f"<td>{escape(cell)}</td>"
    shown, value = cell
    sort = (
        ""
        if math.isnan(value)
        else ("1e308" if value == math.inf else "-1e308" if value == -math.inf else f"{value:.9g}")
    )
    return f'<td data-value="{sort}">{escape(shown)}</td>'
