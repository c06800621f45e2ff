"""Plots of an evaluation's page, as SVG in the page's own colours: points with intervals, steps, and rows of intervals.

Plain values in, text out. Each plot has a title and a description for screen readers; the page has its numbers as
tables too. The first series has circles and the second one squares, so that colour is not the only difference.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from perceiverd.evaluation.charts import PAGE
from perceiverd.evaluation.metrics import Interval

WIDTH, HEIGHT = 420, 300
LEFT, TOP, RIGHT, BOTTOM = 64, 34, 24, 54
ROW, NAME_WIDTH, ROW_WIDTH = 22, 190, 420
FONT = 'font-family="inherit" font-size="12"'


@dataclass(frozen=True)
class PlotPoint:
    """A point with intervals."""

    x: Interval
    y: Interval
    name: str = ""
    """Beside the point."""


@dataclass(frozen=True)
class Series:
    """Points, or the corners of a step line."""

    name: str
    points: Sequence[PlotPoint] = ()
    steps: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class NamedIntervals:
    """A row of a plot: one interval for each series; None if a series lacks it."""

    name: str
    values: Sequence[Interval | None]


def nice_ticks(most: float) -> list[float]:
    """Ticks from 0 to at least `most`, in steps of 1, 2 or 5 times a power of ten; six of them at most."""
    if not math.isfinite(most) or most <= 0:
        return [0.0, 1.0]
    power = 10.0 ** math.floor(math.log10(most))
    step = next(size * power / 10 for size in (1, 2, 5, 10, 20, 50) if most <= 5 * size * power / 10 * 1.0001)
    return [step * number for number in range(math.ceil(most / step - 1e-9) + 1)]


def xy_plot(title: str, description: str, x: str, y: str, series: Sequence[Series]) -> str:
    """A plot from 0 on both axes; the vertical one ends at 1. `x` and `y` are the axes' titles."""
    xs = [value for one in series for point in one.points for value in (point.x.value, point.x.high)]
    xs += [place for one in series for place, _ in one.steps]
    ticks = nice_ticks(max((value for value in xs if math.isfinite(value)), default=0))
    lines = [*_axes(ticks, x, y)]
    for number, one in enumerate(series):
        lines += _steps(one, number, ticks[-1])
        lines += (line for point in one.points for line in _point(point, number, ticks[-1]))
    if len(series) > 1:
        lines += (line for number, one in enumerate(series) for line in _key(one.name, number, number * 170))
    return _svg(title, description, LEFT + WIDTH + RIGHT, TOP + HEIGHT + BOTTOM, lines)


def interval_plot(title: str, description: str, x: str, names: Sequence[str], rows: Sequence[NamedIntervals]) -> str:
    """One row of intervals for each name, from 0 to 1. `names`: of the series."""
    bottom = TOP + ROW * len(rows)
    lines = []
    for tenth in range(0, 11, 2):
        at = NAME_WIDTH + ROW_WIDTH * tenth / 10
        lines.append(f'<path d="M{at:g} {TOP}V{bottom}" stroke="{PAGE.grid}" fill="none"/>')
        lines.append(_text(at, bottom + 16, f"{tenth / 10:g}", "middle", PAGE.faint))
    for number, row in enumerate(rows):
        middle = TOP + ROW * (number + 0.5)
        lines.append(_text(NAME_WIDTH - 10, middle + 4, _short(row.name), "end", PAGE.ink))
        for place, value in enumerate(row.values):
            if value and math.isfinite(value.value):
                y = middle + (place - (len(row.values) - 1) / 2) * 8
                left, right = (NAME_WIDTH + ROW_WIDTH * _clip(end) for end in (value.low, value.high))
                colour = PAGE.rows[place]
                lines.append(
                    f'<path d="M{left:.1f} {y:g}H{right:.1f}" stroke="{colour}" stroke-width="2" fill="none"/>'
                )
                lines.append(_mark(NAME_WIDTH + ROW_WIDTH * value.value, y, place))
    if len(names) > 1:
        lines += (
            line for number, name in enumerate(names) for line in _key(name, number, NAME_WIDTH - LEFT + number * 170)
        )
    lines.append(_text(NAME_WIDTH + ROW_WIDTH / 2, bottom + 38, x, "middle", PAGE.ink))
    return _svg(title, description, NAME_WIDTH + ROW_WIDTH + RIGHT, bottom + BOTTOM, lines)


