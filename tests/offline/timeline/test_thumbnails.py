"""Small pictures that are spread over a file."""

import cv2
import numpy as np

from perceiverd.core.media import NS_PER_S
from perceiverd.offline.timeline.thumbnails import Thumbnails


def test_pictures_are_jpegs_a_second_apart() -> None:
    """Of two pictures a second, each second one is kept, as a JPEG that another program reads."""
    kept = Thumbnails()
    for k in range(9):
        kept.add(k * NS_PER_S // 2, np.full((46, 62, 3), (20 * k, 90, 200), np.uint8))
    assert [each.start_ns for each in kept.kept] == [k * NS_PER_S for k in range(5)]
    image = cv2.imdecode(np.frombuffer(kept.kept[2].jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert image is not None and image.shape == (46, 62, 3)
    assert np.abs(image.mean(axis=(0, 1)) - (80, 90, 200)).max() < 4


def test_their_number_is_bounded_and_they_stay_evenly_spread() -> None:
    """Of 1,000 s of pictures between half of the limit and the limit are kept, at equal distances."""
    kept, pixels = Thumbnails(most=11), np.zeros((16, 16, 3), np.uint8)
    for k in range(1000):
        kept.add(k * NS_PER_S, pixels)
    starts_ns = np.array([each.start_ns for each in kept.kept])
    assert 5 <= len(starts_ns) <= 11
    assert len(set(np.diff(starts_ns))) == 1
