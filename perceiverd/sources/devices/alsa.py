"""Names of sound cards: PortAudio's, which depend on the order of plugging in, and stable ones.

Knows neither PortAudio nor audio: names in, names out, from the kernel's list of cards.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

CARDS = Path("/sys/class/sound")
"""A confined service can read this; it cannot read /proc/asound."""
BY = (Path("/dev/snd/by-id"), Path("/dev/snd/by-path"))
NODES = Path("/dev/snd")

STABLE = re.compile(r"(?:plug)?hw:CARD=(?P<card>[^,]+)(?:,DEV=(?P<number>\d+))?")
NUMBERED = re.compile(r"\bhw:(\d+),(\d+)\)?$")
"""The end of PortAudio's name for hardware: `USB Audio: - (hw:1,0)`."""

Place = tuple[int, int]
"""The number of a card, and of a device on it."""


def cards() -> dict[int, str]:
    """The stable names of the kernel's cards, by number."""
    found: dict[int, str] = {}
    for folder in CARDS.glob("card*"):
        if folder.name[4:].isdecimal():
            try:
                found[int(folder.name[4:])] = (folder / "id").read_text(errors="replace").strip()
            except OSError:
                continue  # just unplugged
    return found


def place_of(portaudio: str) -> Place | None:
    """The hardware that a name of PortAudio means; None for a software device."""
    found = NUMBERED.search(portaudio)
    return (int(found[1]), int(found[2])) if found else None


def is_stable(device: str) -> bool:
    """Whether a configured device is a stable name, whether or not the card exists."""
    return bool(STABLE.fullmatch(device)) or device.startswith("/") or _link(device) is not None


def place(device: str, known: dict[int, str]) -> Place | None:
    """The hardware that a stable name means now, with `known` from `cards`; None if it is not plugged in."""
    if found := STABLE.fullmatch(device):
        # ALSA accepts a number there, too.
        wanted, number = found["card"], int(found["number"] or 0)
        card = next((card for card, name in known.items() if wanted in (name, str(card))), None)
        return None if card is None else (card, number)
    link = _link(device)
    control = re.fullmatch(r"controlC(\d+)", Path(os.path.realpath(link)).name) if link else None
    return (int(control[1]), 0) if control else None


def stable(portaudio: str, known: dict[int, str]) -> str | None:
    """The stable name for a configuration, `hw:CARD=Device,DEV=0`; None for a software device."""
    at = place_of(portaudio)
    return f"hw:CARD={known[at[0]]},DEV={at[1]}" if at and at[0] in known else None


def node(at: Place) -> Path:
    """The device node to open for audio input."""
    return NODES / f"pcmC{at[0]}D{at[1]}c"


def capturing() -> list[Place]:
    """All hardware with audio input, free or busy."""
    found = (re.fullmatch(r"pcmC(\d+)D(\d+)c", entry.name) for entry in CARDS.glob("pcmC*c"))
    return sorted((int(each[1]), int(each[2])) for each in found if each)


def _link(device: str) -> Path | None:
    if device.startswith("/"):
        return Path(device) if Path(device).exists() else None
    return next((folder / device for folder in BY if "/" not in device and (folder / device).exists()), None)
