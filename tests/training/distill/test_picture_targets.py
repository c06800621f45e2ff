"""Targets of images: known labels overrule the teacher, and doubt makes a label unknown."""

from __future__ import annotations

import numpy as np
import pytest

from perceiverd.core.labels import ontology
from perceiverd.training.data.images import CachedImage, Kind
from perceiverd.training.distill.picture_targets import RENDERINGS, facts_of, renderings, with_scores

DOG, ANIMAL, CAT, CAR, SPEECH = (ontology().find(name).index for name in ("Dog", "Animal", "Cat", "Car", "Speech"))
VISUAL = np.zeros(527, np.bool_)
VISUAL[[DOG, ANIMAL, CAT, CAR]] = True
"""The teacher knows these four labels."""


def image(kind: Kind, *labels: str) -> CachedImage:
    return CachedImage("scratch", "a.png", "train", kind, labels, "CC0", "Ann", "00", "00")


@pytest.mark.parametrize(
    ("kind", "labels", "targets"),
    [
        ("object", ("Dog",), [1, 1, None, 0.1, None]),
        ("negative", (), [0, 0, 0, 0, None]),
        ("background", (), [0, 0, 0, 0, None]),
        ("unlabelled", (), [0.2, 0.3, 0.5, 0.1, None]),
    ],
)
def test_targets_of_each_kind(kind: Kind, labels: tuple[str, ...], targets: list[float | None]) -> None:
    """An object's labels and ancestors are 1, and other labels that the teacher is sure of are unknown.

    Negatives and backgrounds have 0 for each visual label; unlabelled images have the teacher's scores. Labels that the
    teacher lacks are unknown.
    """
    scores = np.zeros(527, np.float32)
    scores[[DOG, ANIMAL, CAT, CAR]] = 0.2, 0.3, 0.5, 0.1
    facts = facts_of(image(kind, *labels), VISUAL, ontology())
    found = with_scores(facts, scores, VISUAL)[[DOG, ANIMAL, CAT, CAR, SPEECH]]
    assert [None if np.isnan(one) else pytest.approx(float(one), abs=1e-3) for one in found] == targets


def test_a_cut_out_stands_on_grey_white_and_backgrounds() -> None:
    """The corners of the renderings have the colours of the backgrounds; the middle has the object's colour."""
    pixels = np.zeros((30, 40, 4), np.uint8)
    pixels[:] = (200, 10, 20, 255)
    pixels[0, 0, 3] = 0  # a cut-out, not a photograph
    blue = np.full((8, 8, 4), (0, 0, 255, 255), np.uint8)
    found = renderings(pixels, [blue], np.random.default_rng(0))
    assert found.shape == (RENDERINGS, 224, 224, 3)
    assert found[:, 0, 0].tolist() == [[128] * 3, [255] * 3, [0, 0, 255], [0, 0, 255]]
    assert (found[:, 112, 112] == (200, 10, 20)).all()
