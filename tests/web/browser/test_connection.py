"""The page when the server or a daemon goes away, and the way in with a password; and what keys do."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.support.browser import CHROMIUM, Visit
from tests.support.lively_daemon import LivelyDaemon
from tests.support.pages import PageProcess, password_file, served
from tests.support.web_visits import PHONE_PX, text, visited, waits_for

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium"),
    pytest.mark.timeout(400),
]
FOCUS = "(document.activeElement.innerText || document.activeElement.id || document.activeElement.tagName).trim()"


@pytest.fixture(scope="module")
def daemon() -> Iterator[LivelyDaemon]:
    """Two streams."""
    with LivelyDaemon(("door", "yard")) as daemon:
        yield daemon


def stop(page: PageProcess) -> None:
    """Stop the server as systemd does."""
    page.process.send_signal(signal.SIGTERM)
    page.process.wait()


def test_a_server_that_restarts(browser: Browser, daemon: LivelyDaemon, tmp_path: Path) -> None:
    """Without the server the page says so and since when; as soon as it is back, the page is live again."""
    options = ("--endpoint", f"house={daemon.endpoint}", "--corrections", str(tmp_path / "corrections"))
    with served(tmp_path, *options) as page, visited(browser, page, "#/teach") as here:
        waits_for(here, "#connection", "Live")
        stop(page)
        waits_for(here, "#banner", "Not connected since")
        assert text(here, "#connection") == "Not connected"
        assert here.violations() == []
        port = f"127.0.0.1:{page.port}"
        with served(tmp_path, *options, "--listen", port) as again:
            assert again.port == page.port
            waits_for(here, "#connection", "Live")
            here.wait("document.getElementById('banner').hidden")
            teach_once(here)  # the new server does not know the old token
            stop(again)
        assert [each for each in here.faults if "Failed to load" not in each] == []
        here.faults.clear()  # Chromium logs each request that failed


def teach_once(here: Visit) -> None:
    """Give one example."""
    here.page.fill(".teaching input[type=search]", "Dog")
    here.wait("document.querySelector('.teaching select').value !== ''")
    here.page.focus(".hold")
    here.page.keyboard.down(" ")
    waits_for(here, ".teach-status", "Let go")
    here.page.wait_for_timeout(400)
    here.page.keyboard.up(" ")
    waits_for(here, ".teach-status", "4 more.")


def test_a_daemon_that_is_silent(browser: Browser, tmp_path: Path) -> None:
    """The page says which machine is silent and what to do; when it speaks again, the notice goes."""
    with (
        LivelyDaemon(("door",)) as daemon,
        served(tmp_path, "--endpoint", f"barn={daemon.endpoint}") as page,
        visited(browser, page) as here,
    ):
        waits_for(here, ".card .state", "Listening")
        daemon.silent = True
        waits_for(here, ".card .state", "Daemon silent")
        waits_for(here, ".machines", "barn: its daemon is silent")
        daemon.silent = False
        waits_for(here, ".card .state", "Listening")
        here.wait("document.querySelector('.machines').innerText === ''")


def test_signing_in_and_out(browser: Browser, daemon: LivelyDaemon, tmp_path: Path) -> None:
    """A wrong password is refused in words, the right one opens the view that was asked for, and one can leave."""
    password = password_file(tmp_path, "correct horse battery")
    options = ("--endpoint", f"house={daemon.endpoint}", "--password-file", str(password))
    with served(tmp_path, *options) as page, visited(browser, page, "#/stream/house/yard", width=PHONE_PX) as here:
        assert text(here, "h1") == "Sign in"
        assert here.value("document.getElementById('views').hidden")
        assert here.violations() == []
        here.page.fill("input[type=password]", "wrong")
        here.page.keyboard.press("Enter")
        waits_for(here, ".notice", "password")
        here.faults.clear()  # Chromium logs the answer 401
        here.page.fill("input[type=password]", "correct horse battery")
        here.page.keyboard.press("Enter")
        waits_for(here, "h1", "yard")
        waits_for(here, "#connection", "Live")
        here.page.click("#sign-out")
        waits_for(here, "h1", "Sign in")
        here.page.reload()
        waits_for(here, "h1", "Sign in")


def test_below_a_path(browser: Browser, daemon: LivelyDaemon, tmp_path: Path) -> None:
    """A proxy may serve the page below a path: files, API, live connection and links stay below it."""
    config = tmp_path / "web.toml"
    config.write_text(
        f'server = {{ listen = "127.0.0.1:*", prefix = "/ears" }}\ndaemons.house.endpoint = "{daemon.endpoint}"\n'
    )
    with served(tmp_path, "--config", str(config)) as page, visited(browser, page, "ears/#/streams") as here:
        waits_for(here, ".card .state", "Listening")
        here.page.click(".card h2 a")
        waits_for(here, "h1", "door")
        assert here.value("location.pathname") == "/ears/"


def test_everything_by_keyboard(browser: Browser, daemon: LivelyDaemon, tmp_path: Path) -> None:
    """Tab reaches the content first, then each view; Enter opens one, and its heading has the focus."""
    with (
        served(tmp_path, "--endpoint", f"house={daemon.endpoint}") as page,
        visited(browser, page) as here,
    ):
        waits_for(here, ".card .state", "Listening")
        keys = here.page.keyboard
        reached = []
        for _ in range(8):
            keys.press("Tab")
            reached.append(here.value(FOCUS))
        assert reached[:7] == [
            "Skip to the content",
            "perceiverd",
            "Streams",
            "Day",
            "Search",
            "Statistics",
            "Corrections",
        ]
        assert reached[7].startswith("Colours")
        keys.press("Enter")
        assert here.value("document.documentElement.dataset.theme") == "light"
        keys.press("Shift+Tab")
        keys.press("Enter")
        here.wait(f"{FOCUS} === 'Corrections' && document.activeElement.tagName === 'H1'")
        assert here.value("document.querySelector('[aria-current]').innerText") == "Corrections"
        here.value("document.activeElement.blur()")
        here.page.focus("#skip")
        keys.press("Enter")
        assert here.value("document.activeElement.id") == "view"
        assert here.value("location.hash") == "#/corrections"
