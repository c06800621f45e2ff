"""The timeline of a file as people use it in Chromium: with the mouse, by keys, by links, on a phone."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Error

from perceiverd.core.labels import Label, ontology
from perceiverd.core.media import NS_PER_S
from perceiverd.offline.timeline.page import PageMedia, media_of
from perceiverd.offline.timeline.timeline import LabelTotals, Timeline, TimelineGatherer
from perceiverd.pipeline.windower import Window
from tests.support.browser import CHROMIUM, Visit, started_browser, started_visit, visit
from tests.support.clips import write_clip
from tests.support.timelines import event_of, page_of, timeline_of

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium")

SOUNDS = [
    ("Bark", 2.0, 4.0, 0.9),
    ("Bark", 8.0, 9.5, 0.7),
    ("Siren", 5.0, 7.0, 0.8),
    ("Speech", 0.5, 11.0, 0.4),
    ("Hum", 0.5, 1.5, 0.3),
    ("Meow", 10.0, 11.5, 0.95),
]
LENGTH_S = 12.0
WIDER = "(({ scrollWidth, clientWidth }) => scrollWidth - clientWidth)(document.getElementById('scroller'))"
AT = "Number(document.getElementById('overview').getAttribute('aria-valuenow'))"
ROWS = "[...document.querySelectorAll('#names .text')].map((each) => each.textContent)"
EVENTS = "[...document.querySelectorAll('#table tbody tr')].map((row) => [...row.cells].map((each) => each.innerText))"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests of this module."""
    with started_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def timeline() -> Timeline:
    """A file of 12 s with six events."""
    return timeline_of(LENGTH_S, SOUNDS)


