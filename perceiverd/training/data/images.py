"""Images for the video branch: found in unpacked packages, labelled by path, split, and cached in a small size.

The rules in `images.rules` state what a file shows. A person wrote them and looked at every image that they name. Knows
nothing of windows or teachers.
"""

import csv
import fnmatch
import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from perceiverd.core.labels import Ontology
from perceiverd.training.data.copyright import Copyright
from perceiverd.training.data.image_packages import DEMO_CLIP, HELD_OUT, PACKAGES, ROOTS, SUFFIXES
from perceiverd.training.data.photographs import photographs, stills

PNG = b"\x89PNG\r\n\x1a\n"
LONGEST_SIDE = 256
"""Pixels. A window of 192 may zoom in by 1.3 before it blurs."""
HASH_SIDE = 16
"""A difference hash compares 16 x 16 places of an image with their left neighbours."""
NEAR_BITS = 24
"""Images are near duplicates if at most this many of the 256 bits differ. Copies differ in 0 or 1 bits; one drawing in
other colours or with another sign on it differs in up to 25."""

Kind = Literal["object", "negative", "unlabelled", "background"]
Split = Literal["train", "validation", "test", "twin"]
"""`twin`: a near duplicate of an image that is held out; it is not used."""

KINDS: dict[str, Kind] = {"-": "negative", "?": "unlabelled", "#": "background"}
"""The marks that a rule may have in place of labels."""
LISTED = "photographs"
"""The package of images that a list names."""
SKIP = "!"
"""The mark of images that are not used."""


@dataclass(frozen=True)
class CachedImage:
    """One image of the cache."""

    package: str
    path: str
    """Inside the package, relative to its folder in ROOTS."""
    split: Split
    kind: Kind
    labels: tuple[str, ...]
    """AudioSet names; only objects have some. Ancestors are not listed."""
    licence: str
    author: str
    """From the package's copyright file; empty if that names nobody for single files."""
    difference_hash: str
    """The result of `difference_hash`."""
    sha256: str
    """Of the original file; its first 16 digits are the cached file's name."""

    @property
    def file(self) -> str:
        return self.sha256[:16] + ".webp"


COLUMNS = ("package", "path", "split", "kind", "labels", "licence", "author", "look", "sha256")
"""The columns of index.tsv; `look` is the difference hash."""


@functools.cache
def rules() -> tuple[tuple[str, str], ...]:
    """(glob, labels or mark) of each rule in `images.rules`, a file that explains its own form."""
    text = Path(__file__).with_suffix(".rules").read_text(encoding="utf-8")
    parted = (line.partition(" = ") for line in text.splitlines() if line and not line.startswith("#"))
    return tuple((pattern.strip(), labels.strip()) for pattern, _, labels in parted)


def rule_of(path: str) -> str | None:
    """The labels or mark of the first rule that matches `short/path`; None if the image is not used."""
    labels = next((labels for pattern, labels in rules() if fnmatch.fnmatchcase(path, pattern)), SKIP)
    return None if labels == SKIP else labels


def collect(
    packages: Path, ontology: Ontology, root: Path | None = None
) -> Iterator[tuple[CachedImage, npt.NDArray[np.uint8]]]:
    """Every image that a rule or a list names, with its pixels (H, W, 4) BGRA. Of byte-identical files only the first.

    `packages` has one folder for each package, as `image_packages.unpack` leaves it. `root` has the folders `photos`
    and `video` with their lists. Raises ConfigError if a rule or list names an unknown label.
    """
    seen: set[str] = set()
    copyrights = {package: _copyright(packages / package, package) for package in ROOTS}
    for package, path, rule, encoded in _files(packages):
        digest = hashlib.sha256(encoded).hexdigest()
        pixels = shrink(encoded)
        if digest in seen or pixels is None:
            continue
        seen.add(digest)
        kind = KINDS.get(rule, "object")
        labels = tuple(rule.split("|")) if kind == "object" else ()
        for label in labels:
            ontology.find(label)
        split: Split = "test" if package == HELD_OUT else "train"
        licence, author = _credit(copyrights[package], package, path)
        image = CachedImage(package, path, split, kind, labels, licence, author, difference_hash(pixels), digest)
        yield image, pixels
    for one in [*photographs(root / "photos"), *stills(root / "video")] if root else ():
        pixels = shrink(one.encoded)
        if one.sha256 in seen or pixels is None:
            continue
        seen.add(one.sha256)
        for label in one.labels:
            ontology.find(label)
        listed: Kind = "object" if one.labels else "unlabelled"
        credit = (one.licence, one.author, difference_hash(pixels), one.sha256)
        yield CachedImage(LISTED, one.path, "test" if one.held_out else "train", listed, one.labels, *credit), pixels


