"""A camera of this machine, through OpenCV's V4L2.

A camera may deliver another size, format or rate than we set, so we read them again once it is open. Frames have the
kernel's time stamps. Frames that the model does not need are not converted.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from perceiverd.core.clock import now_ns
from perceiverd.core.errors import MediaError
from perceiverd.core.logs import log_event
from perceiverd.core.media import NS_PER_S, Frame, MediaFormat, Timing, VideoFormat
from perceiverd.sources.decode.decimate import Decimator
from perceiverd.sources.devices import v4l2
from perceiverd.sources.devices.timestamps import FrameTimes
from perceiverd.sources.devices.usage import describe_users
from perceiverd.sources.devices.v4l2 import READABLE, Mode
from perceiverd.sources.specs import Camera

logger = logging.getLogger("perceiverd.sources")

SILENT_S = 2
"""After this long without a frame we report an error, before the supervisor would kill the process."""
GONE_S, GONE_CHECKS = 0.5, 10
"""If a camera sends nothing, we check for this long, this many times, whether its node is gone."""
LISTED_FORMATS = 8
"""An error lists at most this many formats; test drivers have fifty."""
ENOUGH_FPS = 15.0
"""We ask for at least this rate, even if the model needs less: exposures in a dim room get no longer below it."""
TIMES_AS_LARGE = 2
"""We ask for at least this many times the model's size: the mean of several pixels has less noise and all details."""
DAMAGED_RUN = 30
"""A frame may be damaged on its way through USB; this many in a row have another cause."""
SETTLED_NS, TIMING_NS = NS_PER_S, 5 * NS_PER_S
"""We report how late frames come after the first second, then every 5 s."""
RATE_FRAMES = 60
"""We measure the true rate over this many frames."""
SLOW = 0.8
"""We log a camera that delivers less than this share of the configured rate."""


def media(spec: Camera, wanted: MediaFormat, opened: Callable[[Mode], None] | None = None) -> Iterator[Frame | Timing]:
    """Yield frames as the model wants them, live-stamped, for ever. Raises MediaError when the camera is lost.

    Calls `opened` with the mode in which the camera delivers.
    """
    if wanted.video is None:
        raise MediaError(f"camera {spec.device}: the model uses no video; take another model, or remove this source")
    capture = Capture(spec, wanted.video)
    if opened:
        opened(capture.mode)
    decimator, timing_ns = Decimator(wanted.video.fps), now_ns() + SETTLED_NS
    stills = None
    if wanted.stills:
        from perceiverd.sources.snapshots.jpeg import JpegEncoder  # FFmpeg takes a second to load; few streams need it

        stills = JpegEncoder(wanted.stills)
    try:
        while True:
            start_ns = capture.grab()
            if decimator.keeps(start_ns) and (pixels := capture.retrieve()) is not None:
                order = "bgr24" if pixels.ndim == 3 else "gray"
                still = stills.of_pixels(start_ns, pixels, order) if stills else None
                yield Frame(start_ns, fit(pixels, wanted.video), still)
            if now_ns() >= timing_ns:
                timing_ns = now_ns() + TIMING_NS
                yield Timing(None, capture.times.late_ns / 1e6, 0)
    except GeneratorExit:
        # Only if the reader wants no more. After a fault a driver may hang in this: then the process just ends.
        capture.close()
        raise


