"""`perceiverd devices`: which cameras and microphones there are, what they give now, and how to write them down.

Every device is looked at in a process of its own, which is killed when it takes too long: a driver that hangs is told
of like any other fault.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from perceiverd.cli.terminal import Glyphs
from perceiverd.core.errors import PerceiverdError
from perceiverd.core.media import MediaFormat
from perceiverd.model.card import DEFAULT, load_card
from perceiverd.sources.devices import alsa, v4l2
from perceiverd.sources.process.probe import (
    Answer,
    AudioQuality,
    ExamineCamera,
    Failed,
    FoundCamera,
    FoundMicrophone,
    ListMicrophones,
    OpenedDevice,
    Question,
    TryDevice,
    VideoQuality,
)
from perceiverd.sources.specs import Camera, Microphone

LOOK_S = 30.0
"""What a driver may take to answer, and PortAudio to ask all of its own."""
LEVEL_S, TRY_S = 1.0, 3.0
OPEN_S = 20.0
"""And to open a device, and to give its first data."""
KILL_S = 1.0
QUIETEST_DBFS = -72.0
"""Where the bar of a level begins."""
BAR = 24
FAINT_DBFS, LOUD_DBFS, SILENT_DBFS = -65.0, -0.5, -119.0
DARK, SHOWN_FORMATS = 0.02, 4

NO_CAMERA = """\
  None. perceiverd looked for /dev/video*, where Linux shows cameras.
    * Plug one in, or switch it on: laptops have a key or a slider for it. `dmesg | tail` then says what was found.
    * In a container give it to it: docker run --device /dev/video0 --group-add video ...
    * In a virtual machine pass the USB device through; WSL needs usbipd.
    * A network camera needs none of this: kind = "url" in the configuration."""
NO_MICROPHONE = """\
  None. perceiverd asked PortAudio, which asks ALSA.
    * Plug one in; `arecord -l` (Debian, Ubuntu: alsa-utils) lists what the kernel has found.
    * In a container give it to it: docker run --device /dev/snd --group-add audio ...
    * A network camera may have one: kind = "url" in the configuration gives both."""
NOTHING = """\
Without any device, this plays colour bars with a flash and a beep each second:

  [streams.test]
  sources = [{ kind = "synthetic" }]"""


@dataclass(frozen=True, slots=True)
class CameraReport:
    """A node of V4L2, and what kept it from being looked at."""

    path: str
    found: FoundCamera | None
    fault: str | None


@dataclass(frozen=True, slots=True)
class MicrophoneReport:
    """A microphone with its level now, or what kept it from being heard."""

    found: FoundMicrophone
    heard: AudioQuality | None
    fault: str | None


class Asking:
    """A question on its way: the process starts at once, `answers` waits for it."""

    def __init__(self, question: Question, within_s: float) -> None:
        self._within_s, self._until_s = within_s, time.monotonic() + within_s
        self._process = subprocess.Popen(
            [sys.executable, "-m", "perceiverd.sources.process.probe"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what libraries print there; faults come as answers
        )
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(msgspec.json.encode(question) + b"\n")
            self._process.stdin.flush()

    def answers(self) -> list[Answer]:
        """All of them; a Failed at the end where it took too long, or died."""
        try:
            output, _ = self._process.communicate(timeout=max(0.0, self._until_s - time.monotonic()))
            fault = None if output.strip() or not self._process.returncode else "the process that looked at it died"
        except subprocess.TimeoutExpired:
            self._process.kill()
            output, fault = b"", f"does not answer within {self._within_s:g} s; its driver or sound server may hang"
            with contextlib.suppress(subprocess.TimeoutExpired):  # not even killed: it hangs in the kernel
                output, _ = self._process.communicate(timeout=KILL_S)
        lines = [line for line in output.splitlines() if line.endswith(b"}")]
        found = [msgspec.json.decode(line, type=Answer) for line in lines]
        return [*found, Failed(fault)] if fault else found

    def close(self) -> None:
        """End it, if it still runs."""
        if self._process.poll() is None:
            self._process.kill()


def devices(*, json: bool = False) -> int:
    """List them all; 0 where a camera or a microphone can be used, 1 where none can."""
    paths = v4l2.paths()
    looking = [Asking(ExamineCamera(path), LOOK_S) for path in paths]
    listing = Asking(ListMicrophones(), LOOK_S)
    if not json:
        print("Cameras", flush=True)
    cameras = [_camera(path, asking.answers()) for path, asking in zip(paths, looking, strict=True)]
    if not json:
        print("\n".join(_camera_lines(cameras)) or NO_CAMERA)
        print("\nMicrophones (listening for a second) ...", flush=True)
    listed = listing.answers()
    microphones = _levels([each for each in listed if isinstance(each, FoundMicrophone)])
    fault = next((each.message for each in listed if isinstance(each, Failed)), None)
    good = _usable(cameras, microphones)
    if json:
        print(msgspec.json.format(msgspec.json.encode(_table(cameras, microphones, fault)), indent=2).decode())
    else:
        print("\n".join(_microphone_lines(microphones)) or (f"  {fault}" if fault else _no_microphone()))
        print(f"\n{_advice(good)}")
    return 0 if good else 1


def try_out(name: str, *, json: bool = False) -> int:
    """Open one for 3 s and tell what came; 0 where something did. Raises PerceiverdError for a name of nothing."""
    source = named(name)
    wanted = load_card(DEFAULT).geometry.media_format
    if not json:
        print(f"{name}: opening it as a {'camera' if isinstance(source, Camera) else 'microphone'} ...", flush=True)
    answers = Asking(TryDevice(source, wanted, TRY_S), OPEN_S + TRY_S).answers()
    failed = next((each for each in answers if isinstance(each, Failed)), None)
    if json:
        print(msgspec.json.encode([msgspec.to_builtins(each) for each in answers]).decode())
    else:
        for line in (line for each in answers for line in _tried(each)):
            print(line)
    if failed:
        if not json:
            # A name that says not what it is of is looked for among both, among microphones last.
            nobody = f"microphone {name!r}: there is none of this name"
            said = failed.message.replace(nobody, f"{name!r}: no camera or microphone has this name")
            print(f"perceiverd: {said}", file=sys.stderr)
        return 1
    if not json:
        print(f"\nFor the configuration:\n\n{_configuration([source])}")
    return 0


def named(name: str) -> Camera | Microphone:
    """What a name on the command line means. Raises PerceiverdError where that can't be told."""
    try:
        return _named(name)
    except ValueError as error:  # what no configuration may hold either
        raise PerceiverdError(f"{name!r}: {error}; `perceiverd devices` lists them") from None


