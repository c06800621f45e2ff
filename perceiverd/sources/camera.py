"""A camera of this machine, through OpenCV's V4L2.

What is asked for is one thing, what comes another: size, format and rate are looked at again once the camera is open,
and pictures have the times that the kernel gave them. Pictures that the model doesn't need are not even converted.
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
from perceiverd.sources.devices.timestamps import PictureTimes
from perceiverd.sources.devices.usage import told
from perceiverd.sources.devices.v4l2 import READABLE, Mode
from perceiverd.sources.specs import Camera

logger = logging.getLogger("perceiverd.sources")

SILENT_S = 2
"""A camera that gives no picture for so long is given up, in words, before the runner kills the process."""
GONE_S, GONE_LOOKS = 0.5, 10
"""For so long, and so often in it, is looked whether a camera that gives nothing has gone."""
TOLD = 8
"""Formats that an error names; test drivers have fifty."""
ENOUGH_FPS = 15.0
"""Below this an exposure of a dim room takes no longer either, so it is asked for however little the model needs."""
TIMES_AS_LARGE = 2
"""A picture at least so many times the model's size, whose pixels are means of several: noise goes, detail stays."""
DAMAGED_RUN = 30
"""A picture may be damaged on its way through USB; so many in a row are something else."""
SETTLED_NS, TIMING_NS = NS_PER_S, 5 * NS_PER_S
"""After the first second, and then every 5, is told how late pictures come."""
MEASURED = 60
"""So many pictures tell the true rate."""
SLOW = 0.8
"""A camera that keeps less than this share of the rate that was asked for is told of."""


def media(spec: Camera, wanted: MediaFormat, opened: Callable[[Mode], None] | None = None) -> Iterator[Frame | Timing]:
    """Yield pictures as the model wants them, live-stamped, for ever. Raises MediaError when there are no more.

    `opened` hears how the camera delivers.
    """
    if wanted.video is None:
        raise MediaError(f"camera {spec.device}: the model only hears; take another model, or this source out")
    capture = Capture(spec, wanted.video)
    if opened:
        opened(capture.mode)
    thinner, timing_ns = Decimator(wanted.video.fps), now_ns() + SETTLED_NS
    stills = None
    if wanted.stills:
        from perceiverd.sources.snapshots.jpeg import JpegEncoder  # FFmpeg takes a second to load, and few ask for it

        stills = JpegEncoder(wanted.stills)
    try:
        while True:
            start_ns = capture.grab()
            if thinner.keeps(start_ns) and (picture := capture.picture()) is not None:
                order = "bgr24" if picture.ndim == 3 else "gray"
                still = stills.of_pixels(start_ns, picture, order) if stills else None
                yield Frame(start_ns, fit(picture, wanted.video), still)
            if now_ns() >= timing_ns:
                timing_ns = now_ns() + TIMING_NS
                yield Timing(None, capture.times.late_ns / 1e6, 0)
    except GeneratorExit:
        # Only here, where whoever reads wants no more: after a fault a driver may hang in this, and the end of the
        # process sees to it.
        capture.close()
        raise


