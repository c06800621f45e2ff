"""Visits to the page of `perceiverd web` in Chromium. A page with faults fails its test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser

from tests.support.browser import READY_MS, Visit
from tests.support.pages import PageProcess

DESKTOP_PX, PHONE_PX = 1280, 360
ZONE = "Europe/Berlin"
OVERFLOW = "document.documentElement.scrollWidth - innerWidth"
VIEW = "document.documentElement.dataset.ready"


@contextmanager
def visited(
    browser: Browser, page: PageProcess, fragment: str = "", *, width: int = DESKTOP_PX, dark: bool = False
) -> Iterator[Visit]:
    """Open a view and wait until it is shown. Fails at the end if the page had faults."""
    context = browser.new_context(
        viewport={"width": width, "height": 840},
        color_scheme="dark" if dark else "light",
        timezone_id=ZONE,
        is_mobile=width < DESKTOP_PX,
        has_touch=width < DESKTOP_PX,
        reduced_motion="reduce",
    )
    origin = f"http://127.0.0.1:{page.port}/"
    try:
        shown = context.new_page()
        shown.set_default_timeout(READY_MS)
        here = Visit(shown)
        shown.on("console", lambda line: here.faults.append(line.text) if line.type in ("warning", "error") else None)
        shown.on("pageerror", lambda error: here.faults.append(str(error)))
        shown.on(
            "request",
            lambda request: None if request.url.startswith((origin, "blob:")) else here.faults.append(request.url),
        )
        shown.goto(origin + fragment)
        shown.wait_for_selector("html[data-ready]")
        yield here
        assert here.faults == []
    finally:
        context.close()


def go(here: Visit, fragment: str) -> None:
    """Go to another view, and wait until it is shown."""
    here.value("delete document.documentElement.dataset.ready")
    here.value(f"location.hash = {fragment!r}")
    here.wait(f"{VIEW} !== undefined")


def text(here: Visit, selector: str) -> str:
    """The text of the first element, or nothing."""
    found: str = here.value(f"document.querySelector({selector!r})?.innerText ?? ''")
    return " ".join(found.split())


def waits_for(here: Visit, selector: str, words: str) -> None:
    """Wait until an element that the selector finds has these words."""
    here.wait(f"[...document.querySelectorAll({selector!r})].some((each) => each.innerText.includes({words!r}))")