def _named(name: str) -> Camera | Microphone:
    kind, sign, rest = name.partition(":")
    if kind in ("camera", "microphone") and sign:
        device = int(rest) if rest.isdecimal() else rest
        return Camera(device=device) if kind == "camera" else Microphone(device=device)
    if name.startswith(("/dev/video", "/dev/v4l/")):
        return Camera(device=name)
    if name.startswith("/dev/snd/"):
        return Microphone(device=name)
    if name.startswith("/"):
        raise PerceiverdError(f"{name}: is no device of a camera or microphone; `perceiverd devices` lists them")
    if any((v4l2.DEV / folder / name).exists() for folder in v4l2.STABLE):
        return Camera(device=name)
    if name.isdecimal():
        raise PerceiverdError(f"{name}: a camera's number or a microphone's? Say camera:{name} or microphone:{name}")
    return Microphone(device=name)


def _camera(path: str, answers: Sequence[Answer]) -> CameraReport:
    found = next((each for each in answers if isinstance(each, FoundCamera)), None)
    return CameraReport(path, found, next((each.message for each in answers if isinstance(each, Failed)), None))


def _levels(found: Sequence[FoundMicrophone]) -> list[MicrophoneReport]:
    """Listen to them: to hardware all at once, then to what is software in turn, which may stand on the hardware."""
    hardware = [each for each in found if each.stable]
    reports = {each.index: asking for each, asking in [(each, _listening(each)) for each in hardware]}
    heard = {index: _level(asking.answers()) for index, asking in reports.items()}
    for each in found:
        if each.index not in heard:
            heard[each.index] = _level(_listening(each).answers())
    return [MicrophoneReport(each, *heard[each.index]) for each in found]


