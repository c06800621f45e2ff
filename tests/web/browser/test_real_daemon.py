"""The page as a newcomer uses it, with a real daemon that plays the bundled clip, and its history."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.support.browser import CHROMIUM, Visit
from tests.support.pages import PageProcess, until
from tests.support.real_house import real_house
from tests.support.web_visits import OVERFLOW, PHONE_PX, go, text, visited, waits_for

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium"),
    pytest.mark.long,
    pytest.mark.timeout(400),  # three programs start, and the clip must play to its bark, on a machine that may be busy
]
VIEWS = (
    "streams",
    "stream/demo/demo",
    "day",
    "search",
    "statistics",
    "explain/demo/demo",
    "corrections",
    "teach",
)

SAME_ON_A_PHONE = ("stream/demo/demo", "corrections", "teach", "search")
"""Views whose parts are the same at each width; checking them once is enough."""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageProcess]:
    """The three programs, from the moment on at which the history has a bark with its clip."""
    with real_house(tmp_path_factory.mktemp("house")) as house:
        until(lambda: barks(house))
        yield house


def events(house: PageProcess, label: str = "") -> list[dict[str, Any]]:
    """What the API says of the events of a label."""
    answer = house.browser().get("/api/1/events" + (f"?label={label}" if label else ""))
    return list(answer.json["events"]) if answer.status == 200 else []


def barks(house: PageProcess) -> list[dict[str, Any]]:
    """Barks that are over and have a clip."""
    return [each for each in events(house, "Bark") if each["clip"] and each["state"] == "ended"]


def corrections(house: PageProcess) -> list[dict[str, Any]]:
    """What the API says of corrections."""
    return list(house.browser().get("/api/1/corrections").json["corrections"])


def shown_names(here: Visit, selector: str) -> set[str]:
    """The different texts of these elements."""
    return set(here.value(f"[...document.querySelectorAll({selector!r})].map((each) => each.innerText.trim())"))


def test_the_overview_is_alive(browser: Browser, house: PageProcess) -> None:
    """The stream listens, has a level, and its labels and latest events are those of the API."""
    with visited(browser, house) as here:
        waits_for(here, ".card .state", "Listening")
        waits_for(here, ".summary", "The stream is listening.")
        waits_for(here, ".level-text", "dB")
        here.wait("document.querySelectorAll('.label-row').length >= 3")
        waits_for(here, "#connection", "Live")
        (stream,) = house.browser().get("/api/1/streams").json["streams"]
        assert stream["state"] == "up" and stream["latency_ms"] > 0
        assert text(here, ".figures dt") == "Delay"
        assert shown_names(here, ".latest .entry-name") <= {each["name"] for each in events(house)}
        before = text(here, ".label-rows")
        here.wait(f"document.querySelector('.label-rows').innerText.split(/\\s+/).join(' ').trim() !== {before!r}")


def test_when_did_the_dog_bark(browser: Browser, house: PageProcess) -> None:
    """Search finds the bark; its page plays the clip, says why it began and ended, and shows its scores."""
    with visited(browser, house, "#/search") as here:
        here.page.fill("input[type=search]", "ba")
        here.wait("[...document.querySelectorAll('datalist option')].some((each) => each.value === 'Bark')")
        here.page.fill("input[type=search]", "Bark")
        here.page.click("button[type=submit]")
        here.wait("[...document.querySelectorAll('.wide .entry-name')].every((each) => each.innerText === 'Bark')")
        ended = barks(house)[0]
        here.page.click(f".wide a[href='#/event/{ended['id']}']")
        here.wait("document.querySelector('h1')?.innerText === 'Bark'")
        assert here.value("document.activeElement.tagName") == "H1"  # where a screen reader goes on
        assert here.page.title() == "Bark, demo · perceiverd"
        details = house.browser().get(f"/api/1/events/{ended['id']}").json["details"]
        waits_for(here, ".event-side", f"reached {details['on']:.2f}")
        waits_for(here, ".event-side", "It ended:")
        here.value("document.querySelector('video').play()")
        here.wait(
            "document.querySelector('video').currentTime > 0.3 && document.querySelector('video').videoWidth > 100"
        )
        here.page.focus(".scrub")
        here.page.keyboard.press("Home")
        here.page.keyboard.press(" ")
        here.wait("document.querySelector('video').paused")
        here.wait("document.querySelectorAll('.trace polyline').length >= 2")
        assert "Scores of Bark" in here.value("document.querySelector('.trace').getAttribute('aria-label')")


def test_right_and_wrong(browser: Browser, house: PageProcess) -> None:
    """A verdict is stored at once, another replaces it, the list has it, and it can be taken back."""
    with visited(browser, house, f"#/event/{barks(house)[0]['id']}") as here:
        here.page.click(".verdict-button.right")
        waits_for(here, ".verdict-result", "Stored")
        assert [each["verdict"] for each in corrections(house)] == ["right"]
        here.page.click(".verdict-button.wrong")
        here.wait("document.querySelector('.verdict-button.wrong').ariaPressed === 'true'")
        assert [(each["verdict"], each["name"]) for each in corrections(house)] == [("wrong", "Bark")]
        go(here, "#/corrections")
        waits_for(here, ".correction", "Bark")
        assert text(here, ".correction .verdict") == "wrong"
        assert here.violations() == []
        here.page.click(".undo")
        waits_for(here, ".empty-title", "No corrections yet.")
        assert corrections(house) == []


def test_a_missed_event(browser: Browser, house: PageProcess) -> None:
    """A dragged stretch of the day is marked as missed, with its stream and the chosen label."""
    with visited(browser, house, "#/day") as here:
        here.wait("document.querySelectorAll('.day-table tbody a').length > 0")
        box = here.page.locator(".day-canvas").bounding_box()
        assert box
        here.page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + 40)
        here.page.mouse.down()
        here.page.mouse.move(box["x"] + box["width"] * 0.45, box["y"] + 42)
        here.page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 42)
        here.page.mouse.up()
        here.page.click(".selection button:has-text('This was missed')")
        assert here.violations() == []
        here.page.fill("dialog input[type=search]", "Cat")
        here.page.click("dialog button[type=submit]")
        waits_for(here, "dialog .notice", "Stored")
        (stored,) = corrections(house)
        assert (stored["verdict"], stored["stream"], stored["name"]) == ("missed", "demo", "Cat")
        here.page.keyboard.press("Escape")
        go(here, "#/corrections")
        here.page.click(".undo")
        waits_for(here, ".empty-title", "No corrections yet.")


def test_teaching_by_keyboard(browser: Browser, house: PageProcess) -> None:
    """While a key is held on the button, it sounds; the example has the name that was given, also a new one."""
    with visited(browser, house, "#/teach?stream=demo/demo") as here:
        here.wait("document.querySelector('.teaching select').value === 'demo/demo'")
        here.page.focus(".hold")
        here.page.keyboard.press("Enter")
        waits_for(here, ".notice", "First name the sound")
        here.page.fill(".teaching input[type=search]", "Door bell at home")
        here.page.focus(".hold")
        here.page.keyboard.down(" ")
        waits_for(here, ".teach-status", "Let go when it is over.")
        here.page.wait_for_timeout(500)
        here.page.keyboard.up(" ")
        waits_for(here, ".teach-status", "4 more.")
        (stored,) = corrections(house)
        assert (stored["verdict"], stored["name"]) == ("example", "Door bell at home")
        go(here, "#/corrections")
        here.page.click(".undo")
        waits_for(here, ".empty-title", "No corrections yet.")


def test_the_day_and_the_statistics(browser: Browser, house: PageProcess) -> None:
    """Both have the labels of the API; a label of the legend filters the list of the day."""
    with visited(browser, house, "#/day") as here:
        here.wait("document.querySelectorAll('.day-table tbody a').length > 0")
        waits_for(here, ".panel > summary", "Not listening")  # the hours before the daemon started
        here.wait("Number(document.querySelector('.day-canvas').dataset.drawMs) >= 0")
        here.page.click(".labels-legend button[data-name='Bark']")
        here.wait("new Set([...document.querySelectorAll('.day-table tbody a')].map((a) => a.innerText)).size === 1")
        go(here, "#/statistics")
        here.wait("document.querySelectorAll('.label-table tbody tr').length > 0")
        counts = house.browser().get("/api/1/statistics").json
        names = shown_names(here, ".label-table tbody th")
        assert "Bark" in names and names <= {each["name"] for each in counts["by_label"]}


def test_why_there_is_no_event(browser: Browser, house: PageProcess) -> None:
    """The explanation follows the stream: each label's score with its thresholds, and the reason in words."""
    with visited(browser, house, "#/explain/demo/demo") as here:
        here.wait("document.querySelectorAll('.reason').length >= 2")
        waits_for(here, ".reason .state", "event")
        assert all(shown_names(here, ".reason-why"))
        waits_for(here, ".figures dt", "part of a more specific event")


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (PHONE_PX, True)])
def test_everybody_can_use_it(browser: Browser, house: PageProcess, width: int, dark: bool) -> None:
    """Axe finds no fault in any view, contrast included, and no view is wider than the screen."""
    with visited(browser, house, width=width, dark=dark) as here:
        assert here.value("document.documentElement.classList.contains('dark')") is dark
        for view in (*VIEWS, f"event/{barks(house)[0]['id']}"):
            go(here, f"#/{view}")
            here.page.wait_for_timeout(200)
            assert here.value(OVERFLOW) <= 0, view
            assert (width == PHONE_PX and view in SAME_ON_A_PHONE) or here.violations() == [], view
        here.page.click("#theme")
        assert here.value("document.documentElement.classList.contains('dark')") is False
        here.page.click("#theme")
        assert here.value("document.documentElement.classList.contains('dark')") is True
        assert here.violations() == []


def test_links_may_be_damaged(browser: Browser, house: PageProcess) -> None:
    """An unknown view is the overview; an unknown stream, date or event is said in one line."""
    with visited(browser, house, "#/constructor/%E0%A4%A") as here:
        assert text(here, "h1") == "Streams"
        go(here, "#/day/2026-99-99")
        here.wait("document.querySelector('.day-canvas') !== null")
        go(here, "#/event/987654")
        waits_for(here, ".notice", "no event with this number")
        go(here, "#/stream/demo/nobody")
        waits_for(here, ".empty-title", "This stream is not published now.")
        assert [each for each in here.faults if "Failed to load" not in each] == []  # Chromium logs each answer 404
        here.faults.clear()
