"""Images: rules, shrinking, the split, the cache and its index."""

import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from perceiverd.core.labels import ontology
from perceiverd.training.data.images import (
    KINDS,
    LONGEST_SIDE,
    CachedImage,
    build,
    difference_hash,
    hold_out,
    read_index,
    read_pixels,
    rule_of,
    rules,
    shrink,
)

STAMPS = "tuxpaint-stamps-default/usr/share/tuxpaint/stamps"


def image(number: int, label: str) -> CachedImage:
    """An image for training that is no near duplicate of another number's."""
    hash_ = np.random.default_rng(number).bytes(32).hex()
    sha256 = f"{number:064d}"
    return CachedImage(
        "tuxpaint-stamps-default", f"{number}.png", "train", "object", (label,), "GPL-2", "Ann", hash_, sha256
    )


def stamp(packages: Path, path: str, colour: tuple[int, int, int]) -> None:
    """Write a disc of one colour in the middle of a transparent PNG, 40 high and 60 wide."""
    pixels = np.zeros((40, 60, 4), np.uint8)
    cv2.circle(pixels, (30, 20), 15, (*colour, 255), -1)
    (packages / STAMPS / path).parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(packages / STAMPS / path), pixels)


def test_importing_reads_no_file() -> None:
    """The import of the module opens only Python modules and libraries; the rules are read at their first use."""
    code = (
        "import sys, cv2, numpy.typing, perceiverd.core.labels\n"
        "opened = []\n"
        "sys.addaudithook(lambda event, args: event == 'open' and opened.append(str(args[0])))\n"
        "from perceiverd.training.data import images\n"
        "assert not [name for name in opened if name.endswith(('.rules', '.tsv', '.toml'))], opened\n"
        "assert images.rules()\n"
        "assert [name for name in opened if name.endswith('images.rules')]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_every_rule_names_known_labels() -> None:
    """The right side of a rule is a mark or AudioSet names."""
    for _, labels in rules():
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
    """Special rules are before general ones; a path without a rule is not used."""
    assert rule_of(path) == labels


def test_shrink_cuts_margins_and_keeps_edges_clean() -> None:
    """Transparent margins are cut, the longest side shrinks, and hidden colour does not bleed into the edge."""
    pixels = np.zeros((700, 900, 4), np.uint8)
    pixels[..., :3] = (0, 255, 0)  # the colour of transparent pixels
    pixels[100:600, 50:850] = (0, 0, 255, 255)
    encoded = cv2.imencode(".png", pixels)[1].tobytes()
    small = shrink(encoded)
    assert small is not None
    assert small.shape == (160, LONGEST_SIDE, 4)
    assert small[..., 1].max() <= 2


def test_a_wrong_colour_profile_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """Many drawings have a profile that libpng calls wrong. Pixels and transparency are as without it."""
    pixels = np.random.default_rng(0).integers(0, 256, (7, 11, 4), np.uint8)
    plain = cv2.imencode(".png", pixels)[1].tobytes()
    data = b"iCCP" + b"wrong\0\0" + zlib.compress(bytes(140))
    profile = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    at = plain.index(b"IDAT") - 4
    spoilt = plain[:at] + profile + plain[at:]
    cv2.imdecode(np.frombuffer(spoilt, np.uint8), cv2.IMREAD_UNCHANGED)
    assert "libpng warning" in capfd.readouterr().err  # so it would be without care
    found, expected = shrink(spoilt), shrink(plain)
    assert found is not None and expected is not None and np.array_equal(found, expected)
    assert capfd.readouterr().err == ""


def test_shrink_refuses_files_that_show_nothing() -> None:
    """An unreadable file and a wholly transparent one give None."""
    assert shrink(b"no image") is None
    assert shrink(cv2.imencode(".png", np.zeros((4, 5, 4), np.uint8))[1].tobytes()) is None


def test_hold_out_takes_a_fifth_of_each_label() -> None:
    """Of ten dogs two are held out, of three cats one, of two owls none, whatever the order."""
    images = [image(n, "Dog" if n < 10 else "Cat" if n < 13 else "Owl") for n in range(15)]
    held = {p.path: p.labels[0] for p in hold_out(images) if p.split == "validation"}
    assert sorted(held.values()) == ["Cat", "Dog", "Dog"]
    assert {p.path for p in hold_out(images[::-1]) if p.split == "validation"} == set(held)


def test_near_duplicates_of_held_out_images_are_not_trained_on() -> None:
    """A smaller, lighter copy is a near duplicate; another drawing is not."""
    rng = np.random.default_rng(0)
    drawing = np.asarray(
        cv2.resize(rng.integers(0, 256, (9, 7, 4), np.uint8), (210, 270), interpolation=cv2.INTER_CUBIC), np.uint8
    )
    drawing[..., 3] = 255
    copy = np.clip(cv2.resize(drawing, (140, 180), interpolation=cv2.INTER_AREA) * 0.9 + 9, 0, 255).astype(np.uint8)
    copy[..., 3] = 255
    hashes = [difference_hash(drawing), difference_hash(copy), difference_hash(drawing[::-1])]
    images = [replace(image(number, "Dog"), difference_hash=one) for number, one in enumerate(hashes)]
    assert [p.split for p in hold_out(images)] == ["validation", "twin", "train"]


def test_build_writes_a_cache_that_reads_back(tmp_path: Path) -> None:
    """The index has each image once, and the pixels read back; a byte-identical copy is left out."""
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