def _listening(microphone: FoundMicrophone) -> Asking:
    return Asking(TryDevice(Microphone(device=microphone.index), MediaFormat(16_000), LEVEL_S), OPEN_S)


def _level(answers: Sequence[Answer]) -> tuple[AudioQuality | None, str | None]:
    heard = next((each for each in answers if isinstance(each, AudioQuality)), None)
    return heard, next((each.message for each in answers if isinstance(each, Failed)), None)


def _usable(cameras: Sequence[CameraReport], microphones: Sequence[MicrophoneReport]) -> list[Camera | Microphone]:
    """The first of each that works, hardware before software, as it would stand in a configuration."""
    good: list[Camera | Microphone] = []
    for camera in cameras:
        if camera.found and camera.found.captures and not camera.found.busy:
            good.append(Camera(device=camera.found.stable or camera.path))
            break
    heard = [each for each in microphones if each.heard]
    heard.sort(key=lambda each: (each.found.stable is None, each.heard.rms_dbfs < SILENT_DBFS if each.heard else True))
    if heard:
        good.append(Microphone(device=heard[0].found.stable or heard[0].found.name))
    return good


def _camera_lines(cameras: Sequence[CameraReport]) -> Iterator[str]:
    for camera in cameras:
        found = camera.found
        if found is None:
            yield f"  {camera.path}\n    fault    {(camera.fault or '').removeprefix(f'camera {camera.path}: ')}"
            continue
        if not found.captures:
            yield f"  {found.path}  {found.name}: gives no pictures (another node of the same device does)"
            continue
        yield f"  {found.path}  {found.name}"
        yield f'    device   "{found.stable or found.path}"' + ("" if found.stable else "  (has no stable name)")
        known = [name for name in v4l2.READABLE if name in found.formats]
        for name in known[:SHOWN_FORMATS]:
            sizes = ", ".join(f"{width}x{height} {fps:.4g}/s" for width, height, fps in found.formats[name])
            yield f"    {name:8} {sizes}"
        if more := [*known[SHOWN_FORMATS:], *(name for name in found.formats if name not in v4l2.READABLE)]:
            yield f"    also     {', '.join(more)}"
        if found.busy:
            yield f"    busy     {', '.join(found.holders) or 'another program'} has it; end that to use it"
        elif found.holders:
            yield f"    open in  {', '.join(found.holders)}"


def _microphone_lines(microphones: Sequence[MicrophoneReport]) -> Iterator[str]:
    for microphone in microphones:
        found = microphone.found
        yield f"  {found.index}  {found.name}{'  (the default)' if found.default else ''}"
        yield f'    device   "{found.stable or found.name}"'
        channels = "1 channel" if found.channels == 1 else f"{found.channels} channels"
        yield f"    gives    {found.rate_hz} Hz, {channels}"
        if microphone.heard:
            yield f"    level    {_bar(microphone.heard)}"
        if microphone.fault:
            yield f"    fault    {microphone.fault.removeprefix(f'microphone {found.name}: ')}"


def _bar(heard: AudioQuality) -> str:
    signs = Glyphs.of(sys.stdout.encoding or "ascii")
    drawn = signs.bar(1 - heard.rms_dbfs / QUIETEST_DBFS, BAR)
    return f"{drawn} {heard.rms_dbfs:6.1f} dBFS, peak {heard.peak_dbfs:.1f}{_remark(heard)}"


