"""The page and the text of a result: complete, escaped, and without any request."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest

from perceiverd.evaluation import text
from perceiverd.evaluation.metrics import Interval
from perceiverd.evaluation.page import page
from perceiverd.evaluation.plots import NamedIntervals, PlotPoint, Series, interval_plot, nice_ticks, xy_plot
from tests.support.evaluations import interval, result

NONE = Interval(math.nan, math.nan, math.nan)
SVG = "{http://www.w3.org/2000/svg}"


class Tags(HTMLParser):
    """The tags of a page that are open at its end, and all addresses that it names."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "link", "input"):
            self.open.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("names", [("one",), ("one", "two")])
def test_the_page_is_whole_and_asks_for_nothing(names: tuple[str, ...]) -> None:
    """Every tag is closed, no address is named, each plot is described, and labels and failures are shown escaped."""
    shown = page(result(*names))
    tags = Tags()
    tags.feed(shown)
    assert tags.open == [] and tags.addresses == ["data:,"]
    assert "http" not in shown.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")
    assert shown.count('<svg role="img"') + shown.count('" role="img" aria-label="') == 4
    assert "Dog &lt;&amp;&gt;" in shown and "Dog <&>" not in shown and "clips&lt;1&gt;.csv" in shown
    assert "line 3: gone.wav: no such file" in shown and "user/bell" in shown and "A note." in shown
    for svg in re.findall(r"<svg.*?</svg>", shown, re.DOTALL):
        ElementTree.fromstring(svg)


def test_two_models_stand_side_by_side() -> None:
    """Both have their columns, named by letters, and the difference has one."""
    shown, lines = page(result("one", "two")), list(text.lines(result("one", "two")))
    assert "B minus A" in shown and "A: one" in shown and "B: two" in shown
    assert "A is one, B is two" in lines
    heading = next(line for line in lines if line.startswith("measure"))
    assert heading.split() == ["measure", "A", "B", "B", "minus", "A"]
    row = next(line for line in lines if line.startswith("mean average precision"))
    assert row.endswith("0.250 [0.150, 0.350]")


def test_the_text_has_every_part() -> None:
    """Head, measures, events, labels with their measures, notes and failures are there; a missing value is a dash."""
    shown = "\n".join(text.lines(result("one")))
    assert "7 files of 7 recordings, 30.0 min, 22 windows, 4 events; 1 rows not measured" in shown
    assert re.search(r"^own +3 of 4 +0\.75 \[0\.65, 0\.85\] +2 +1\.50", shown, re.MULTILINE)
    assert re.search(r"^Speech +3 +0\.900 \[0\.800, 1\.000\] +1\.000 +∞ +2$", shown, re.MULTILINE)
    assert shown.index("Speech") < shown.index("Dog <&>")
    assert "  line 3: gone.wav: no such file" in shown
    assert (text.number(None), text.interval(NONE), text.hours(2.5), text.hours(0.001)) == ("-", "-", "2.5 h", "3.6 s")


def test_json_has_null_for_what_is_no_number() -> None:
    """Infinity and NaN are null, so that every JSON parser reads the file."""
    found = json.loads(result("one").json())
    assert found["schema"] == 1 and found["models"][0]["labels"][1]["d_prime"] is None
    assert found["models"][0]["measures"]["mAP"] == {"value": 0.7, "low": 0.7 - 0.1, "high": 0.7 + 0.1}


@pytest.mark.parametrize(
    ("most", "ticks"),
    [
        (0, [0, 1]),
        (1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (7, [0, 2, 4, 6, 8]),
        (41, [0, 10, 20, 30, 40, 50]),
        (math.nan, [0, 1]),
    ],
)
def test_ticks_are_round_numbers(most: float, ticks: list[float]) -> None:
    """Ticks reach the largest value in at most five steps of 1, 2 or 5 times a power of ten."""
    assert nice_ticks(most) == pytest.approx(ticks)


def test_points_and_rows_are_placed_by_their_values() -> None:
    """X grows to the right and y upwards; a missing point or interval is left out."""
    point = PlotPoint(Interval(5, 4, 6), Interval(1, 0.9, 1), "a<b")
    root = ElementTree.fromstring(xy_plot("t", "d", "x", "y", [Series("s", [point, PlotPoint(NONE, NONE)])]))
    (circle,) = root.iter(f"{SVG}circle")
    assert (float(circle.attrib["cx"]), float(circle.attrib["cy"])) == (64 + 420 * 5 / 6, 34)
    rows = [NamedIntervals("x" * 40, [interval(0.5), None]), NamedIntervals("y", [NONE, interval(0.5)])]
    root = ElementTree.fromstring(interval_plot("t", "d", "x", ["one", "two"], rows))
    assert len(list(root.iter(f"{SVG}circle"))) == 2 and len(list(root.iter(f"{SVG}rect"))) == 2