@pytest.fixture(scope="module")
def page(timeline: Timeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its page, beside a clip that can be played."""
    folder = tmp_path_factory.mktemp("timeline")
    clip = write_clip(folder / "clip.wav", audio_s=LENGTH_S)
    media, _ = media_of(str(clip), folder, has_video=False, embed_bytes=0)
    return page_of(folder / "clip.wav.html", timeline, str(clip), media)


def column(here: Visit, share: float) -> tuple[float, float]:
    """The point of the canvas's labels at this share of its width."""
    box = here.page.locator("#canvas").bounding_box()
    assert box
    return box["x"] + box["width"] * share, box["y"] + box["height"] - 20


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_everybody_can_use_it(browser: Browser, page: Path, width: int, dark: bool) -> None:
    """Axe finds no fault in either theme at either width, and the page is no wider than the screen."""
    with visit(browser, page, "#t=2.5", width=width, dark=dark) as here:
        assert here.violations() == []
        assert here.value("document.documentElement.scrollWidth <= innerWidth")
        assert here.value("document.documentElement.classList.contains('dark')") is dark
        here.page.click("#theme")
        assert here.value("document.documentElement.classList.contains('dark')") is not dark
        assert here.violations() == []


def test_a_click_seeks(browser: Browser, page: Path) -> None:
    """A click on the timeline moves the playhead and the player; so does one on the strip of the whole file."""
    with visit(browser, page) as here:
        here.page.mouse.click(*column(here, 0.5))
        here.wait(f"Math.abs({AT} - {LENGTH_S} / 2) < 0.3")
        here.wait("Math.abs(document.querySelector('audio').currentTime - 6) < 0.3")
        box = here.page.locator("#overview").bounding_box()
        assert box
        here.page.mouse.click(box["x"] + box["width"] * 0.25, box["y"] + 10)
        here.wait(f"Math.abs({AT} - {LENGTH_S} / 4) < 0.2")


def test_keys_do_everything(browser: Browser, page: Path) -> None:
    """Keys go to events, move, zoom, search and show their list; they can be switched off."""
    with visit(browser, page) as here:
        keys = here.page.keyboard
        keys.press("n")
        here.wait(f"{AT} === 0.5")
        keys.press("n")
        assert here.page.inner_text("#spoken").startswith("Hum, 0.5 seconds")  # it begins at the same moment
        keys.press("n")
        here.wait(f"{AT} === 2")
        assert here.page.inner_text("#spoken").startswith("Bark, 2 seconds to 4 seconds, event 3 of 6")
        keys.press("p")
        here.wait(f"{AT} === 0.5")
        keys.press("Shift+ArrowRight")
        here.wait(f"{AT} === 10.5")
        keys.press("ArrowLeft")
        here.wait(f"{AT} === 9.5")
        keys.press("Home")
        here.wait(f"{AT} === 0")
        keys.press("+")
        here.wait(f"{WIDER} > 9")
        keys.press("0")
        here.wait(f"{WIDER} <= 0")
        keys.press("/")
        assert here.value("document.activeElement.id") == "search"
        keys.type("nope")  # letters are text there
        keys.press("Escape")
        here.wait(f"{EVENTS}.length === 6")
        keys.press("?")
        here.page.uncheck("#keys-on")
        keys.press("Escape")
        keys.press("n")
        keys.press("ArrowRight")
        here.wait(f"{AT} === 1")


def test_search_answers_when_a_label_is_heard_first(browser: Browser, page: Path) -> None:
    """A search leaves the labels that match, in the drawing and the table; Enter goes to the first event."""
    with visit(browser, page) as here:
        here.page.fill("#search", "BARK")
        here.wait(f"{EVENTS}.length === 2")
        assert here.value(ROWS)[0] == "Bark"
        assert here.value(EVENTS)[0][:3] == ["0:02.0", "0:04.0", "Bark"]
        assert here.page.inner_text("#events-count") == "2 of 6 events"
        here.page.press("#search", "Enter")
        here.wait(f"{AT} === 2")
        here.page.fill("#search", "no such label")
        here.wait(f"{EVENTS}[0][0].startsWith('No event matches')")
        assert here.violations() == []


def test_the_threshold_hides_what_is_weaker(browser: Browser, page: Path) -> None:
    """Events and labels whose highest score is lower than the slider disappear."""
    with visit(browser, page) as here:
        here.page.fill("#least", "0.85")
        here.wait(f"{EVENTS}.length === 2")
        assert [row[2] for row in here.value(EVENTS)] == ["Bark", "Meow"]
        assert sorted(here.value(ROWS)) == ["Bark", "Meow"]
        assert here.page.inner_text("#least-shown") == "0.85"


def test_links_lead_to_a_moment_and_a_label(browser: Browser, page: Path) -> None:
    """`#t=...&label=...` opens there; a label alone opens at its first event; the address follows the playhead."""
    with visit(browser, page, "#t=8.25&label=siren") as here:
        here.wait(f"Math.abs({AT} - 8.25) < 0.06")
        assert here.value("document.querySelector('#names [aria-pressed=true] .text').textContent") == "Siren"
        assert [row[2] for row in here.value(EVENTS)] == ["Siren"]
        here.value("location.hash = '#label=Meow'")
        here.wait(f"{AT} === 10")
        here.page.click("#table tbody a")
        here.page.keyboard.press("ArrowRight")
        here.wait("location.hash === '#t=11&label=Meow'")
        here.page.click("#clear")
        here.wait(f"{EVENTS}.length === 6")
        for odd in ("#t=1e9", "#t=-3", "#t=x&label=", "#label=Unknown", "#%E0%A4%A"):
            here.value(f"location.hash = '{odd}'")
            here.page.wait_for_timeout(50)
            assert 0 <= here.value(AT) <= LENGTH_S
    with visit(browser, page, "#t=1e9") as here:
        here.wait(f"Math.abs({AT} - {LENGTH_S}) < 0.5")


def test_the_view_follows_the_playhead(browser: Browser, page: Path) -> None:
    """While the file plays, the panel shows what is heard, and a zoomed view goes along."""
    with visit(browser, page, "#t=9.9") as here:
        for _ in range(6):
            here.page.click("#zoom-in")
        before = here.value("document.getElementById('scroller').scrollLeft")
        here.value("document.querySelector('audio').play()")
        here.wait(f"{AT} > 10.6")
        here.wait("document.querySelector('#now li').innerText.startsWith('Meow')")
        here.wait(f"document.getElementById('scroller').scrollLeft > {before}")


def test_names_are_text(browser: Browser, timeline: Timeline, tmp_path: Path) -> None:
    """No name of a file or label can become part of the page, or of its script."""
    name = "</script><img src=x onerror=hacked=1>\"'&{{script}}<!--\u2028\u202e$&.mp4"
    label = Label(0, "/m/x", "</title><script>hacked=1</script><b onclick=hacked=1>&amp;")
    first, *others = timeline.labels
    totals = (LabelTotals(label, 1.0, 0.0, 0, 0.0), first, *others)
    hostile = replace(timeline, labels=totals, scores=timeline.scores[[0, *range(len(timeline.labels))]])
    page = page_of(tmp_path / "hostile.html", hostile, f"folder/{name}")
    with visit(browser, page) as here:
        assert here.page.text_content("h1") == name.rpartition("/")[2]
        here.page.select_option("#order", "name")
        here.wait(f"{ROWS}.includes({label.name!r})")
        assert here.value("typeof hacked") == "undefined"
        assert here.page.locator("img, b").count() == 0
        with pytest.raises(Error, match="TrustedHTML"):
            here.value("document.body.innerHTML = '<b>x</b>'")
        here.faults.clear()  # the policy has logged it


def test_a_file_can_be_in_the_page_or_be_gone(browser: Browser, timeline: Timeline, tmp_path: Path) -> None:
    """A small file can be in the page. If a linked one is gone, the page says so and works without it."""
    clip = write_clip(tmp_path / "a b#?%.wav", audio_s=LENGTH_S)
    media, embedded = media_of(str(clip), tmp_path, has_video=False, embed_bytes=1 << 22)
    assert media.type == "audio/x-wav" and embedded == clip
    page = page_of(tmp_path / "in.html", timeline, str(clip), media, embedded)
    linked, _ = media_of(str(clip), tmp_path / "sub" / "deeper", has_video=False, embed_bytes=0)
    assert linked.href == "../../a%20b%23%3F%25.wav"
    clip.unlink()
    with visit(browser, page) as here:
        here.wait("document.querySelector('audio').duration > 11")
        here.page.keyboard.press("n")
        here.wait("document.querySelector('audio').currentTime === 0.5")
    page = page_of(tmp_path / "gone.html", timeline, str(clip), PageMedia("video", href="gone.mp4"))
    with visit(browser, page) as here:
        here.page.wait_for_selector("#media-notice:visible")
        here.faults.clear()  # Chromium has logged that the file is missing
        here.page.keyboard.press("n")
        here.wait(f"{AT} === 0.5")


def test_odd_files_have_pages_too(browser: Browser, tmp_path: Path) -> None:
    """A file without events, of one window, without pictures or audio, or that begins late is drawn without a fault."""
    silent, late = (
        TimelineGatherer(ontology().labels, NS_PER_S, None),
        TimelineGatherer(ontology().labels, NS_PER_S, 16_000),
    )
    silent.window(Window(0, NS_PER_S // 3, None, None), np.zeros(527))
    late.window(Window(90 * NS_PER_S, 91 * NS_PER_S, np.ones(16_000, np.float32), None), np.full(527, 0.9))
    late.event(event_of(ontology().find("Bark"), 90.0, 91.0, 0.9))
    for number, odd in enumerate((silent.timeline(), late.timeline(), timeline_of(1.28, [], pictures=False))):
        with visit(
            browser, page_of(tmp_path / f"{number}.html", odd), "#t=90.5", width=390 if number else 1280
        ) as here:
            here.page.click("#zoom-in")
            here.page.keyboard.press("End")
            here.wait(f"{AT} > 0")
            first = here.value(EVENTS)[0][0]
            assert first == ("1:30.0" if odd.events else "No label was certain for long enough to be an event.")


def test_a_damaged_page_says_so(browser: Browser, page: Path) -> None:
    """A page whose data was cut shows one line that says it."""
    damaged = page.with_name("damaged.html")
    damaged.write_text(page.read_text().replace('id="scores">e', 'id="scores">A'))
    with started_visit(browser, damaged) as here:
        here.page.wait_for_selector("#media-notice:visible")
        assert here.page.inner_text("#media-notice").startswith("This page cannot be drawn")