def _files(packages: Path) -> Iterator[tuple[str, str, str, bytes]]:
    """(package, path, rule, content) of each file that a rule names."""
    for package, (short, root) in ROOTS.items():
        folder = packages / package / root
        for file in sorted(folder.rglob("*")):
            path = file.relative_to(folder).as_posix()
            if file.suffix.lower() not in SUFFIXES or file.is_symlink() or file.name in DEMO_CLIP:
                continue
            if (rule := rule_of(f"{short}/{path}")) is not None:
                yield package, path, rule, file.read_bytes()


def _credit(stanzas: Copyright, package: str, path: str) -> tuple[str, str]:
    """(licence, author) of a file: from the package's copyright file, else of the package as a whole."""
    stanza = stanzas.of(f"{ROOTS[package][1]}/{path}")
    return (stanza.licence, stanza.holders) if stanza else (PACKAGES[package].licence, PACKAGES[package].author)


def _copyright(unpacked: Path, package: str) -> Copyright:
    file = unpacked / "usr/share/doc" / package / "copyright"
    return Copyright(file.read_text("utf-8", "replace") if file.exists() else "")


def difference_hash(pixels: npt.NDArray[np.uint8]) -> str:
    """64 hexadecimal digits: whether each of 16 x 16 places of an image (H, W, 4) is brighter than the one left of it.

    Near duplicates share most bits.
    """
    opacity = pixels[..., 3:].astype(np.float32) / 255
    grey = (pixels[..., :3] * opacity + 128 * (1 - opacity)).mean(axis=2)
    small = cv2.resize(grey, (HASH_SIDE + 1, HASH_SIDE), interpolation=cv2.INTER_AREA)
    return np.packbits(small[:, 1:] > small[:, :-1]).tobytes().hex()


