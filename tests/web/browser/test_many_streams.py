"""The page with many streams, names that attack it, and a day of 20,000 events."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from perceiverd.history.opening import FILE
from tests.support.browser import CHROMIUM
from tests.support.history import Store, at, event, scores, status
from tests.support.lively_daemon import LivelyDaemon
from tests.support.pages import PageProcess, served
from tests.support.web_visits import OVERFLOW, PHONE_PX, go, text, visited, waits_for

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium"),
    pytest.mark.timeout(400),
]
HOSTILE = "<img src=x onerror=hacked=1>&amp;\"'`${hacked=1}\u202e"
HOSTILE_LABEL = "</script><script>hacked=1</script><b onclick=hacked=1>javascript:hacked=1"
STREAMS = (*(f"camera{number:02}" for number in range(29)), HOSTILE)
DAY = "2026-01-31"
EVENTS = 20_000


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageProcess]:
    """Thirty streams, one of them stalled, and a day of 20,000 events with an hour without the history."""
    folder = tmp_path_factory.mktemp("many")
    write_day(folder)
    with (
        LivelyDaemon(STREAMS, {"camera07": "stalled"}, HOSTILE_LABEL) as daemon,
        served(folder, "--endpoint", f"house={daemon.endpoint}", "--history", str(folder)) as made,
    ):
        yield made


def write_day(folder: Path) -> None:
    """Write the day: one event of each kind by the recorder, the others as copies of their rows."""
    store = Store(folder)
    store.begin(-3600 * 10)
    for stream in STREAMS:
        store.receive(-3600 * 10, status(-3600 * 10, "up", stream=stream))
    for number, name in enumerate(("Dog", "Cat", "Speech")):
        start_s = -3600.0 * 9 + 10 * number
        store.receive(start_s, scores(start_s, (name, 0.7), stream="camera01"))
        store.receive(start_s + 5, event("begin", name, start_s, start_s + 2, stream="camera01"))
        store.receive(start_s + 6, event("end", name, start_s, start_s + 4, stream="camera01", peak=0.8))
    store.end(3600)
    store.begin(7200)
    store.end(7260)
    store.writer.connection.close()
    with closing(sqlite3.connect(folder / FILE)) as connection, connection:
        connection.execute("UPDATE label SET name = ? WHERE name = 'Cat'", (HOSTILE_LABEL,))
        columns = "run, label, state, mean_pm, details"
        connection.execute(
            f"INSERT INTO event ({columns}, stream, key, start_ms, end_ms, peak_pm) "
            f"WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {EVENTS - 4}) "
            f"SELECT {columns}, 1 + i % {len(STREAMS)}, 'copy' || i, start_ms + i * 2000, start_ms + i * 2000 + 4000, "
            "500 + i % 500 FROM n JOIN event ON event.id = 1 + i % 3"
        )


def test_thirty_streams_in_one_look(browser: Browser, page: PageProcess) -> None:
    """Each stream is a row with its state in words; the sentence above names the one with a problem."""
    with visited(browser, page) as here:
        here.wait("document.querySelectorAll('.stream-table tbody tr').length === 30")
        waits_for(here, ".summary", "29 of 30 streams are listening. A problem with camera07.")
        here.wait("document.querySelector('tr[data-tone=bad] th').innerText === 'camera07'")
        assert text(here, "tr[data-tone=bad] .state") == "Nothing arrives"
        waits_for(here, ".heard-name", "Cat")
        assert here.violations() == []


def test_thirty_streams_on_a_phone(browser: Browser, page: PageProcess) -> None:
    """All of it fits the width of a phone, also the day, in dark colours."""
    with visited(browser, page, width=PHONE_PX, dark=True) as here:
        here.wait("document.querySelectorAll('.stream-table tbody tr').length === 30")
        waits_for(here, ".heard-name", "Cat")
        assert here.value(OVERFLOW) <= 0
        assert here.violations() == []
        for view in (f"day/{DAY}", "search", "statistics?days="):
            go(here, f"#/{view}")
            here.wait("document.querySelectorAll('main a').length > 5")
            assert here.value(OVERFLOW) <= 0, view


def test_hostile_names_are_text(browser: Browser, page: PageProcess) -> None:
    """No name of a stream or label becomes part of the page, in any view and in no title."""
    with visited(browser, page) as here:
        waits_for(here, ".stream-table th", HOSTILE)
        waits_for(here, ".heard-name", HOSTILE_LABEL)
        here.page.click("th:has-text('<img') a")
        waits_for(here, "h1", HOSTILE)
        waits_for(here, ".label-name", HOSTILE_LABEL)
        assert here.page.title().startswith(HOSTILE)
        here.page.click(".card-links a:has-text('Explain')")
        here.wait("document.querySelector('select')?.selectedOptions[0].innerText.startsWith('<img')")
        for view in (f"day/{DAY}", "search", "statistics?days="):
            go(here, f"#/{view}")
            waits_for(here, "main", HOSTILE_LABEL)
        here.page.click(".label-table a[href*='script']")
        waits_for(here, ".entry-name", HOSTILE_LABEL)
        here.page.click(".entry a")
        waits_for(here, ".facts", "Highest score")
        waits_for(here, "h1", HOSTILE_LABEL)
        assert here.value("typeof hacked") == "undefined"
        assert here.page.locator("main b[onclick], main img[src=x], main script").count() == 0


def test_a_day_of_many_events(browser: Browser, page: PageProcess) -> None:
    """The day is drawn whole, and by label of one stream; zoom and keys reach every event, as text too."""
    with visited(browser, page, f"#/day/{DAY}") as here:
        waits_for(here, ".heading p", f"{EVENTS:,} events")
        waits_for(here, "summary", "Not listening")
        here.page.select_option("select", "house/camera01")
        waits_for(here, ".row-names", "Dog")
        here.page.focus(".time-line")
        here.page.keyboard.press("Home")
        assert here.page.inner_text("#spoken").startswith("Dog, 04:00:00")  # Berlin is an hour ahead
        here.page.keyboard.press("ArrowRight")
        for _ in range(9):
            here.page.keyboard.press("+")
        waits_for(here, ".range", "to 04:")
        here.wait("document.querySelectorAll('.day-table tbody tr').length < 40")
        here.page.keyboard.press("Enter")
        here.wait("location.hash.startsWith('#/event/')")
        waits_for(here, ".facts", "camera01")
        here.page.go_back()
        here.wait("document.querySelector('.day-canvas') !== null")
        assert here.value("document.querySelector('select').value") == "house/camera01"
    assert at(0) == datetime(2026, 1, 31, 12, tzinfo=UTC)


def test_updates_do_not_grow_the_page(browser: Browser, page: PageProcess) -> None:
    """After hundreds of messages the page has as many elements, and as many listeners' labels, as before."""
    count = "document.querySelectorAll('*').length"
    with visited(browser, page) as here:
        waits_for(here, ".heard-name", "Cat")
        here.value(
            "window.seen = 0; new EventSource('api/1/live').addEventListener('stream', () => { window.seen += 1; })"
        )
        here.wait("window.seen > 60")
        before = here.value(count)
        here.wait("window.seen > 300")
        assert abs(here.value(count) - before) <= 60  # the text `open` comes and goes
