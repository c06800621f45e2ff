"""Which microphone a configuration means, from PortAudio's list and the kernel's cards."""

from __future__ import annotations

import pytest

from perceiverd.core.errors import MediaError
from perceiverd.sources.devices.portaudio import InputDevice, find

CARDS = {0: "PCH", 1: "Device"}
KNOWN = [
    InputDevice(0, "HDA Intel PCH: ALC295 Analog (hw:0,0)", 2, 44100),
    InputDevice(4, "USB PnP Sound Device: Audio (hw:1,0)", 1, 48000),
    InputDevice(7, "pulse", 32, 44100),
    InputDevice(8, "default", 32, 44100),
]


@pytest.mark.parametrize(
    ("device", "index"),
    [
        (None, 8),
        (4, 4),
        ("8", 8),
        ("pulse", 7),
        ("usb pnp", 4),
        ("hw:CARD=Device,DEV=0", 4),
        ("hw:CARD=PCH", 0),
        ("hw:1,0", 4),
    ],
)
def test_a_microphone_has_many_names(device: str | int | None, index: int) -> None:
    """It is found by default, by number, by name, by a part of the name, and by its stable name."""
    assert find(device, KNOWN, CARDS).index == index


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        (99, "no microphone has this number; there are 0: HDA"),
        ("nix", "no microphone has this name; there are 0: HDA"),
        ("hw:", "could be any of HDA Intel PCH: ALC295 Analog"),
        ("hw:CARD=Gone", "is not plugged in; cards that are: hw:CARD=PCH, hw:CARD=Device; `perceiverd devices` lists"),
    ],
)
def test_an_unknown_name_is_an_error_that_lists_the_others(device: str | int, expected: str) -> None:
    """The error says in one line what is wrong, and which microphones there are."""
    with pytest.raises(MediaError, match=expected):
        find(device, KNOWN, CARDS)


def test_a_machine_without_microphones() -> None:
    """The error says that no microphone was found."""
    with pytest.raises(MediaError, match="no microphone was found"):
        find(None, [], {})
