"""The page of an evaluation in Chromium: accessible, on a phone too, in light and dark; sorted and searched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from perceiverd.evaluation.page import page
from tests.support.browser import CHROMIUM, started_browser, started_visit
from tests.support.evaluations import result

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium")

ROWS = "[...document.querySelectorAll('#labels tbody tr')]"
NAMES = f"{ROWS}.filter((row) => !row.hidden).map((row) => row.cells[0].innerText)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests of this module."""
    with started_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "compare.html"
    path.write_text(page(result("one", "two")), encoding="utf-8")
    return path


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [380, 1280])
def test_the_page_is_accessible(browser: Browser, shown: Path, width: int, dark: bool) -> None:
    """No rule of axe is broken, nothing is logged or requested, and only tables scroll sideways."""
    with started_visit(browser, shown, width=width, dark=dark) as here:
        assert here.violations() == []
        assert here.value("document.documentElement.scrollWidth") <= width
        assert here.faults == []


def test_labels_are_sorted_and_searched(browser: Browser, shown: Path) -> None:
    """A heading sorts by its numbers, a second press turns the order; labels without a number are last both times."""
    with started_visit(browser, shown) as here:
        heading = here.page.get_by_role("button", name="A: PSDS 1")
        assert here.value(NAMES) == ["Dog <&>", "Speech"]
        here.page.get_by_role("button", name="A: AUC").focus()
        here.page.keyboard.press("Enter")
        assert here.value(NAMES) == ["Speech", "Dog <&>"]
        for order in ("descending", "ascending"):
            heading.click()
            assert here.value(NAMES) == ["Dog <&>", "Speech"]
            assert here.value("document.querySelectorAll('[aria-sort]').length") == 1
            assert here.value("document.querySelector('[aria-sort]').ariaSort") == order
        here.page.get_by_label("Show labels that contain").fill("spe")
        assert here.value(NAMES) == ["Speech"]
        assert here.value("document.getElementById('shown').textContent") == "1 label"
        assert here.faults == []
