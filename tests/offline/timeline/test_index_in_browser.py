"""The index of a folder as people use it in Chromium."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from perceiverd.core.labels import ontology
from perceiverd.offline.timeline.assembly import json_text
from perceiverd.offline.timeline.index import INDEX, write_index
from perceiverd.offline.timeline.page import LabelSummary, PageMedia, PageSummary
from tests.support.browser import CHROMIUM, started_browser, visit
from tests.support.timelines import page_of, timeline_of

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium")

FILES = "[...document.querySelectorAll('#table td:first-child a')].map((each) => each.innerText)"
OTHERS = 300


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests of this module."""
    with started_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one whole page, and the heads of 300 others."""
    folder = tmp_path_factory.mktemp("folder")
    (folder / "sub").mkdir()
    page_of(folder / "sub" / "a dog.mp4.html", timeline_of(6, [("Bark", 2.0, 4.0, 0.9)]), "/media/a dog.mp4")
    labels = ontology().labels
    for k in range(OTHERS):
        found = tuple(
            LabelSummary(each.name, each.mid, k % 5 + 1, 2.0, 40.0, 0.3 + k / 1000) for each in labels[k : k + 3]
        )
        error = "<b>clip.mp4: is cut short" if k == 7 else None
        summary = PageSummary(
            1, f"/media/<i>clip{k:03}.mp4", PageMedia(None), 60.0 + k, 120, "tiny", "0.1.0", found, 0, 0, error
        )
        head = f'<script type="application/json" id="summary">{json_text(summary)}</script>'
        (folder / f"clip{k:03}.html").write_text(head)
    write_index(folder)
    return folder


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_everybody_can_use_it(browser: Browser, folder: Path, width: int, dark: bool) -> None:
    """Axe finds no fault, the page is no wider than the screen, and names are text."""
    with visit(browser, folder / INDEX, width=width, dark=dark) as here:
        assert here.violations() == []
        assert here.value("document.documentElement.scrollWidth <= innerWidth")
        assert here.page.inner_text("#files-count") == "301 files"
        assert here.value(f"{FILES}[0]") == "<i>clip000.mp4"


def test_a_label_leads_to_its_files_and_into_them(browser: Browser, folder: Path) -> None:
    """A search leaves files with the label; its link opens the file's timeline at the first event."""
    with visit(browser, folder / INDEX) as here:
        here.page.fill("#search", "bark")
        here.wait(f"{FILES}.length === 4")  # labels that have `bark` in their name are in three clips too
        here.page.click("#labels button:has-text('Bark')")
        here.wait("location.hash === '#label=Bark'")
        assert here.value(FILES)[-1] == "a dog.mp4"
        here.page.click("text='Bark, 0:02'")
        here.page.wait_for_selector("html[data-ready] #overview")
        assert here.value("document.getElementById('overview').getAttribute('aria-valuenow')") == "2.0"
        assert here.page.inner_text("#clear") == "Only Bark: show all"
        here.page.click("text='All files'")
        here.page.wait_for_selector("html[data-ready] #files")


def test_files_are_ordered_and_shown_in_parts(browser: Browser, folder: Path) -> None:
    """The order changes which file is first; the threshold hides files; more files come on request."""
    with visit(browser, folder / INDEX, "#label=Speech") as here:
        here.wait(f"{FILES}.length === 1")
        here.page.click("#clear")
        here.wait(f"{FILES}.length === 100")
        here.page.select_option("#order", "length")
        here.wait(f"{FILES}[0] === '<i>clip299.mp4'")
        here.page.click("#more")
        here.wait(f"{FILES}.length === 301")
        here.page.fill("#least", "0.7")
        here.wait(f"{FILES}.length === 1")
        here.page.fill("#search", "nothing at all")
        here.wait("document.querySelector('#table tbody').innerText.startsWith('No file matches')")
