"""Names of sound cards, and the users of a device."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiverd.sources.devices import alsa
from perceiverd.sources.devices.usage import describe_users, users_of

CARDS = {0: "PCH", 1: "Device"}


@pytest.mark.parametrize(
    ("device", "place"),
    [
        ("hw:CARD=Device,DEV=0", (1, 0)),
        ("hw:CARD=PCH", (0, 0)),
        ("hw:CARD=PCH,DEV=2", (0, 2)),
        ("plughw:CARD=Device,DEV=0", (1, 0)),
        ("hw:CARD=1", (1, 0)),
        ("hw:CARD=Gone,DEV=0", None),
    ],
)
def test_stable_names_of_cards(device: str, place: alsa.Place | None) -> None:
    """A stable name gives the current number of the card, or None if it is not plugged in."""
    assert alsa.is_stable(device)
    assert alsa.place(device, CARDS) == place


@given(st.integers(0, 31), st.integers(0, 9), st.text(st.characters(exclude_characters=",\0"), min_size=1))
def test_portaudios_name_and_the_stable_one_mean_the_same(card: int, number: int, name: str) -> None:
    """The stable name of a listed device leads back to the same hardware."""
    listed = f"{name}: ALC295 Analog (hw:{card},{number})"
    stable = alsa.stable(listed, {card: name})
    assert stable and alsa.place(stable, {card: name}) == alsa.place_of(listed) == (card, number)


@pytest.mark.parametrize("name", ["pulse", "default", "fake microphone", "sysdefault"])
def test_software_has_no_stable_name(name: str) -> None:
    """A software device has no stable name."""
    assert alsa.place_of(name) is None and alsa.stable(name, CARDS) is None and not alsa.is_stable(name)


def test_a_udev_link_leads_to_its_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of the link and its whole path both lead to the card."""
    (tmp_path / "by-id").mkdir()
    (tmp_path / "controlC1").touch()
    link = tmp_path / "by-id" / "usb-Yeti-00"
    link.symlink_to("../controlC1")
    monkeypatch.setattr(alsa, "BY", (tmp_path / "by-id",))
    assert alsa.place("usb-Yeti-00", CARDS) == alsa.place(str(link), CARDS) == (1, 0)
    assert alsa.is_stable("usb-Yeti-00") and not alsa.is_stable("usb-Other-00")


def test_users_of_a_device_are_named() -> None:
    """Each program that has the device open is listed with its name and pid."""
    _, terminal = os.openpty()
    path = os.ttyname(terminal)
    os.close(terminal)
    assert describe_users(path) == "another program"
    command = [sys.executable, "-c", f"f = open({path!r}); print(flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout and holder.stdin
        holder.stdout.readline()
        assert [each.pid for each in users_of(path)] == [holder.pid]
        assert f"(pid {holder.pid})" in describe_users(path)
        holder.stdin.close()
    assert users_of("/dev/there-is-no-such-device") == ()