class Capture:
    """An open camera."""

    def __init__(self, spec: Camera, wanted: VideoFormat) -> None:
        """Raises MediaError, one line: what is wrong and what to do."""
        self.path = v4l2.resolve(spec.device)
        self._spec, self._grabbed = spec, 0
        v4l2.check(self.path)
        asked = choose(v4l2.modes(self.path), spec, wanted, self.path)
        # Read by OpenCV when it first waits for a picture; its own default is 10 s.
        os.environ["OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT"] = str(SILENT_S)
        cv2.setNumThreads(1)
        # Its warnings name lines of its own source; ours say what to do.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        self._capture = cv2.VideoCapture(self.path, cv2.CAP_V4L2)
        if not self._capture.isOpened():
            raise self._fault("cannot be opened; unplug it and plug it in again")
        self._ask(asked)
        self.mode = self._mode()
        """What came of it."""
        if asked and spec.format and self.mode.format != asked.format:
            raise MediaError(
                f"camera {self.path}: gives {self.mode.format} where {asked.format} was asked for; leave format out"
            )
        self.times = PictureTimes(self.mode.fps)
        self._damaged = 0
        self._first_ns: int | None = None
        self._log_size()

    def close(self) -> None:
        self._capture.release()

    def grab(self) -> int:
        """Wait for the next picture, without decoding it; when it was taken. Raises MediaError."""
        began_ns = now_ns()
        if not self._capture.grab():
            waited_s = (now_ns() - began_ns) / NS_PER_S
            silent = f"no picture for {waited_s:.0f} s; unplug it and plug it in again"
            raise self._fault(silent if waited_s > SILENT_S / 2 else "gives no more pictures; look at its cable")
        stamp_ns = round(self._capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
        taken_ns = self.times.taken(stamp_ns, now_ns(), time.time_ns())
        self._grabbed += 1
        if self._first_ns is None:
            self._first_ns = taken_ns
        elif self._grabbed == MEASURED:
            self._log_rate((MEASURED - 1) * NS_PER_S / (taken_ns - self._first_ns))
        return taken_ns

    def picture(self) -> NDArray[np.uint8] | None:
        """The picture that was grabbed: (height, width, 3) BGR, or (height, width) grey; None where it is damaged.

        Raises MediaError where all are.
        """
        ok, pixels = self._capture.retrieve()
        if ok and pixels.size:
            self._damaged = 0
            return np.asarray(pixels, np.uint8)
        self._damaged += 1
        if self._damaged >= DAMAGED_RUN:
            raise self._fault(f"sends {self.mode.format} that cannot be read; set another format, or another cable")
        return None

    def _ask(self, mode: Mode | None) -> None:
        if mode is None:  # its driver can't say what it offers, so what it has set is taken
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
        """Why nothing came, as far as can be found out."""
        # A cable that is pulled ends the reading at once; the name goes a moment later, when udev hears of it.
        for _ in range(GONE_LOOKS):
            if not Path(self.path).exists():
                return MediaError(f"camera {self.path}: is gone; plug it in again")
            time.sleep(GONE_S / GONE_LOOKS)
        try:
            if not self._grabbed:
                self._capture.release()  # or it is us who have it
            if not self._grabbed and v4l2.busy(self.path):
                return MediaError(f"camera {self.path}: is busy, {told(self.path)} has it; end that first")
        except MediaError as error:
            return error
        return MediaError(f"camera {self.path}: {otherwise}")


def choose(modes: Sequence[Mode], spec: Camera, wanted: VideoFormat, name: str = "") -> Mode | None:
    """What to ask the camera for; None where it doesn't say what it offers and nothing is configured.

    What is configured counts; what isn't is the least that does the model justice. Raises MediaError where the camera
    has no such format, or none that can be read.
    """
    if not modes:
        if spec.format or spec.width or spec.height or spec.fps:
            width, height = spec.width or 640, spec.height or 480
            return Mode(spec.format or "YUYV", width, height, spec.fps or v4l2.USUAL_FPS)
        return None
    names = list(dict.fromkeys(mode.format for mode in modes))
    offered = ", ".join(names[:TOLD]) + (" and others" if len(names) > TOLD else "")
    known = [mode for mode in modes if mode.format == (spec.format or mode.format).upper() and mode.format in READABLE]
    if not known and spec.format:
        raise MediaError(f"camera {name}: has no format {spec.format}; it has {offered}")
    if not known:
        raise MediaError(f"camera {name}: its formats ({offered}) cannot be read; an adapter of GStreamer's may help")

    def unfit(mode: Mode) -> tuple[float, ...]:
        """How badly it fits, what matters most first; smaller is better."""
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


def fit(picture: NDArray[np.uint8], wanted: VideoFormat) -> NDArray[np.uint8]:
    """The centre of a picture, (height, width, 3) BGR or (height, width) grey, as the model wants it: RGB."""
    height, width = picture.shape[:2]
    scale = max(wanted.width / width, wanted.height / height)
    to_width = min(width, max(1, round(wanted.width / scale)))
    to_height = min(height, max(1, round(wanted.height / scale)))
    top, left = (height - to_height) // 2, (width - to_width) // 2
    centre = picture[top : top + to_height, left : left + to_width]
    # Means over areas, so that fine patterns don't turn into moire.
    small = cv2.resize(centre, (wanted.width, wanted.height), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_GRAY2RGB if small.ndim == 2 else cv2.COLOR_BGR2RGB), np.uint8)
