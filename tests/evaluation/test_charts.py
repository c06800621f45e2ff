"""Charts: well-formed SVG with each dot in its place."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from perceiverd.evaluation.charts import SIDE, Dot, Panel, diagonal

SVG = "{http://www.w3.org/2000/svg}"


def test_dots_are_placed_by_their_values() -> None:
    """X grows to the right and y upwards; a bar reaches from the low end of the interval to the high end."""
    dot = Dot(0.25, 0.75, 0.5, 1.0)
    root = ElementTree.fromstring(diagonal([Panel("a < b", [("before", []), ("after", [dot])])], "x", "y"))
    centres = [(float(one.attrib["cx"]), float(one.attrib["cy"])) for one in root.iter(f"{SVG}circle")]
    assert (SIDE * 0.25, SIDE * 0.25) in centres
    assert any(one.attrib["d"] == f"M{SIDE * 0.25:.1f} {SIDE * 0.5:.1f}V0.0" for one in root.iter(f"{SVG}path"))
    assert any(one.text == "a < b" for one in root.iter(f"{SVG}text"))


@pytest.mark.parametrize("count", [1, 2])
def test_panels_stand_side_by_side(count: int) -> None:
    """Each panel has the same width."""
    root = ElementTree.fromstring(diagonal([Panel("t", [("n", [])])] * count, "x", "y"))
    assert len(root.findall(f"{SVG}g")) == count
    assert float(root.attrib["width"]) == count * float(
        ElementTree.fromstring(diagonal([Panel("t", [("n", [])])], "x", "y")).attrib["width"]
    )
