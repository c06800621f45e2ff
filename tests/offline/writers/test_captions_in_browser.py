"""WebVTT captions, as the track parser of a browser reads them."""

import base64

import pytest

from perceiverd.offline.writers.writer import Piece
from tests.support.browser import CHROMIUM, started_browser
from tests.support.file_records import event, pieces
from tests.support.written import written

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium")

CUES = """async (address) => {
    const video = document.body.appendChild(document.createElement("video"));
    const track = video.appendChild(document.createElement("track"));
    const loaded = new Promise((done, fail) => { track.onload = done; track.onerror = fail; });
    track.src = address;
    track.track.mode = "showing";
    await loaded;
    return [...track.track.cues].map((cue) => [cue.id, cue.startTime, cue.endTime, cue.getCueAsHTML().textContent]);
}"""


def test_a_browser_reads_the_captions() -> None:
    """It finds each event with its id, times and name, also one with signs that WebVTT uses, and one after an hour."""
    events: list[Piece] = [event("Dog", 0.64, 3.2), event("a --> b & <c>", 1.0, 2.5), event("Bark", 3725.007, 3726.5)]
    text = written("vtt", [pieces()[0], *events])
    address = "data:text/vtt;base64," + base64.b64encode(text.encode()).decode()
    with started_browser() as browser:
        page = browser.new_page()
        page.goto("about:blank")
        assert page.evaluate(CUES, address) == [
            ["74-640", 0.64, 3.2, "[Dog]"],
            ["74-1000", 1, 2.5, "[a --> b & <c>]"],
            ["74-3725007", 3725.007, 3726.5, "[Bark]"],
        ]
