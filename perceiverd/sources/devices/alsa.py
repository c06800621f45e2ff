"""Names of sound cards: PortAudio's, which change when cards are plugged in another order, and those that stay.

Knows neither PortAudio nor sound: names in, names out, by the kernel's list of cards.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

CARDS = Path("/sys/class/sound")
"""A confined service sees it; it does not see /proc/asound."""
BY = (Path("/dev/snd/by-id"), Path("/dev/snd/by-path"))
NODES = Path("/dev/snd")

STABLE = re.compile(r"(?:plug)?hw:CARD=(?P<card>[^,]+)(?:,DEV=(?P<number>\d+))?")
NUMBERED = re.compile(r"\bhw:(\d+),(\d+)\)?$")
"""How PortAudio ends the name of what is hardware: `USB Audio: - (hw:1,0)`."""

Place = tuple[int, int]
"""A card's number, and that of a device on it."""


def cards() -> dict[int, str]:
    """The cards that the kernel knows: their stable names by number."""
    found: dict[int, str] = {}
    for folder in CARDS.glob("card*"):
        if folder.name[4:].isdecimal():
            try:
                found[int(folder.name[4:])] = (folder / "id").read_text(errors="replace").strip()
            except OSError:
                continue  # just unplugged
    return found


def place_of(portaudio: str) -> Place | None:
    """Which hardware a name of PortAudio's stands for; None for what is made of software."""
    found = NUMBERED.search(portaudio)
    return (int(found[1]), int(found[2])) if found else None


def is_stable(device: str) -> bool:
    """Whether a configuration's device is a stable name, be there such a card or not."""
    return bool(STABLE.fullmatch(device)) or device.startswith("/") or _link(device) is not None


def place(device: str, known: dict[int, str]) -> Place | None:
    """The hardware that a stable name stands for now, `known` being the cards; None where there is none."""
    if found := STABLE.fullmatch(device):
        # ALSA takes a number there, too.
        wanted, number = found["card"], int(found["number"] or 0)
        card = next((card for card, name in known.items() if wanted in (name, str(card))), None)
        return None if card is None else (card, number)
    link = _link(device)
    control = re.fullmatch(r"controlC(\d+)", Path(os.path.realpath(link)).name) if link else None
    return (int(control[1]), 0) if control else None


def stable(portaudio: str, known: dict[int, str]) -> str | None:
    """The name for the configuration that stays the same: `hw:CARD=Device,DEV=0`; None for what is software."""
    at = place_of(portaudio)
    return f"hw:CARD={known[at[0]]},DEV={at[1]}" if at and at[0] in known else None


def node(at: Place) -> Path:
    """What has to be opened to hear it."""
    return NODES / f"pcmC{at[0]}D{at[1]}c"


def capturing() -> list[Place]:
    """All hardware that sound can be taken from, whether it is free or not."""
    found = (re.fullmatch(r"pcmC(\d+)D(\d+)c", entry.name) for entry in CARDS.glob("pcmC*c"))
    return sorted((int(each[1]), int(each[2])) for each in found if each)


def _link(device: str) -> Path | None:
    if device.startswith("/"):
        return Path(device) if Path(device).exists() else None
    return next((folder / device for folder in BY if "/" not in device and (folder / device).exists()), None)
