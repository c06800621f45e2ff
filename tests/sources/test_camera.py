"""The mode that is chosen for a camera, and how its frames are fitted; tests/guest has real cameras."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from perceiverd.core.errors import MediaError
from perceiverd.core.media import MediaFormat, VideoFormat
from perceiverd.sources import camera
from perceiverd.sources.camera import choose, fit
from perceiverd.sources.decode.video import Sizer
from perceiverd.sources.devices import v4l2
from perceiverd.sources.devices.v4l2 import READABLE, Mode
from perceiverd.sources.specs import Camera

MODEL = VideoFormat(160, 160, 3.125)
WEBCAM = [
    *(Mode("YUYV", w, h, fps) for w, h, fps in [(160, 120, 30), (320, 240, 30), (640, 480, 30), (640, 480, 15)]),
    *(Mode("YUYV", w, h, fps) for w, h, fps in [(1280, 720, 10), (1920, 1080, 5)]),
    *(Mode("MJPG", w, h, 30.0) for w, h in [(320, 240), (640, 480), (1280, 720), (1920, 1080)]),
    Mode("H264", 1920, 1080, 30.0),
]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (Camera(), Mode("YUYV", 640, 480, 15)),  # the least that is twice the model's size at 15/s and not compressed
        (Camera(fps=30), Mode("YUYV", 640, 480, 30)),
        (Camera(width=1920, height=1080), Mode("MJPG", 1920, 1080, 30)),
        (Camera(width=1280, height=720, format="YUYV"), Mode("YUYV", 1280, 720, 10)),
        (Camera(format="mjpg"), Mode("MJPG", 640, 480, 30)),
        (Camera(width=1300, height=700), Mode("MJPG", 1280, 720, 30)),
    ],
)
def test_the_mode_for_a_webcam(spec: Camera, expected: Mode) -> None:
    """The mode is nearest to the configuration; otherwise it is the least that is good enough for the model."""
    assert choose(WEBCAM, spec, MODEL) == expected


def test_an_unknown_format_is_an_error_that_lists_the_others() -> None:
    """The error lists the formats of the camera."""
    with pytest.raises(MediaError, match="has no format NV12; it has YUYV, MJPG, H264"):
        choose(WEBCAM, Camera(format="NV12"), MODEL)
    with pytest.raises(MediaError, match=r"its formats \(H264\) cannot be read"):
        choose(WEBCAM[-1:], Camera(), MODEL)


def test_a_driver_without_a_list_keeps_its_mode() -> None:
    """Only what is configured is set."""
    assert choose([], Camera(), MODEL) is None
    assert choose([], Camera(width=800, height=600), MODEL) == Mode("YUYV", 800, 600, 30)


MODES = st.builds(
    Mode,
    st.sampled_from([*READABLE, "H264", "S910"]),
    st.integers(16, 4096),
    st.integers(16, 4096),
    st.sampled_from([5.0, 10.0, 15.0, 25.0, 30.0, 60.0]),
)


@given(st.lists(MODES, min_size=1, max_size=20), st.integers(8, 512), st.integers(8, 512))
def test_a_readable_mode_is_chosen(modes: list[Mode], height: int, width: int) -> None:
    """The choice is one of the readable modes, large and fast enough if any is; without one it is a MediaError."""
    wanted = VideoFormat(height, width, 3.125)
    readable = [mode for mode in modes if mode.format in READABLE]
    if not readable:
        with pytest.raises(MediaError):
            choose(modes, Camera(), wanted)
        return
    chosen = choose(modes, Camera(), wanted)
    assert chosen in readable
    fast = [mode for mode in readable if mode.format != "GREY" and mode.fps >= 15]
    good = [mode for mode in fast if mode.width >= 2 * width and mode.height >= 2 * height]
    if good:
        assert chosen in good


def scene(height: int, width: int) -> NDArray[np.uint8]:
    """A smooth RGB frame in which each place has its own colour."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([255 * x / width, 255 * y / height, 127 + 120 * np.sin(9 * x / width)], -1).astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), [(480, 640), (720, 1280), (1080, 1920), (240, 320), (97, 131)])
def test_frames_are_fitted_as_in_files(height: int, width: int) -> None:
    """OpenCV's cropping, shrinking and colours agree with FFmpeg's to a grey level or two."""
    picture = scene(height, width)
    mine = fit(np.ascontiguousarray(picture[:, :, ::-1]), MODEL)
    theirs = Sizer(MODEL).fit(av.VideoFrame.from_ndarray(picture, "rgb24"), None)
    assert mine.shape == (160, 160, 3)
    assert np.abs(mine.astype(int) - theirs.astype(int)).mean() < 2


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 64), st.integers(1, 64), st.booleans())
def test_every_size_fits(height: int, width: int, to_height: int, to_width: int, grey: bool) -> None:
    """A frame of any size gets the model's size, and a plain colour stays the same."""
    shape = (height, width) if grey else (height, width, 3)
    fitted = fit(np.full(shape, 77, np.uint8), VideoFormat(to_height, to_width, 1))
    assert fitted.shape == (to_height, to_width, 3) and fitted.dtype == np.uint8
    assert (fitted == 77).all()


def test_a_missing_camera_is_an_error_that_lists_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says that there is no such device, and which there are."""
    monkeypatch.setattr(v4l2, "DEV", tmp_path)
    with pytest.raises(MediaError, match=r"video3: there is no such device; this machine has no camera"):
        next(camera.media(Camera(device=3), MediaFormat(video=MODEL)))
    (tmp_path / "video0").touch()
    (tmp_path / "video10").touch()
    with pytest.raises(MediaError, match=r"no such device; there are \S+video0, \S+video10"):
        next(camera.media(Camera(device="usb-Nothing-index0"), MediaFormat(video=MODEL)))
    with pytest.raises(MediaError, match="video0: is no camera"):
        next(camera.media(Camera(device=0), MediaFormat(video=MODEL)))


def test_stable_names_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name under by-id leads to its node, and the node has that name."""
    monkeypatch.setattr(v4l2, "DEV", tmp_path)
    (tmp_path / "v4l" / "by-id").mkdir(parents=True)
    (tmp_path / "video2").touch()
    link = tmp_path / "v4l" / "by-id" / "usb-046d_C525-video-index0"
    link.symlink_to("../../video2")
    assert v4l2.resolve("usb-046d_C525-video-index0") == str(link)
    assert v4l2.resolve(2) == v4l2.resolve("2") == str(tmp_path / "video2")
    assert v4l2.stable(str(tmp_path / "video2")) == str(link)


def test_a_model_without_video_is_an_error() -> None:
    """It is a MediaError before anything is opened."""
    with pytest.raises(MediaError, match="the model uses no video"):
        next(camera.media(Camera(), MediaFormat(audio_rate_hz=16000)))
