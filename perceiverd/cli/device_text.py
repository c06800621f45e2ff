"""What `perceiverd devices` prints: lists, results of `--try` and advice as text, and JSON. Opens no device."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from perceiverd.cli.terminal import Glyphs
from perceiverd.sources.devices import alsa, v4l2
from perceiverd.sources.process.probe import (
    Answer,
    AudioQuality,
    FoundCamera,
    FoundMicrophone,
    OpenedDevice,
    VideoQuality,
)
from perceiverd.sources.specs import Camera, Microphone

QUIETEST_DBFS = -72.0
"""The level at which the bar begins."""
BAR = 24
FAINT_DBFS, LOUD_DBFS, SILENT_DBFS = -65.0, -0.5, -119.0
"""Peaks below FAINT_DBFS, above LOUD_DBFS and at most SILENT_DBFS get a remark."""
DARK = 0.02
"""Brightness, 0..1, below which a camera's frames count as black."""
SHOWN_FORMATS = 4
"""Pixel formats of a camera that are listed with their sizes."""

NO_CAMERA = """\
  None. perceiverd looked for /dev/video*, where Linux shows cameras.
    * Connect a camera, or switch it on: some laptops have a key or a slider for it. `dmesg | tail` then shows it.
    * In a container, pass the device: docker run --device /dev/video0 --group-add video ...
    * In a virtual machine, pass the USB device through. WSL needs usbipd.
    * A network camera needs no device: use kind = "url" in the configuration."""
NO_MICROPHONE = """\
  None. perceiverd asked PortAudio, which asks ALSA.
    * Connect a microphone. `arecord -l` (Debian, Ubuntu: alsa-utils) lists those that the kernel has found.
    * In a container, pass the devices: docker run --device /dev/snd --group-add audio ...
    * A network camera may have a microphone: kind = "url" in the configuration gives its audio and video."""
NO_DEVICE = """\
This source needs no device; it gives colour bars, and a flash with a beep each second:

  [streams.test]
  sources = [{ kind = "synthetic" }]"""


@dataclass(frozen=True, slots=True)
class CameraReport:
    """A V4L2 node."""

    path: str
    found: FoundCamera | None
    """None if it could not be examined."""
    fault: str | None
    """The reason for that."""


@dataclass(frozen=True, slots=True)
class MicrophoneReport:
    """A microphone with its level now."""

    found: FoundMicrophone
    audio: AudioQuality | None
    """None if it gave no audio."""
    fault: str | None
    """The reason for that."""


def camera_lines(cameras: Sequence[CameraReport]) -> str:
    """The list of cameras, or what to do if there is none."""
    return "\n".join(line for camera in cameras for line in _camera(camera)) or NO_CAMERA


def _camera(camera: CameraReport) -> Iterator[str]:
    found = camera.found
    if found is None:
        yield f"  {camera.path}\n    fault    {(camera.fault or '').removeprefix(f'camera {camera.path}: ')}"
        return
    if not found.captures:
        yield f"  {found.path}  {found.name}: gives no video (another node of the same device does)"
        return
    yield f"  {found.path}  {found.name}"
    yield f'    device   "{found.stable or found.path}"' + ("" if found.stable else "  (has no stable name)")
    yield from _formats(found)
    if found.busy:
        yield f"    busy     {', '.join(found.holders) or 'another program'} uses it; end that program first"
    elif found.holders:
        yield f"    open in  {', '.join(found.holders)}"


def _formats(found: FoundCamera) -> Iterator[str]:
    readable = [name for name in v4l2.READABLE if name in found.formats]
    for name in readable[:SHOWN_FORMATS]:
        sizes = ", ".join(f"{width}x{height} {fps:.4g}/s" for width, height, fps in found.formats[name])
        yield f"    {name:8} {sizes}"
    if more := [*readable[SHOWN_FORMATS:], *(name for name in found.formats if name not in v4l2.READABLE)]:
        yield f"    also     {', '.join(more)}"


def microphone_lines(microphones: Sequence[MicrophoneReport], fault: str | None) -> str:
    """The list of microphones, or what to do if there is none."""
    lines = "\n".join(line for microphone in microphones for line in _microphone(microphone))
    return lines or (f"  {fault}" if fault else _no_microphone())


def _microphone(microphone: MicrophoneReport) -> Iterator[str]:
    found = microphone.found
    yield f"  {found.index}  {found.name}{'  (the default)' if found.default else ''}"
    yield f'    device   "{found.stable or found.name}"'
    channels = "1 channel" if found.channels == 1 else f"{found.channels} channels"
    yield f"    gives    {found.rate_hz} Hz, {channels}"
    if microphone.audio:
        yield f"    level    {_level(microphone.audio)}"
    if microphone.fault:
        yield f"    fault    {microphone.fault.removeprefix(f'microphone {found.name}: ')}"


