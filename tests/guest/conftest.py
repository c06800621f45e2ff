"""One installation for all tests in a guest."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest.installation import DEPENDENCIES, OPT, UNIT, WATCHDOG_S, call, make


@pytest.fixture(scope="session", autouse=True)
def installed() -> Iterator[None]:
    """Runs `make install` and shortens the unit's time-outs; `make uninstall` is the last test."""
    call("/usr/bin/python3", "-m", "venv", OPT)
    (next(OPT.glob("lib/python*/site-packages")) / "borrowed.pth").write_text(f"{DEPENDENCIES}\n")
    assert "installed." in make("install")
    drop_in = Path(f"/etc/systemd/system/{UNIT}.d/test.conf")
    drop_in.parent.mkdir()
    drop_in.write_text(f"[Service]\nWatchdogSec={WATCHDOG_S}\nRestartSec=1\n")
    call("systemctl", "daemon-reload")
    yield
    call("systemctl", "stop", UNIT, check=False)
