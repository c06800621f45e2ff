"""The result as text for a terminal: measures, events by threshold, labels, and what was not measured."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from perceiverd.evaluation.metrics import Interval
from perceiverd.evaluation.results import LETTERS, MEASURES, AlertResult, EvaluationResult, LabelResult

MOST_FAILURES = 20
"""The most failures that are listed; the JSON file and the page list all."""

Row = Sequence[str]


def lines(result: EvaluationResult) -> Iterator[str]:
    """The whole text, line by line."""
    yield from _head(result)
    yield ""
    yield from table(_measure_rows(result))
    for number, model in enumerate(result.models):
        yield ""
        yield (
            f"Events by the daemon's rules, {model.name}" if len(result.models) > 1 else "Events by the daemon's rules"
        )
        yield from table(_alert_rows(model.alerts))
        if len(result.models) > 1 and number:
            yield ""
            yield "Events, B minus A"
            yield from table(_alert_difference_rows(result))
    yield ""
    yield from table(_label_rows(result))
    for note in result.notes:
        yield ""
        yield note
    if result.unmeasured:
        yield ""
        yield f"Not measured, because a model lacks them: {', '.join(result.unmeasured)}"
    if result.failures:
        yield ""
        yield from _failures(result)


def _head(result: EvaluationResult) -> Iterator[str]:
    units = "windows" if result.truth == "events" else "clips"
    true = "events" if result.truth == "events" else "labels of clips"
    counts = " and ".join(str(count) for count in dict.fromkeys(result.units))
    yield f"{result.manifest}, read as {result.truth}; window every {result.hop_s:g} s"
    yield (
        f"{result.files} files of {result.recordings} recordings, {hours(result.hours)}, {counts} {units},"
        f" {result.true_events} {true}; {len(result.failures)} rows not measured"
    )
    yield f"Intervals: 95 %, from {result.rounds} draws of recordings"
    if len(result.models) > 1:
        yield ", ".join(f"{letter} is {model.name}" for letter, model in zip(LETTERS, result.models, strict=True))


def hours(value: float) -> str:
    """A length of media, in a unit that suits it."""
    if value >= 1:
        return f"{value:.1f} h"
    return f"{value * 60:.1f} min" if value >= 1 / 60 else f"{value * 3600:.1f} s"


def number(value: float | None, places: int = 3) -> str:
    """A number with so many decimals; a dash if there is none."""
    if value is None or math.isnan(value):
        return "-"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{value + 0.0:.{places}f}"


def interval(value: Interval, places: int = 3) -> str:
    """`value [low, high]`; a dash if there is no value."""
    if math.isnan(value.value):
        return "-"
    return f"{number(value.value, places)} [{number(value.low, places)}, {number(value.high, places)}]"


def threshold(value: float | None) -> str:
    """What a threshold is called in tables."""
    return "own" if value is None else f"{value:g}"


def _measure_rows(result: EvaluationResult) -> Iterator[Row]:
    paired = {each.measure: each.difference for each in result.differences if each.measure in MEASURES}
    names = LETTERS if len(result.models) > 1 else [result.models[0].name]
    yield ["measure", *names, *(["B minus A"] if paired else [])]
    for name, meaning in MEASURES.items():
        values = [model.measures.get(name) for model in result.models]
        if any(values):
            cells = [interval(value) if value else "-" for value in values]
            yield [meaning, *cells, *([interval(paired[name]) if name in paired else "-"] if paired else [])]


def _alert_rows(alerts: Sequence[AlertResult]) -> Iterator[Row]:
    yield (
        "threshold", "found", "share found", "false alarms", "per hour", "time to alert: median s", "90 % within s",
        "flips per hour", "of raw scores",
    )  # fmt: skip
    for each in alerts:
        yield (
            threshold(each.threshold),
            f"{each.found} of {each.true}",
            interval(each.found_share, 2),
            str(each.false_alarms),
            interval(each.false_alarms_per_hour, 2),
            interval(each.delay_median_s, 2),
            interval(each.delay_p90_s, 2),
            number(each.flips_per_hour, 1),
            number(each.raw_flips_per_hour, 1),
        )


def _alert_difference_rows(result: EvaluationResult) -> Iterator[Row]:
    yield "threshold", "share found", "false alarms per hour"
    by_key = {(each.measure, each.threshold): each.difference for each in result.differences}
    for each in result.models[0].alerts:
        found, false = (by_key[name, each.threshold] for name in ("found_share", "false_alarms_per_hour"))
        yield threshold(each.threshold), interval(found, 2), interval(false, 2)


def _label_rows(result: EvaluationResult) -> Iterator[Row]:
    """Labels, the best average precision of the first model first."""
    prefixes = [f"{letter}: " for letter in LETTERS] if len(result.models) > 1 else [""]
    measured = [f"{prefix}{what}" for prefix in prefixes for what in ("average precision", "AUC", "d'", "false alarms")]
    yield ["label", "recordings", *measured]
    by_mid = [{label.mid: label for label in model.labels} for model in result.models]
    mids = dict.fromkeys(label.mid for model in result.models for label in model.labels)

    def order(mid: str) -> tuple[bool, float, str]:
        label = by_mid[0].get(mid)
        value = label.average_precision.value if label else math.nan
        return math.isnan(value), -value if not math.isnan(value) else 0.0, mid

    for mid in sorted(mids, key=order):
        own = [labels.get(mid) for labels in by_mid]
        known = next(label for label in own if label)
        yield [known.name, str(known.recordings), *(cell for label in own for cell in _label_cells(label))]


def _label_cells(label: LabelResult | None) -> Row:
    if label is None:
        return "-", "-", "-", "0"
    false = str(label.alerts[0].false_alarms)
    return interval(label.average_precision), number(label.auc.value), number(label.d_prime, 2), false


def _failures(result: EvaluationResult) -> Iterator[str]:
    yield f"Not measured: {len(result.failures)} rows"
    for each in result.failures[:MOST_FAILURES]:
        yield f"  line {each.line}: {each.error}"
    if len(result.failures) > MOST_FAILURES:
        yield f"  and {len(result.failures) - MOST_FAILURES} more; --json lists all"


def table(rows: Iterator[Row]) -> Iterator[str]:
    """Rows in columns: the first one on the left, the others on the right; a line below the heading."""
    cells = [list(row) for row in rows]
    widths = [max(len(row[at]) for row in cells) for at in range(len(cells[0]))]
    for place, row in enumerate(cells):
        padded = [
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(padded).rstrip()
        if place == 0:
            yield "  ".join("-" * width for width in widths)