def _no_microphone() -> str:
    """Advice; with the sound cards that the kernel has found and PortAudio has not."""
    if not alsa.capturing():
        return NO_MICROPHONE
    cards = ", ".join(alsa.cards().values())
    return (
        f"  None that can be used, but the kernel has found sound cards ({cards}). Either this user may not open\n"
        "  /dev/snd (add the user to the group audio), or another program uses it (`fuser -v /dev/snd/*` shows which)."
    )


def _level(audio: AudioQuality) -> str:
    glyphs = Glyphs.of(sys.stdout.encoding or "ascii")
    bar = glyphs.bar(1 - audio.rms_dbfs / QUIETEST_DBFS, BAR)
    return f"{bar} {audio.rms_dbfs:6.1f} dBFS, peak {audio.peak_dbfs:.1f}{_remark(audio)}"


def _remark(audio: AudioQuality) -> str:
    if audio.peak_dbfs <= SILENT_DBFS:
        return "; all samples are zero: is it muted? (alsamixer, F4)"
    if audio.peak_dbfs >= LOUD_DBFS:
        return "; too loud, the signal clips: reduce its gain (alsamixer, F4)"
    if audio.peak_dbfs < FAINT_DBFS:
        return "; very faint: increase its gain (alsamixer, F4)"
    return ""


def result_lines(answer: Answer) -> Iterator[str]:
    """What a device gave while it was tried."""
    match answer:
        case OpenedDevice():
            yield f"  opened       {answer.name}: {answer.how}"
        case VideoQuality():
            yield f"  first data   after {answer.first_ms:.0f} ms"
            size = f"{answer.width}x{answer.height}"
            yield f"  data         {answer.pictures} frames of {size}, {answer.fps:.2f} per second"
            yield f"  jitter       {answer.jitter_ms:.1f} ms between frames"
            how = "timestamps of the kernel" if answer.stamped else "arrival times, because the driver's are unusable"
            yield f"  time         {how}; frames arrive {answer.late_ms:.0f} ms after their capture"
            dark = "; black: is the lens covered?" if answer.brightness < DARK else ""
            yield f"  brightness   {answer.brightness:.0%}{dark}"
        case AudioQuality():
            yield f"  first data   after {answer.first_ms:.0f} ms"
            yield f"  data         {answer.rate_hz:.0f} samples per second"
            yield f"  jitter       {answer.jitter_ms:.1f} ms late on average"
            how = "timestamps of the device" if answer.stamped else "arrival times, as through a sound server"
            yield f"  time         {how}; {answer.interruptions} interruptions"
            yield f"  level        {_level(answer)}"


def advice(usable: Sequence[Camera | Microphone]) -> str:
    """What to write into the configuration, and how to try a device."""
    if not usable:
        return NO_DEVICE
    kinds = " and ".join(kind_of(each) for each in usable)
    first = usable[0]
    name = f"camera:{first.device}" if isinstance(first.device, int) else str(first.device)
    attempt = f"To try one of them: perceiverd devices --try '{name}'"
    return f"To use this {kinds}, write into the configuration:\n\n{configuration(usable)}\n\n{attempt}"


def configuration(sources: Sequence[Camera | Microphone]) -> str:
    """A stream with these sources, in TOML."""
    lines = [f"      {{ {_fields(source)} }}," for source in sources]
    return "\n".join(["  [streams.room]", "  sources = [", *lines, "  ]"])


def _fields(source: Camera | Microphone) -> str:
    # A string of JSON is a string of TOML too.
    device = "" if source.device is None else f", device = {msgspec.json.encode(source.device).decode()}"
    return f'kind = "{kind_of(source)}"{device}'


def kind_of(source: Camera | Microphone) -> str:
    return "camera" if isinstance(source, Camera) else "microphone"


def json_table(
    cameras: Sequence[CameraReport],
    microphones: Sequence[MicrophoneReport],
    fault: str | None,
    usable: Sequence[Camera | Microphone],
) -> str:
    """All of it as JSON."""
    table = {
        "cameras": [_plain(each.found) | {"path": each.path, "fault": each.fault} for each in cameras],
        "microphones": [
            _plain(each.found) | {"level": _plain(each.audio) or None, "fault": each.fault} for each in microphones
        ],
        "fault": fault,
        "configuration": [{"kind": kind_of(each), "device": each.device} for each in usable],
    }
    return msgspec.json.format(msgspec.json.encode(table), indent=2).decode()


def _plain(answer: Answer | None) -> dict[str, object]:
    """The fields of an answer without its type; empty for None."""
    table: dict[str, object] = msgspec.to_builtins(answer) if answer else {}
    return {key: value for key, value in table.items() if key != "type"}
