"""Chromium for tests of pages. A page that logs an error, or asks for anything beside itself, fails its test."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--no-sandbox",  # tests run as root in containers
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
)
READY_MS = 60_000
"""How long a page may take to be ready on a busy machine."""


@contextmanager
def started_browser() -> Iterator[Browser]:
    """A Chromium without a window."""
    assert CHROMIUM
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@dataclass
class Visit:
    """One visit to a page on disk."""

    page: Page
    faults: list[str] = field(default_factory=list)
    """What the page logged as warnings or errors, and requests that it must not make."""

    def value(self, script: str) -> Any:
        """What a JavaScript expression gives in the page."""
        return self.page.evaluate(script)

    def wait(self, condition: str) -> None:
        """Wait until a JavaScript expression is true in the page."""
        # Playwright's own wait evaluates text inside the page, which the page's policy forbids.
        end_s = time.monotonic() + READY_MS / 1000
        while not self.value(condition):
            assert time.monotonic() < end_s, condition
            self.page.wait_for_timeout(30)

    def violations(self) -> list[str]:
        """The rules of axe that the page breaks, each with the elements that break it."""
        found = Axe().run(self.page).response["violations"]
        return [f"{each['id']}: {[node['html'][:120] for node in each['nodes']]}" for each in found]


@contextmanager
def visit(browser: Browser, path: Path, link: str = "", *, width: int = 1280, dark: bool = False) -> Iterator[Visit]:
    """Open a page on disk and wait until it is drawn. Fails at the end if the page had faults."""
    with started_visit(browser, path, link, width=width, dark=dark) as here:
        here.page.wait_for_selector("html[data-ready]")
        yield here
        assert here.faults == []


@contextmanager
def started_visit(
    browser: Browser, path: Path, link: str = "", *, width: int = 1280, dark: bool = False
) -> Iterator[Visit]:
    """Open a page on disk."""
    context = browser.new_context(viewport={"width": width, "height": 840}, color_scheme="dark" if dark else "light")
    try:
        page = context.new_page()
        page.set_default_timeout(READY_MS)
        here = Visit(page)
        page.on("console", lambda line: here.faults.append(line.text) if line.type in ("warning", "error") else None)
        page.on("pageerror", lambda error: here.faults.append(str(error)))
        page.on("request", lambda request: here.faults.append(request.url) if not _is_own(request.url) else None)
        page.goto(path.as_uri() + link)
        yield here
    finally:
        context.close()


def _is_own(url: str) -> bool:
    """Whether the address is on this disk or in the page itself."""
    return url.startswith(("file:", "data:", "blob:"))
