"""Pictures: rules, shrinking, the split, the cache and its index."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from perceiverd.core.labels import ontology
from perceiverd.training.data.images import (
    KINDS,
    LONGEST_SIDE,
    RULES,
    Picture,
    build,
    hold_out,
    look_of,
    read_index,
    read_pixels,
    rule_of,
    shrink,
)

STAMPS = "tuxpaint-stamps-default/usr/share/tuxpaint/stamps"


def picture(number: int, label: str) -> Picture:
    look = np.random.default_rng(number).bytes(32).hex()  # of no two alike
    sha256 = f"{number:064d}"
    return Picture(
        "tuxpaint-stamps-default", f"{number}.png", "train", "object", (label,), "GPL-2", "Ann", look, sha256
    )


def stamp(packages: Path, path: str, colour: tuple[int, int, int]) -> None:
    """A red, green or blue disc in the middle of a transparent PNG, 40 high and 60 wide."""
    image = np.zeros((40, 60, 4), np.uint8)
    cv2.circle(image, (30, 20), 15, (*colour, 255), -1)
    (packages / STAMPS / path).parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(packages / STAMPS / path), image)


def test_every_rule_names_labels_that_exist() -> None:
    """A rule's right side is a mark or AudioSet names."""
    for _, labels in RULES:
        if labels != "!" and labels not in KINDS:
            for name in labels.split("|"):
                ontology().find(name)


@pytest.mark.parametrize(
    ("path", "labels"),
    [
        ("tux/animals/birds/rooster.png", "Chicken, rooster"),
        ("tux/animals/birds/lark.png", "Bird"),
        ("tux/food/fruit/banana.png", "-"),
        ("tux/vehicles/auto/sedan_mirror.png", None),
        ("tux/symbols/chess/king.png", None),
    ],
)
def test_the_first_matching_rule_decides(path: str, labels: str | None) -> None:
    """Special rules stand before general ones; a path without a rule isn't taken."""
    assert rule_of(path) == labels


def test_shrink_cuts_margins_and_keeps_edges_clean() -> None:
    """Transparent margins go, the longest side shrinks, and hidden colour doesn't bleed into the edge."""
    image = np.zeros((700, 900, 4), np.uint8)
    image[..., :3] = (0, 255, 0)  # what lies under the transparency
    image[100:600, 50:850] = (0, 0, 255, 255)
    encoded = cv2.imencode(".png", image)[1].tobytes()
    small = shrink(encoded)
    assert small is not None
    assert small.shape == (160, LONGEST_SIDE, 4)
    assert small[..., 1].max() <= 2


def test_shrink_leaves_out_what_is_no_picture() -> None:
    """Unreadable files and wholly transparent ones give None."""
    assert shrink(b"no picture") is None
    assert shrink(cv2.imencode(".png", np.zeros((4, 5, 4), np.uint8))[1].tobytes()) is None


def test_hold_out_takes_a_fifth_of_each_label() -> None:
    """Ten dogs give two, three cats one, two owls none, whatever the order."""
    pictures = [picture(n, "Dog" if n < 10 else "Cat" if n < 13 else "Owl") for n in range(15)]
    held = {p.path: p.labels[0] for p in hold_out(pictures) if p.split == "validation"}
    assert sorted(held.values()) == ["Cat", "Dog", "Dog"]
    assert {p.path for p in hold_out(pictures[::-1]) if p.split == "validation"} == set(held)


def test_near_twins_of_what_is_held_out_are_not_trained_on() -> None:
    """A copy in another size or a little lighter is found, another drawing is not."""
    rng = np.random.default_rng(0)
    drawing = np.asarray(
        cv2.resize(rng.integers(0, 256, (9, 7, 4), np.uint8), (210, 270), interpolation=cv2.INTER_CUBIC), np.uint8
    )
    drawing[..., 3] = 255
    copy = np.clip(cv2.resize(drawing, (140, 180), interpolation=cv2.INTER_AREA) * 0.9 + 9, 0, 255).astype(np.uint8)
    copy[..., 3] = 255
    looks = [look_of(drawing), look_of(copy), look_of(drawing[::-1])]
    pictures = [replace(picture(number, "Dog"), look=look) for number, look in enumerate(looks)]
    assert [p.split for p in hold_out(pictures)] == ["validation", "twin", "train"]


def test_build_writes_a_cache_that_reads_back(tmp_path: Path) -> None:
    """Labelled pictures come once each with their pixels; a byte-identical copy is left out."""
    packages, cache = tmp_path / "packages", tmp_path / "cache"
    stamp(packages, "animals/birds/duck.png", (255, 0, 0))
    stamp(packages, "animals/birds/drake.png", (255, 0, 0))
    stamp(packages, "food/pizza.png", (0, 0, 255))
    written = build(packages, cache, ontology())
    assert [(p.path, p.kind, p.labels) for p in written] == [
        ("animals/birds/drake.png", "object", ("Duck",)),
        ("food/pizza.png", "negative", ()),
    ]
    assert read_index(cache) == written
    assert read_pixels(cache, written[0])[15, 15].tolist() == [0, 0, 255, 255]  # RGBA
