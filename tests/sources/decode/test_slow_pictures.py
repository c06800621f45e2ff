"""Time lapses, slide shows and covers: the picture that is shown at a tick is the frame at that tick."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from perceiverd.core.errors import MediaError
from perceiverd.core.media import NS_PER_S, Chunk, Frame, Media, MediaFormat, VideoFormat
from perceiverd.sources.decode.container import inspect, read

Clip = Callable[..., Path]
RATE_HZ = 16_000
FPS = 6.25
BOTH = MediaFormat(RATE_HZ, VideoFormat(30, 42, FPS))


def hum(t: NDArray[np.float64]) -> NDArray[np.float64]:
    return 0.3 * np.sin(2 * np.pi * 200 * t)


def slide(every_s: float) -> Callable[[float], NDArray[np.uint8]]:
    """Slide n is grey at 20 + 20 n."""
    return lambda t: np.full((60, 84, 3), 20 + 20 * round(t / every_s), np.uint8)


def shown(frames: list[Frame], at_s: float) -> int:
    """The number of the slide that is the newest at this time."""
    frame = [each for each in frames if each.start_ns <= at_s * NS_PER_S][-1]
    return round((float(frame.pixels.mean()) - 20) / 20)


def frames_of(items: list[Media]) -> list[Frame]:
    return [item for item in items if isinstance(item, Frame)]


@pytest.mark.parametrize("every_s", [2.0, 5.0])
@pytest.mark.parametrize(
    ("name", "codecs"),
    [
        ("a.mp4", {}),
        ("a.mkv", {"video_codec": "libvpx-vp9", "audio_codec": "flac"}),
        ("a.ts", {"rate_hz": 48_000}),
    ],
)
def test_slides_under_sound(clip: Clip, name: str, codecs: dict[str, str], every_s: float) -> None:
    """Each slide is there at every tick until the next one; the last one lasts to the end of the audio."""
    count = round(20 / every_s)
    path = clip(
        name, sound=hum, seconds=20.0, picture=slide(every_s), times_s=[n * every_s for n in range(count)], **codecs
    )
    items = list(read(path, BOTH))
    frames = frames_of(items)
    begin_s = frames[0].start_ns / NS_PER_S
    assert max(b.start_ns - a.start_ns for a, b in pairwise(frames)) <= 1.5 * NS_PER_S / FPS
    assert frames[-1].start_ns / NS_PER_S == pytest.approx(20.0, abs=0.25)
    for number in range(count):
        assert shown(frames, begin_s + number * every_s + 0.1) == number
        assert shown(frames, begin_s + (number + 1) * every_s - 0.2) == number
    assert len({id(frame.pixels) for frame in frames}) == count  # a repeated frame costs no memory


def test_a_time_lapse_alone(clip: Clip) -> None:
    """Without audio, the last picture lasts as long as the one before it."""
    path = clip("a.mp4", picture=slide(2.0), times_s=[0.0, 2.0, 4.0])
    frames = frames_of(list(read(path, BOTH)))
    assert frames[-1].start_ns / NS_PER_S == pytest.approx(5.9, abs=0.11)
    assert [shown(frames, at_s) for at_s in (1.9, 2.1, 3.9, 4.1)] == [0, 1, 1, 2]


def test_a_slide_and_its_sound_come_side_by_side(clip: Clip) -> None:
    """A slide of a minute does not come whole before the audio under it, so that memory stays bounded."""
    path = clip("a.mp4", sound=hum, seconds=70.0, rate_hz=16_000, picture=slide(60.0), times_s=[0.0, 60.0])
    fronts_ns = {Frame: 0, Chunk: 0}
    for item in read(path, BOTH):
        fronts_ns[type(item)] = item.start_ns
        assert abs(fronts_ns[Frame] - fronts_ns[Chunk]) < NS_PER_S
    assert fronts_ns[Frame] > 69 * NS_PER_S


def test_one_picture_under_sound(clip: Clip) -> None:
    """A film of one frame shows it to the end of the audio."""
    path = clip("a.mp4", sound=hum, seconds=8.0, picture=slide(1.0), times_s=[0.0])
    assert frames_of(list(read(path, BOTH)))[-1].start_ns > 7.7 * NS_PER_S


def test_a_film_that_ends_is_not_shown_on(clip: Clip) -> None:
    """If a film of 25 frames a second ends before its audio, its last frame is not repeated."""
    path = clip("a.mp4", sound=hum, seconds=8.0, picture=slide(9.0), times_s=[n / 25 for n in range(50)])
    frames = frames_of(list(read(path, BOTH)))
    assert len(frames) == 50


def test_a_long_hole_in_a_film_stays_a_hole(clip: Clip) -> None:
    """If 30 s of a film are missing, its last frame before them is shown for 10 s and no longer."""
    times_s = [*(n / 25 for n in range(50)), *(32 + n / 25 for n in range(50))]
    path = clip("a.mkv", picture=slide(40.0), times_s=times_s)
    frames = frames_of(list(read(path, BOTH)))
    before, after = max(pairwise(frames), key=lambda pair: pair[1].start_ns - pair[0].start_ns)
    assert before.start_ns / NS_PER_S == pytest.approx(12.0, abs=0.3)
    assert after.start_ns / NS_PER_S == pytest.approx(32.0, abs=0.1)


def test_a_cover_is_the_picture_under_its_sound(clip: Clip) -> None:
    """The picture on the cover of a song is shown from its beginning to its end."""
    path = clip("a.m4a", sound=hum, seconds=8.0, cover=slide(1.0)(2.0), container_format="mp4")
    items = list(read(path, BOTH))
    frames = frames_of(items)
    assert inspect(path).has_video
    assert frames[0].start_ns == 0
    assert frames[-1].start_ns > 7.7 * NS_PER_S
    assert {shown(frames, at_s) for at_s in (0.1, 4, 8)} == {2}
    assert sum(len(item.samples) for item in items if isinstance(item, Chunk)) > 7.9 * RATE_HZ


def test_a_cover_is_not_shown_beside_a_film(clip: Clip) -> None:
    """If a file has a film and a cover, the model gets the film."""
    path = clip("a.mp4", sound=hum, seconds=2.0, picture=slide(9.0), cover=slide(1.0)(5.0))
    assert {shown([frame], 9.0) for frame in frames_of(list(read(path, BOTH)))} == {0}


def test_a_cover_is_not_enough_for_a_model_without_audio(clip: Clip) -> None:
    """A song with a cover is refused by a model that only sees."""
    path = clip("a.m4a", sound=hum, seconds=2.0, cover=slide(1.0)(2.0), container_format="mp4")
    with pytest.raises(MediaError, match="has only audio and the model wants only video"):
        list(read(path, MediaFormat(None, BOTH.video)))