def shrink(encoded: bytes) -> npt.NDArray[np.uint8] | None:
    """Pixels (H, W, 4) BGRA without empty margins, longest side at most LONGEST_SIDE.

    None if the file cannot be read or is wholly transparent.
    """
    image = _decode(encoded)
    if image is None:
        return None
    if image[..., 3].min() == 255:  # a photograph: nothing to cut, and no colour to protect
        scale = min(1.0, LONGEST_SIDE / max(image.shape[:2]))
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    ys, xs = np.nonzero(image[..., 3] > 16)
    if len(ys) == 0:
        return None
    image = image[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
    scale = LONGEST_SIDE / max(image.shape[:2])
    if scale < 1:
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        # Weighted by opacity, because otherwise the colour under transparent pixels bleeds into the edge.
        alpha = image[..., 3:].astype(np.float32) / 255
        premultiplied = np.concatenate([image[..., :3] * alpha, 255 * alpha], axis=2)
        small = cv2.resize(premultiplied, size, interpolation=cv2.INTER_AREA)
        colour = small[..., :3] / np.maximum(small[..., 3:] / 255, 1e-3)
        image = np.clip(np.dstack([colour, small[..., 3:]]) + 0.5, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(image, np.uint8)


def _decode(encoded: bytes) -> npt.NDArray[np.uint8] | None:
    """Pixels (H, W, 4) BGRA of any image that OpenCV can read."""
    image = cv2.imdecode(np.frombuffer(_bare_png(encoded), np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        return None
    if image.dtype == np.uint16:
        image = (image // 256).astype(np.uint8)
    if image.ndim == 2:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGRA)
    elif image.shape[2] == 3:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2BGRA)
    return np.asarray(image, np.uint8)


def _bare_png(encoded: bytes) -> bytes:
    """A PNG without what does not change its pixels, such as colour profiles; any other file as it is.

    OpenCV uses none of that, but libpng prints a line for each profile that it finds wrong.
    """
    if not encoded.startswith(PNG):
        return encoded
    kept, at = [PNG], len(PNG)
    while len(head := encoded[at : at + 8]) == 8:
        length, name = int.from_bytes(head[:4]), head[4:]
        end = at + length + 12  # the length, the name and a checksum
        if name[:1].isupper() or name == b"tRNS":  # critical chunks begin with a capital letter
            kept.append(encoded[at:end])
        at = end
    return b"".join(kept)


def hold_out(images: list[CachedImage]) -> list[CachedImage]:
    """The images with a fifth of each label's moved to validation; at least one if the label has three.

    Images are chosen in the order of their SHA-256, so that a new package changes few of the choices. Near duplicates
    of held-out images, here or in the test split, become `twin`, because they would flatter the model.
    """
    groups: dict[tuple[str, ...], list[CachedImage]] = {}
    for image in sorted(images, key=lambda image: image.sha256):
        if image.split == "train":
            groups.setdefault(image.labels or (image.kind,), []).append(image)
    held = {p.sha256 for group in groups.values() for p in group[: max(round(len(group) / 5), len(group) >= 3)]}
    split = [replace(p, split="validation") if p.sha256 in held else p for p in images]
    out = [int(p.difference_hash, 16) for p in split if p.split != "train"]
    return [replace(p, split="twin") if p.split == "train" and _is_near(p, out) else p for p in split]


def _is_near(image: CachedImage, hashes: list[int]) -> bool:
    own = int(image.difference_hash, 16)
    return any((own ^ other).bit_count() <= NEAR_BITS for other in hashes)


def build(packages: Path, cache: Path, ontology: Ontology, root: Path | None = None) -> list[CachedImage]:
    """Write one WebP file for each image, and `index.tsv`; returns the images in the order of the index."""
    cache.mkdir(parents=True, exist_ok=True)
    images = []
    for image, pixels in collect(packages, ontology, root):
        # OpenCV's 101 means lossless, because compression spoils the edge of a cut-out.
        quality = 101 if (pixels[..., 3] < 255).any() else 92
        cv2.imwrite(str(cache / image.file), pixels, [cv2.IMWRITE_WEBP_QUALITY, quality])
        images.append(image)
    images = hold_out(images)
    with (cache / "index.tsv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(COLUMNS)
        for p in images:
            names = "|".join(p.labels)
            credit = (p.licence, p.author)
            writer.writerow([p.package, p.path, p.split, p.kind, names, *credit, p.difference_hash, p.sha256])
    return images


def read_index(cache: Path) -> list[CachedImage]:
    """The images of a cache, in the order of `targets.npy`."""
    with (cache / "index.tsv").open(encoding="utf-8", newline="") as file:
        return [
            CachedImage(
                row["package"],
                row["path"],
                row["split"],  # type: ignore[arg-type]  # written by build
                row["kind"],  # type: ignore[arg-type]
                tuple(filter(None, row["labels"].split("|"))),
                row["licence"],
                row["author"],
                row["look"],
                row["sha256"],
            )
            for row in csv.DictReader(file, delimiter="\t")
        ]


def read_pixels(cache: Path, image: CachedImage) -> npt.NDArray[np.uint8]:
    """Pixels (H, W, 4), channels RGBA."""
    pixels = cv2.imread(str(cache / image.file), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise FileNotFoundError(cache / image.file)
    code = cv2.COLOR_BGRA2RGBA if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGBA
    return np.asarray(cv2.cvtColor(pixels, code), np.uint8)