class Capture:
    """An open camera."""

    def __init__(self, spec: Camera, wanted: VideoFormat) -> None:
        """Raises MediaError: one line with what is wrong and what to do."""
        self.path = v4l2.resolve(spec.device)
        self._spec, self._grabbed = spec, 0
        v4l2.check(self.path)
        asked = choose(v4l2.modes(self.path), spec, wanted, self.path)
        # OpenCV reads this when it first waits for a frame; its own default is 10 s.
        os.environ["OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT"] = str(SILENT_S)
        cv2.setNumThreads(1)
        # Its warnings name lines of its source code; our errors say what to do.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        self._capture = cv2.VideoCapture(self.path, cv2.CAP_V4L2)
        if not self._capture.isOpened():
            raise self._fault("cannot be opened; unplug it and plug it in again")
        self._set(asked)
        self.mode = self._mode()
        """The mode in which it delivers."""
        if asked and spec.format and self.mode.format != asked.format:
            raise MediaError(f"camera {self.path}: delivers {self.mode.format}, not {asked.format}; leave format out")
        self.times = FrameTimes(self.mode.fps)
        self._damaged = 0
        self._first_ns: int | None = None
        self._log_size()

    def close(self) -> None:
        self._capture.release()

    def grab(self) -> int:
        """Wait for the next frame, without decoding it; returns its capture time. Raises MediaError."""
        began_ns = now_ns()
        if not self._capture.grab():
            waited_s = (now_ns() - began_ns) / NS_PER_S
            silent = f"no frame for {waited_s:.0f} s; unplug it and plug it in again"
            raise self._fault(silent if waited_s > SILENT_S / 2 else "sends no more frames; check its cable")
        stamp_ns = round(self._capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
        taken_ns = self.times.taken(stamp_ns, now_ns(), time.time_ns())
        self._grabbed += 1
        if self._first_ns is None:
            self._first_ns = taken_ns
        elif self._grabbed == RATE_FRAMES:
            self._log_rate((RATE_FRAMES - 1) * NS_PER_S / (taken_ns - self._first_ns))
        return taken_ns

    def retrieve(self) -> NDArray[np.uint8] | None:
        """Decode the grabbed frame: (height, width, 3) BGR, or (height, width) grey; None if it is damaged.

        Raises MediaError if too many in a row are.
        """
        ok, pixels = self._capture.retrieve()
        if ok and pixels.size:
            self._damaged = 0
            return np.asarray(pixels, np.uint8)
        self._damaged += 1
        if self._damaged >= DAMAGED_RUN:
            raise self._fault(f"sends {self.mode.format} that cannot be decoded; try another format or cable")
        return None

    def _set(self, mode: Mode | None) -> None:
        if mode is None:  # its driver does not list its modes, so we keep the current one
            return
        self._capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*f"{mode.format:4}"))
        self._capture.set(cv2.CAP_PROP_FRAME_WIDTH, mode.width)
        self._capture.set(cv2.CAP_PROP_FRAME_HEIGHT, mode.height)
        self._capture.set(cv2.CAP_PROP_FPS, mode.fps)

    def _mode(self) -> Mode:
        get = self._capture.get
        fourcc = int(get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").decode("ascii", "replace").rstrip("\0 ")
        width, height = round(get(cv2.CAP_PROP_FRAME_WIDTH)), round(get(cv2.CAP_PROP_FRAME_HEIGHT))
        fps = float(get(cv2.CAP_PROP_FPS))
        return Mode(fourcc, width, height, fps if fps > 0 else v4l2.USUAL_FPS)

    def _log_size(self) -> None:
        """Log if the camera delivers another size than the configuration sets."""
        spec, mode = self._spec, self.mode
        if (spec.width or mode.width, spec.height or mode.height) != (mode.width, mode.height):
            asked = f"{spec.width or 'any'}x{spec.height or 'any'}"
            log_event(logger, logging.WARNING, "video-format-changed", camera=self.path, asked=asked, got=str(mode))

    def _log_rate(self, fps: float) -> None:
        """Log if the camera delivers fewer frames a second than the configuration sets."""
        if self._spec.fps and fps < self._spec.fps * SLOW:
            log_event(
                logger,
                logging.WARNING,
                "video-rate-low",
                camera=self.path,
                asked_fps=self._spec.fps,
                got_fps=f"{fps:.1f}",
            )

    def _fault(self, otherwise: str) -> MediaError:
        """Why no frame came, as far as we can find out."""
        # When a cable is pulled, reading ends at once; udev removes the node a moment later.
        for _ in range(GONE_CHECKS):
            if not Path(self.path).exists():
                return MediaError(f"camera {self.path}: is gone; plug it in again")
            time.sleep(GONE_S / GONE_CHECKS)
        try:
            if not self._grabbed:
                self._capture.release()  # otherwise we would be the program that uses it
            if not self._grabbed and v4l2.busy(self.path):
                return MediaError(f"camera {self.path}: is busy, {describe_users(self.path)} uses it; end that first")
        except MediaError as error:
            return error
        return MediaError(f"camera {self.path}: {otherwise}")


def choose(modes: Sequence[Mode], spec: Camera, wanted: VideoFormat, name: str = "") -> Mode | None:
    """The mode to set; None if the camera does not list its modes and none is configured.

    It is as near to the configuration as possible. What is not configured is the least that is good enough for the
    model. Raises MediaError if the camera does not have the configured format, or none that we can read.
    """
    if not modes:
        if spec.format or spec.width or spec.height or spec.fps:
            width, height = spec.width or 640, spec.height or 480
            return Mode(spec.format or "YUYV", width, height, spec.fps or v4l2.USUAL_FPS)
        return None
    names = list(dict.fromkeys(mode.format for mode in modes))
    offered = ", ".join(names[:LISTED_FORMATS]) + (" and others" if len(names) > LISTED_FORMATS else "")
    known = [mode for mode in modes if mode.format == (spec.format or mode.format).upper() and mode.format in READABLE]
    if not known and spec.format:
        raise MediaError(f"camera {name}: has no format {spec.format}; it has {offered}")
    if not known:
        raise MediaError(f"camera {name}: its formats ({offered}) cannot be read; an adapter of GStreamer may help")

    def unfit(mode: Mode) -> tuple[float, ...]:
        """How badly it fits, most important first; smaller is better."""
        far = abs((spec.width or mode.width) - mode.width) + abs((spec.height or mode.height) - mode.height)
        enough_fps = max(ENOUGH_FPS, 2 * wanted.fps)
        times = min(mode.width / wanted.width, mode.height / wanted.height)
        return (
            far,
            abs((spec.fps or mode.fps) - mode.fps),
            mode.format == "GREY",
            max(0.0, 1 - mode.fps / enough_fps),
            max(0.0, TIMES_AS_LARGE - times),
            mode.width * mode.height,
            READABLE.index(mode.format),
            mode.fps,
        )

    return min(known, key=unfit)


def fit(pixels: NDArray[np.uint8], wanted: VideoFormat) -> NDArray[np.uint8]:
    """The centre of a frame, (H, W, 3) BGR or (H, W) grey, in the model's size: (height, width, 3) RGB."""
    height, width = pixels.shape[:2]
    scale = max(wanted.width / width, wanted.height / height)
    to_width = min(width, max(1, round(wanted.width / scale)))
    to_height = min(height, max(1, round(wanted.height / scale)))
    top, left = (height - to_height) // 2, (width - to_width) // 2
    centre = pixels[top : top + to_height, left : left + to_width]
    # Means over areas, so that fine patterns do not turn into moire.
    small = cv2.resize(centre, (wanted.width, wanted.height), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_GRAY2RGB if small.ndim == 2 else cv2.COLOR_BGR2RGB), np.uint8)
