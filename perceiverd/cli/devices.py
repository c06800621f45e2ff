"""`perceiverd devices`: which cameras and microphones exist, what they give now, and how to configure them.

Each device is examined in a process of its own, which is killed if it takes too long: a driver that hangs is reported
like any other fault.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Sequence

import msgspec

from perceiverd.cli import device_text
from perceiverd.cli.console import EXIT_FAILED
from perceiverd.cli.device_text import SILENT_DBFS, CameraReport, MicrophoneReport
from perceiverd.core.errors import PerceiverdError
from perceiverd.core.media import MediaFormat
from perceiverd.model.card import DEFAULT, load_card
from perceiverd.sources.devices import v4l2
from perceiverd.sources.process.probe import (
    Answer,
    AudioQuality,
    ExamineCamera,
    Failed,
    FoundCamera,
    FoundMicrophone,
    ListMicrophones,
    Question,
    TryDevice,
)
from perceiverd.sources.specs import Camera, Microphone

EXAMINE_S = 30.0
"""How long a driver may take to describe itself, or PortAudio to list its devices."""
LEVEL_S, TRY_S = 1.0, 3.0
"""How long audio is measured for the list, and a device is tried."""
OPEN_S = 20.0
"""How long a device may take to open and to give its first data."""
KILL_S = 1.0
"""How long the output of a killed process is awaited."""


class Probe:
    """A process that examines one device. It starts at once; `answers` waits for it."""

    def __init__(self, question: Question, limit_s: float) -> None:
        self._limit_s, self._end_s = limit_s, time.monotonic() + limit_s
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "perceiverd.sources.process.probe"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # messages of libraries; faults come as answers
        )
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(msgspec.json.encode(question) + b"\n")
            self._process.stdin.flush()

    def answers(self) -> list[Answer]:
        """All answers; the last one is a Failed if the process took too long or died."""
        try:
            output, _ = self._process.communicate(timeout=max(0.0, self._end_s - time.monotonic()))
            fault = None if output.strip() or not self._process.returncode else "the process that examined it died"
        except subprocess.TimeoutExpired:
            self._process.kill()
            output, fault = b"", f"does not answer within {self._limit_s:g} s; its driver or sound server may hang"
            with contextlib.suppress(subprocess.TimeoutExpired):  # it hangs in the kernel, and cannot be killed
                output, _ = self._process.communicate(timeout=KILL_S)
        lines = [line for line in output.splitlines() if line.endswith(b"}")]
        answers = [msgspec.json.decode(line, type=Answer) for line in lines]
        return [*answers, Failed(fault)] if fault else answers


def devices(*, json: bool = False) -> int:
    """List all devices; returns 0 if a camera or a microphone can be used, else 1."""
    paths = v4l2.paths()
    probes = [Probe(ExamineCamera(path), EXAMINE_S) for path in paths]
    listing = Probe(ListMicrophones(), EXAMINE_S)
    if not json:
        print("Cameras", flush=True)
    cameras = [_camera(path, probe.answers()) for path, probe in zip(paths, probes, strict=True)]
    if not json:
        print(device_text.camera_lines(cameras))
        print("\nMicrophones (measuring for a second) ...", flush=True)
    listed = listing.answers()
    microphones = _levels([each for each in listed if isinstance(each, FoundMicrophone)])
    fault, usable = _fault(listed), _usable(cameras, microphones)
    if json:
        print(device_text.json_table(cameras, microphones, fault, usable))
    else:
        print(device_text.microphone_lines(microphones, fault))
        print(f"\n{device_text.advice(usable)}")
    return 0 if usable else EXIT_FAILED


def try_out(name: str, *, json: bool = False) -> int:
    """Open a device for 3 s and describe its data; returns 0 if data came. Raises PerceiverdError for a bad name."""
    source = named(name)
    wanted = load_card(DEFAULT).geometry.media_format
    if not json:
        print(f"{name}: opening it as a {device_text.kind_of(source)} ...", flush=True)
    answers = Probe(TryDevice(source, wanted, TRY_S), OPEN_S + TRY_S).answers()
    fault = _fault(answers)
    if json:
        print(msgspec.json.encode([msgspec.to_builtins(each) for each in answers]).decode())
        return EXIT_FAILED if fault else 0
    for line in (line for each in answers for line in device_text.result_lines(each)):
        print(line)
    if fault:
        # A name without a kind can be that of a camera or a microphone; the fault names only microphones.
        microphone = f"microphone {name!r}: no microphone has this name"
        print(
            f"perceiverd: {fault.replace(microphone, f'{name!r}: no camera or microphone has this name')}",
            file=sys.stderr,
        )
        return EXIT_FAILED
    print(f"\nFor the configuration:\n\n{device_text.configuration([source])}")
    return 0


def named(name: str) -> Camera | Microphone:
    """The device that a name on the command line means. Raises PerceiverdError if it is invalid or ambiguous."""
    try:
        return _named(name)
    except ValueError as error:  # a configuration could not have this device either
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
        raise PerceiverdError(f"{name}: not a camera or microphone; `perceiverd devices` lists them")
    if any((v4l2.DEV / folder / name).exists() for folder in v4l2.STABLE):
        return Camera(device=name)
    if name.isdecimal():
        raise PerceiverdError(f"{name}: the number of a camera or a microphone? Use camera:{name} or microphone:{name}")
    return Microphone(device=name)


def _fault(answers: Sequence[Answer]) -> str | None:
    return next((each.message for each in answers if isinstance(each, Failed)), None)


def _camera(path: str, answers: Sequence[Answer]) -> CameraReport:
    found = next((each for each in answers if isinstance(each, FoundCamera)), None)
    return CameraReport(path, found, _fault(answers))


def _levels(found: Sequence[FoundMicrophone]) -> list[MicrophoneReport]:
    """Measure all hardware at once, then software devices one by one, because they may use the hardware."""
    probes = [(each.index, _measure(each)) for each in found if each.stable]
    levels = {index: _level(probe.answers()) for index, probe in probes}
    for each in found:
        if each.index not in levels:
            levels[each.index] = _level(_measure(each).answers())
    return [MicrophoneReport(each, *levels[each.index]) for each in found]


def _measure(microphone: FoundMicrophone) -> Probe:
    return Probe(TryDevice(Microphone(device=microphone.index), MediaFormat(16_000), LEVEL_S), OPEN_S)


def _level(answers: Sequence[Answer]) -> tuple[AudioQuality | None, str | None]:
    return next((each for each in answers if isinstance(each, AudioQuality)), None), _fault(answers)


def _usable(cameras: Sequence[CameraReport], microphones: Sequence[MicrophoneReport]) -> list[Camera | Microphone]:
    """The first camera and the first microphone that work, hardware before software, as in a configuration."""
    usable: list[Camera | Microphone] = []
    for camera in cameras:
        if camera.found and camera.found.captures and not camera.found.busy:
            usable.append(Camera(device=camera.found.stable or camera.path))
            break
    levels = [(each.found, each.audio.rms_dbfs) for each in microphones if each.audio]
    if levels:
        best, _ = min(levels, key=lambda each: (each[0].stable is None, each[1] < SILENT_DBFS))
        usable.append(Microphone(device=best.stable or best.name))
    return usable
