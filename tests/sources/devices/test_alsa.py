"""Names of sound cards, and who has a device."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiverd.sources.devices import alsa
from perceiverd.sources.devices.usage import holders, told

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
    """They lead to the number that the card has now, or to none where it isn't plugged in."""
    assert alsa.is_stable(device)
    assert alsa.place(device, CARDS) == place


@given(st.integers(0, 31), st.integers(0, 9), st.text(st.characters(exclude_characters=",\0"), min_size=1))
def test_portaudios_name_and_the_stable_one_mean_the_same(card: int, number: int, name: str) -> None:
    """What is written into the configuration leads back to the hardware."""
    listed = f"{name}: ALC295 Analog (hw:{card},{number})"
    stable = alsa.stable(listed, {card: name})
    assert stable and alsa.place(stable, {card: name}) == alsa.place_of(listed) == (card, number)


@pytest.mark.parametrize("name", ["pulse", "default", "fake microphone", "sysdefault"])
def test_software_has_no_stable_name(name: str) -> None:
    """It is known by its own."""
    assert alsa.place_of(name) is None and alsa.stable(name, CARDS) is None and not alsa.is_stable(name)


def test_a_link_of_udevs_leads_to_its_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name alone or its whole path."""
    (tmp_path / "by-id").mkdir()
    (tmp_path / "controlC1").touch()
    link = tmp_path / "by-id" / "usb-Yeti-00"
    link.symlink_to("../controlC1")
    monkeypatch.setattr(alsa, "BY", (tmp_path / "by-id",))
    assert alsa.place("usb-Yeti-00", CARDS) == alsa.place(str(link), CARDS) == (1, 0)
    assert alsa.is_stable("usb-Yeti-00") and not alsa.is_stable("usb-Other-00")


def test_who_has_a_device_is_named() -> None:
    """The program and its number, for each that has it open."""
    _, terminal = os.openpty()
    path = os.ttyname(terminal)
    os.close(terminal)
    assert told(path) == "another program"
    command = [sys.executable, "-c", f"f = open({path!r}); print(flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout and holder.stdin
        holder.stdout.readline()
        assert [each.pid for each in holders(path)] == [holder.pid]
        assert f"(pid {holder.pid})" in told(path)
        holder.stdin.close()
    assert holders("/dev/there-is-no-such-device") == ()
