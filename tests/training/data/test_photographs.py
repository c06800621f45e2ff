"""Listed photographs and stills of videos."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from perceiverd.core.labels import ontology
from perceiverd.training.data import images
from perceiverd.training.data.photographs import STILLS, photographs, stills


def write_photos(folder: Path) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = [("a", "Cat", "maxogden/cats a"), ("b", "Cat", "ann/photos b"), ("c", "", "ann/photos c")]
    for name, _, _ in rows:
        pixels = cv2.resize(rng.integers(0, 256, (7, 9, 3), np.uint8), (90, 70), interpolation=cv2.INTER_CUBIC)
        assert cv2.imwrite(str(folder / f"{name}.jpg"), pixels)
    text = "".join(f"{name}.jpg\t{label}\tx\t{source}\tCC0\n" for name, label, source in rows)
    (folder / "photos.tsv").write_text("file\tlabel\tcategory\tsource\tlicence\n" + text)


def test_a_held_out_source_is_never_trained_on(tmp_path: Path) -> None:
    """Pictures of a held-out source say so; a picture without a label has none."""
    write_photos(tmp_path / "photos")
    found = list(photographs(tmp_path / "photos"))
    assert [(one.labels, one.held_out) for one in found] == [(("Cat",), True), (("Cat",), False), ((), False)]


def test_listed_pictures_join_the_cache(tmp_path: Path) -> None:
    """The cache has the pictures with their labels, licences and splits, beside those of packages."""
    write_photos(tmp_path / "root" / "photos")
    images.build(tmp_path / "packages", tmp_path / "cache", ontology(), tmp_path / "root")
    found = images.read_index(tmp_path / "cache")
    assert [(one.split, one.kind, one.labels) for one in found] == [
        ("test", "object", ("Cat",)),
        ("train", "object", ("Cat",)),
        ("train", "unlabelled", ()),
    ]
    assert {one.package for one in found} == {images.LISTED} and found[0].licence == "CC0"
    assert images.read_pixels(tmp_path / "cache", found[1]).shape == (70, 90, 4)


def test_a_video_gives_evenly_spread_stills(tmp_path: Path) -> None:
    """Each video of the list gives three stills with its first label; a folder without a list gives none."""
    writer = cv2.VideoWriter(str(tmp_path / "a.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 25, (64, 48))
    for level in range(0, 250, 5):
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()
    (tmp_path / "video.tsv").write_text("file\tseen\twhat\tsource\tlicence\na.mp4\tHelicopter|Aircraft\tx\tann\tCC0\n")
    found = list(stills(tmp_path))
    assert len(found) == STILLS and {one.labels for one in found} == {("Helicopter",)}
    levels = [np.mean(cv2.imdecode(np.frombuffer(one.encoded, np.uint8), cv2.IMREAD_COLOR)) for one in found]  # type: ignore[arg-type]
    np.testing.assert_allclose(levels, [60, 120, 180], atol=15)
    assert list(stills(tmp_path / "other")) == []
