"""Charts as SVG, without another library: for a model card, readable on white and on black pages, and for our pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

SIDE = 300
LEFT, TOP, RIGHT, BOTTOM = 56, 54, 20, 62
HEIGHT = TOP + SIDE + BOTTOM


@dataclass(frozen=True)
class Palette:
    """Colours as SVG takes them."""

    ink: str
    faint: str
    grid: str
    paper: str
    """Behind everything, and inside hollow dots."""
    rows: tuple[str, ...]
    """Of the first, second ... row."""


CARD = Palette("#24292f", "#57606a", "#d0d7de", "#ffffff", ("#9a6700", "#0969da"))
PAGE = Palette("var(--ink)", "var(--faint)", "var(--grid)", "var(--paper)", ("var(--first)", "var(--second)"))
"""The colours of an HTML page that sets these variables, for light and dark."""


@dataclass(frozen=True)
class Dot:
    """A measured share with its interval."""

    x: float
    """0..1"""
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Panel:
    """One diagram: rows of dots, compared with the diagonal."""

    title: str
    rows: Sequence[tuple[str, Sequence[Dot]]]
    """Name and dots of each row. The first row is hollow and lies below the others."""


def diagonal(panels: Sequence[Panel], x: str, y: str, palette: Palette = CARD) -> str:
    """Panels side by side. Both axes are 0..1; ideal dots lie on the diagonal. `x`, `y`: titles of the axes."""
    width = len(panels) * (LEFT + SIDE + RIGHT)
    size = f'width="{width}" height="{HEIGHT}"'
    font = 'font-family="system-ui, Helvetica, Arial, sans-serif" font-size="12"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" {size} {font}>',
        f'<rect {size} rx="6" fill="{palette.paper}"/>',
    ]
    for number, panel in enumerate(panels):
        lines.append(f'<g transform="translate({number * (LEFT + SIDE + RIGHT) + LEFT} {TOP})">')
        lines += _axes(panel.title, x, y if number == 0 else "", palette)
        for place, (name, dots) in enumerate(panel.rows):
            hollow = place == 0 and len(panel.rows) > 1
            lines += _dots(dots, palette.rows[place], palette.paper, hollow=hollow)
            lines += _key(name, place, palette, hollow=hollow)
        lines.append("</g>")
    return "\n".join([*lines, "</svg>", ""])


def _axes(title: str, x: str, y: str, palette: Palette) -> Iterator[str]:
    yield f'<text x="0" y="-34" font-size="14" font-weight="600" fill="{palette.ink}">{escape(title)}</text>'
    for tenth in range(0, 11, 2):
        at = SIDE * tenth / 10
        yield f'<path d="M{at:g} 0V{SIDE}M0 {at:g}H{SIDE}" stroke="{palette.grid}" stroke-width="1" fill="none"/>'
        yield f'<text x="{at:g}" y="{SIDE + 18}" text-anchor="middle" fill="{palette.faint}">{tenth / 10:g}</text>'
        yield f'<text x="-8" y="{SIDE - at + 4:g}" text-anchor="end" fill="{palette.faint}">{tenth / 10:g}</text>'
    yield f'<path d="M0 {SIDE}L{SIDE} 0" stroke="{palette.faint}" stroke-width="1" stroke-dasharray="4 4"/>'
    yield f'<text x="{SIDE / 2:g}" y="{SIDE + 42}" text-anchor="middle" fill="{palette.ink}">{escape(x)}</text>'
    if y:
        middle = SIDE / 2
        yield (
            f'<text x="-38" y="{middle:g}" text-anchor="middle" fill="{palette.ink}"'
            f' transform="rotate(-90 -38 {middle:g})">{escape(y)}</text>'
        )


def _dots(dots: Sequence[Dot], colour: str, paper: str, *, hollow: bool) -> Iterator[str]:
    points = [(SIDE * dot.x, SIDE * (1 - dot.y)) for dot in dots]
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    yield f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.5" stroke-opacity="0.6"/>'
    for dot, (x, y) in zip(dots, points, strict=True):
        if not hollow:
            low, high = SIDE * (1 - dot.low), SIDE * (1 - dot.high)
            yield f'<path d="M{x:.1f} {low:.1f}V{high:.1f}" stroke="{colour}" stroke-width="1.5"/>'
        fill = paper if hollow else colour
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{fill}" stroke="{colour}" stroke-width="1.5"/>'


def _key(name: str, place: int, palette: Palette, *, hollow: bool) -> Iterator[str]:
    colour = palette.rows[place]
    x, fill = place * SIDE / 2, palette.paper if hollow else colour
    yield f'<circle cx="{x + 5:g}" cy="-15" r="3.5" fill="{fill}" stroke="{colour}" stroke-width="1.5"/>'
    yield f'<text x="{x + 14:g}" y="-11" fill="{palette.ink}">{escape(name)}</text>'
