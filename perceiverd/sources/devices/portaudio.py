"""PortAudio's list of microphones: which there are, which one a configuration means, and why one cannot be opened.

Opens no stream and knows no audio.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType

from perceiverd.core.errors import MediaError
from perceiverd.sources.devices import alsa
from perceiverd.sources.devices.usage import describe_users
from perceiverd.sources.specs import Microphone

RATES_HZ = (48_000, 44_100, 32_000, 16_000, 96_000, 8_000)
"""Tried in this order if a device does not accept the rate that it calls its own."""
UNAVAILABLE = -9985
"""PortAudio's paDeviceUnavailable."""
SERVERS = ("pulse", "pipewire")
"""Sound servers, by a part of their program's name. ALSA has a device of the same name for each."""
MISSING = (
    "microphones need PortAudio's library, which is not installed; Debian, Ubuntu: apt-get install libportaudio2 "
    "(Fedora: dnf install portaudio)"
)
SEE_DEVICES = "; `perceiverd devices` lists all devices"


@dataclass(frozen=True, slots=True)
class InputDevice:
    """A microphone in PortAudio's list."""

    index: int
    name: str
    channels: int
    rate_hz: int
    """Its own rate."""


def load() -> ModuleType:
    """The package sounddevice, with PortAudio initialised. Raises MediaError if one of them is missing."""
    os.environ.setdefault("JACK_NO_START_SERVER", "1")  # PortAudio also asks JACK, which would start a server
    try:
        with silenced():
            import sounddevice
    except OSError:
        raise MediaError(MISSING) from None
    except ModuleNotFoundError:
        raise MediaError("microphones need the package sounddevice; pip install sounddevice") from None
    module: ModuleType = sounddevice
    return module


def input_devices(library: ModuleType) -> tuple[InputDevice, ...]:
    """All microphones, as of the moment when PortAudio was loaded; busy ones may be missing."""
    return tuple(
        InputDevice(index, each["name"], each["max_input_channels"], round(each["default_samplerate"]))
        for index, each in enumerate(library.query_devices())
        if each["max_input_channels"] > 0
    )


def default_index(library: ModuleType) -> int | None:
    """The index of the system's default microphone; None if it has none."""
    index = library.default.device[0]
    return index if isinstance(index, int) and index >= 0 else None


def find(device: str | int | None, known: Sequence[InputDevice], cards: dict[int, str]) -> InputDevice:
    """The microphone that a configuration means.

    Raises MediaError, which names the microphones that exist, or says why this one cannot be used.
    """
    others = "; there are " + ", ".join(f"{each.index}: {each.name}" for each in known) if known else ""
    others += SEE_DEVICES
    if device is None:
        chosen = next((each for each in known if each.name == "default"), known[0] if known else None)
        if chosen is None:
            raise MediaError(f"microphone: no microphone was found{_obstacle(None)}{others}")
        return chosen
    if isinstance(device, int) or device.isdecimal():
        if numbered := [each for each in known if each.index == int(device)]:
            return numbered[0]
        raise MediaError(f"microphone {device}: no microphone has this number{others}")
    if alsa.is_stable(device):
        return _by_stable_name(device, known, cards)
    exact = [each for each in known if each.name == device]
    similar = exact or [each for each in known if device.casefold() in each.name.casefold()]
    if len(similar) == 1 or exact:
        return similar[0]
    if similar:
        names = ", ".join(each.name for each in similar)
        raise MediaError(f"microphone {device!r}: could be any of {names}; write more of the name")
    raise MediaError(f"microphone {device!r}: no microphone has this name{others}")


def settings(library: ModuleType, device: InputDevice, spec: Microphone) -> tuple[int, int]:
    """A rate in Hz and a number of channels that the device accepts. Raises MediaError."""
    if spec.channel and spec.channel > device.channels:
        many = "channel" if device.channels == 1 else "channels"
        raise MediaError(f"microphone {device.name}: has {device.channels} {many}, and no channel {spec.channel}")
    least = spec.channel or min(2, device.channels)
    counts = dict.fromkeys((least, device.channels))
    rates_hz = (spec.rate_hz,) if spec.rate_hz else tuple(dict.fromkeys((device.rate_hz, *RATES_HZ)))
    fault: Exception | None = None
    for rate_hz in rates_hz:
        for channels in counts:
            try:
                with silenced():
                    library.check_input_settings(device.index, channels, "float32", samplerate=rate_hz)
            except library.PortAudioError as error:
                fault = fault or error
                if _code(error) == UNAVAILABLE:  # other settings would fail as well, and take time
                    raise MediaError(f"microphone {device.name}: {why(device, error)}") from None
            else:
                return rate_hz, channels
    assert fault
    if spec.rate_hz:
        raise MediaError(
            f"microphone {device.name}: does not accept {spec.rate_hz} samples a second; leave rate_hz out "
            f"(its own is {device.rate_hz})"
        )
    raise MediaError(f"microphone {device.name}: {why(device, fault)}")


def why(device: InputDevice, error: Exception) -> str:
    """Why the device cannot be opened, from PortAudio's error, and what to do."""
    if _code(error) == UNAVAILABLE:
        place = alsa.place_of(device.name)
        return (_obstacle(place) if place else "") or "cannot be opened now; is its sound server running?"
    text = re.sub(r"\s*\[PaErrorCode .*?\]", "", str(error.args[0] if error.args else error))
    return f"cannot be opened ({text}); check its plug, or the sound server"


@contextmanager
def silenced() -> Iterator[None]:
    """Discard standard error: ALSA and JACK print pages about what they tried, and our errors say what is wrong.

    This redirects the file descriptor, because C libraries know of nothing else. The process must do nothing else
    meanwhile.
    """
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def _by_stable_name(device: str, known: Sequence[InputDevice], cards: dict[int, str]) -> InputDevice:
    place = alsa.place(device, cards)
    if place is None:
        ids = ", ".join(f"hw:CARD={name}" for name in cards.values()) or "none"
        raise MediaError(f"microphone {device}: is not plugged in; cards that are: {ids}{SEE_DEVICES}")
    if chosen := next((each for each in known if alsa.place_of(each.name) == place), None):
        return chosen
    raise MediaError(f"microphone {device}: {_obstacle(place) or f'has no audio input{SEE_DEVICES}'}")


def _obstacle(place: alsa.Place | None) -> str:
    """Why PortAudio cannot use this hardware, or any hardware for None; empty if we do not know."""
    for each in [place] if place else alsa.capturing():
        node = alsa.node(each)
        if not node.exists():
            continue
        prefix = "" if place else f": {node}: "
        if not os.access(node, os.R_OK | os.W_OK):
            what = "this user may not open it"
            return f"{prefix}{what}; add the user to the group audio (a service: SupplementaryGroups=audio)"
        users = describe_users(node)
        server = next((name for name in SERVERS if name in users), None)
        hint = f'use it through that (device = "{server}"), or end that' if server else "end that first"
        return f"{prefix}is busy, {users} uses it; {hint}"
    return ""


def _code(error: Exception) -> int | None:
    return next((each for each in error.args if isinstance(each, int)), None)