def _svg(title: str, description: str, width: float, height: float, lines: Sequence[str]) -> str:
    size = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    said = quoteattr(f"{title}. {description}")
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label={said} {FONT}>'
    return "\n".join([opening, *lines, "</svg>"])


def _axes(ticks: Sequence[float], x: str, y: str) -> Iterator[str]:
    for tick in ticks:
        at = LEFT + WIDTH * tick / ticks[-1]
        yield f'<path d="M{at:.1f} {TOP}V{TOP + HEIGHT}" stroke="{PAGE.grid}" fill="none"/>'
        yield _text(at, TOP + HEIGHT + 16, f"{tick:g}", "middle", PAGE.faint)
    for fifth in range(6):
        at = TOP + HEIGHT * (1 - fifth / 5)
        yield f'<path d="M{LEFT} {at:g}H{LEFT + WIDTH}" stroke="{PAGE.grid}" fill="none"/>'
        yield _text(LEFT - 8, at + 4, f"{fifth / 5:g}", "end", PAGE.faint)
    yield _text(LEFT + WIDTH / 2, TOP + HEIGHT + 40, x, "middle", PAGE.ink)
    middle = TOP + HEIGHT / 2
    yield (
        f'<text x="18" y="{middle:g}" text-anchor="middle" fill="{PAGE.ink}"'
        f' transform="rotate(-90 18 {middle:g})">{escape(y)}</text>'
    )


def _point(point: PlotPoint, number: int, most: float) -> Iterator[str]:
    if not (math.isfinite(point.x.value) and math.isfinite(point.y.value)):
        return
    x, y = LEFT + WIDTH * point.x.value / most, TOP + HEIGHT * (1 - _clip(point.y.value))
    left, right = (LEFT + WIDTH * min(end / most, 1) for end in (point.x.low, point.x.high))
    low, high = (TOP + HEIGHT * (1 - _clip(end)) for end in (point.y.low, point.y.high))
    bars = f"M{left:.1f} {y:.1f}H{right:.1f}M{x:.1f} {low:.1f}V{high:.1f}"
    if all(math.isfinite(end) for end in (left, right, low, high)):
        yield f'<path d="{bars}" stroke="{PAGE.rows[number]}" stroke-width="1.5" fill="none" opacity="0.7"/>'
    yield _mark(x, y, number)
    yield _text(x + 7, y - 7 if number == 0 else y + 16, point.name, "start", PAGE.rows[number])


def _steps(one: Series, number: int, most: float) -> Iterator[str]:
    if not one.steps:
        return
    parts = []
    for place, (x, y) in enumerate(one.steps):
        at, up = LEFT + WIDTH * min(x / most, 1), TOP + HEIGHT * (1 - _clip(y))
        parts.append(f"M{at:.1f} {up:.1f}" if place == 0 else f"H{at:.1f}V{up:.1f}")
    dashes = ' stroke-dasharray="6 3"' if number else ""
    yield f'<path d="{"".join(parts)}" stroke="{PAGE.rows[number]}" stroke-width="2" fill="none"{dashes}/>'


def _key(name: str, number: int, at: float) -> Iterator[str]:
    yield _mark(LEFT + at + 5, 14, number)
    yield _text(LEFT + at + 14, 18, _short(name), "start", PAGE.ink)


def _mark(x: float, y: float, number: int) -> str:
    colour = PAGE.rows[number]
    if number:
        return f'<rect x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7" fill="{colour}"/>'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>'


def _text(x: float, y: float, text: str, anchor: str, colour: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'


def _short(name: str) -> str:
    return name if len(name) <= 26 else f"{name[:25]}…"


def _clip(value: float) -> float:
    return min(1.0, max(0.0, value)) if math.isfinite(value) else 0.0