def _remark(heard: AudioQuality) -> str:
    if heard.peak_dbfs <= SILENT_DBFS:
        return "; exact silence: is it muted? (alsamixer, F4)"
    if heard.peak_dbfs >= LOUD_DBFS:
        return "; too loud, it is cut off: turn its gain down (alsamixer, F4)"
    if heard.peak_dbfs < FAINT_DBFS:
        return "; very faint: turn its gain up (alsamixer, F4)"
    return ""


def _tried(answer: Answer) -> Iterator[str]:
    match answer:
        case OpenedDevice():
            yield f"  opened       {answer.name}: {answer.how}"
        case VideoQuality():
            yield f"  first data   after {answer.first_ms:.0f} ms"
            size = f"{answer.width}x{answer.height}"
            yield f"  came         {answer.pictures} pictures of {size}, {answer.fps:.2f} a second"
            yield f"  jitter       {answer.jitter_ms:.1f} ms from one to the next"
            how = "by the kernel's stamps" if answer.stamped else "by when they came: the driver gives no usable stamps"
            yield f"  time         {how}; {answer.late_ms:.0f} ms old when they came"
            dark = "; black: is the lens covered?" if answer.brightness < DARK else ""
            yield f"  brightness   {answer.brightness:.0%}{dark}"
        case AudioQuality():
            yield f"  first data   after {answer.first_ms:.0f} ms"
            yield f"  came         {answer.rate_hz:.0f} samples a second"
            yield f"  jitter       {answer.jitter_ms:.1f} ms late on average"
            how = "by the device's stamps" if answer.stamped else "by when it came, as through a sound server"
            yield f"  time         {how}; {answer.interruptions} interruptions"
            yield f"  level        {_bar(answer)}"


def _no_microphone() -> str:
    """What to do, with what the kernel knows of sound cards that PortAudio doesn't tell of."""
    cards = ", ".join(alsa.cards().values())
    if not alsa.capturing():
        return NO_MICROPHONE
    return (
        f"  None that can be used, though the kernel has cards ({cards}). Either this user may not open /dev/snd (add\n"
        "  the user to the group audio), or another program has it (`fuser -v /dev/snd/*` says which)."
    )


def _advice(good: Sequence[Camera | Microphone]) -> str:
    if not good:
        return NOTHING
    kinds = " and ".join("see" if isinstance(each, Camera) else "hear" for each in good)
    first = good[0]
    what = f"camera:{first.device}" if isinstance(first.device, int) else str(first.device)
    lines = _configuration(good)
    attempt = f"To try one out: perceiverd devices --try '{what}'"
    return f"To {kinds} with perceiverd, write into its configuration:\n\n{lines}\n\n{attempt}"


def _configuration(sources: Sequence[Camera | Microphone]) -> str:
    lines = [f"      {{ {_fields(source)} }}," for source in sources]
    return "\n".join(["  [streams.room]", "  sources = [", *lines, "  ]"])


def _fields(source: Camera | Microphone) -> str:
    device = source.device
    said = "" if device is None else f", device = {device if isinstance(device, int) else _quoted(device)}"
    return f'kind = "{_kind(source)}"{said}'


def _kind(source: Camera | Microphone) -> str:
    return "camera" if isinstance(source, Camera) else "microphone"


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()


def _table(
    cameras: Sequence[CameraReport], microphones: Sequence[MicrophoneReport], fault: str | None
) -> dict[str, Any]:
    def plain(found: Any, **more: Any) -> dict[str, Any]:
        told: dict[str, Any] = msgspec.to_builtins(found) if found else {}
        told.pop("type", None)
        return told | more

    return {
        "cameras": [plain(each.found, path=each.path, fault=each.fault) for each in cameras],
        "microphones": [
            plain(each.found, level=plain(each.heard) if each.heard else None, fault=each.fault) for each in microphones
        ],
        "fault": fault,
        "configuration": [{"kind": _kind(each), "device": each.device} for each in _usable(cameras, microphones)],
    }
