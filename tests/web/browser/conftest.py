"""The browser that the tests of the page share."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.support.browser import started_browser


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """One Chromium."""
    with started_browser() as browser:
        yield browser
