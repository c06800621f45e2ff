"""Pictures for the video branch: found in unpacked packages, labelled by path, split, and cached small.

What a file shows is told by the rules below, written after looking at every picture they name. Knows nothing
of windows or of teachers.
"""

import csv
import fnmatch
import hashlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from perceiverd.labels import Ontology
from perceiverd.training.fetch import archive, read_rcc
from perceiverd.training.recipe import Source

LONGEST_SIDE = 256
"""Pixels; a window is 96 high and wide, so that a zoom to 2.7 still has detail."""

Kind = Literal["object", "negative", "unlabelled", "background"]
Split = Literal["train", "validation", "test"]

KINDS: dict[str, Kind] = {"-": "negative", "?": "unlabelled", "#": "background"}

HELD_OUT = "gcompris-qt-data"
"""Never trained on: its sounds and pictures are the test and the demo clip."""

CLIP = ("picosdeeuropa_by_Aitzol_Berasategi.jpg",)
"""Pictures of the demo clip that come from other packages: in no split at all."""

LICENCES = {
    "tuxpaint-stamps-default": "GPL-2",
    "openclipart-png": "public domain",
    "scratch": "CC BY-SA 3.0",
    "gnome-backgrounds": "CC BY-SA 3.0",
    "mate-backgrounds": "GPL-2+ / CC BY-SA",
    "plasma-workspace-wallpapers": "CC BY-SA 4.0 / LGPL-3",
    "lomiri-wallpapers-16.04": "CC BY 4.0 / CC BY-SA 4.0 / CC0",
    "lomiri-wallpapers-20.04": "CC BY-SA 3.0",
    "ukui-wallpapers": "CC BY-SA 4.0",
    HELD_OUT: "CC0 / CC BY / CC BY-SA / public domain a file",
}
"""The packages that are read. A licence is the package's summary; its copyright file is the authority."""


def read_rules(path: Path) -> tuple[tuple[str, str], ...]:
    """(glob, labels) of each line of a file of rules, which explains itself."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    parted = (line.partition(" = ") for line in lines)
    return tuple((pattern.strip(), labels.strip()) for pattern, _, labels in parted)


RULES = read_rules(Path(__file__).with_suffix(".rules"))

ROOTS = {
    "tuxpaint-stamps-default": ("tux", "usr/share/tuxpaint/stamps"),
    "openclipart-png": ("oca", "usr/share/openclipart/png"),
    "scratch": ("scr", "usr/share/scratch/Media"),
    HELD_OUT: ("gc", "."),
} | {name: ("wall", "usr/share") for name in LICENCES if "backgrounds" in name or "wallpapers" in name}
"""For each package the short name that its rules begin with, and the folder that paths are counted from."""

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}


@dataclass(frozen=True)
class Picture:
    """One cached picture."""

    package: str
    path: str
    """Inside the package, from its folder in ROOTS."""
    split: Split
    kind: Kind
    labels: tuple[str, ...]
    """AudioSet names, none but for objects; ancestors are not written out."""
    licence: str
    sha256: str
    """Of the original file; its first 16 digits name the cached one."""

    @property
    def file(self) -> str:
        return self.sha256[:16] + ".webp"


def unpack(debs: Path, packages: Path) -> None:
    """One folder a package under `packages`, as `build` wants them; a .deb not yet in `debs` is downloaded."""
    for package in ROOTS:
        folder = packages / package
        if folder.exists():
            continue
        deb = archive(Source(kind="deb", name=package, licence=LICENCES[package]), debs)
        subprocess.run(["dpkg-deb", "-x", deb, folder], check=True)
        if package == HELD_OUT:
            for resource in sorted(folder.rglob("*.rcc")):
                for path, content in read_rcc(resource.read_bytes()):
                    if Path(path).suffix in SUFFIXES:
                        file = folder / resource.stem / path
                        file.parent.mkdir(parents=True, exist_ok=True)
                        file.write_bytes(content)


def rule_of(path: str) -> str | None:
    """What the first matching rule says of `short/path`; None when the picture isn't to be taken."""
    labels = next((labels for pattern, labels in RULES if fnmatch.fnmatchcase(path, pattern)), "!")
    return None if labels == "!" else labels


def collect(packages: Path, ontology: Ontology) -> Iterator[tuple[Picture, npt.NDArray[np.uint8]]]:
    """Every picture that a rule takes, with its pixels (H, W, 4) BGRA; byte-identical ones once.

    `packages` holds one folder a package, as `dpkg-deb -x` leaves it; gcompris's archives already read into
    `gcompris-qt-data/<archive>/...`.
    """
    seen: set[str] = set()
    for package, (short, root) in ROOTS.items():
        folder = packages / package / root
        for file in sorted(folder.rglob("*")):
            path = file.relative_to(folder).as_posix()
            if file.suffix.lower() not in SUFFIXES or file.is_symlink() or file.name in CLIP:
                continue
            rule = rule_of(f"{short}/{path}")
            if rule is None:
                continue
            encoded = file.read_bytes()
            digest = hashlib.sha256(encoded).hexdigest()
            pixels = shrink(encoded)
            if digest in seen or pixels is None:
                continue
            seen.add(digest)
            kind = KINDS.get(rule, "object")
            labels = tuple(rule.split("|")) if kind == "object" else ()
            for label in labels:
                ontology.find(label)  # a misspelt rule ends here
            split: Split = "test" if package == HELD_OUT else "train"
            yield Picture(package, path, split, kind, labels, LICENCES[package], digest), pixels


def shrink(encoded: bytes) -> npt.NDArray[np.uint8] | None:
    """Pixels (H, W, 4) BGRA, longest side at most LONGEST_SIDE, empty margins cut; None if unreadable or bare."""
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        return None
    if image.dtype == np.uint16:
        image = (image // 256).astype(np.uint8)
    if image.ndim == 2:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGRA)
    elif image.shape[2] == 3:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2BGRA)
    ys, xs = np.nonzero(image[..., 3] > 16)
    if len(ys) == 0:
        return None
    image = image[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
    scale = LONGEST_SIDE / max(image.shape[:2])
    if scale < 1:
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        # Weighted by opacity, or the colour hidden under transparency bleeds into the edge.
        alpha = image[..., 3:].astype(np.float32) / 255
        premultiplied = np.concatenate([image[..., :3] * alpha, 255 * alpha], axis=2)
        small = cv2.resize(premultiplied, size, interpolation=cv2.INTER_AREA)
        colour = small[..., :3] / np.maximum(small[..., 3:] / 255, 1e-3)
        image = np.clip(np.dstack([colour, small[..., 3:]]) + 0.5, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(image, np.uint8)


def hold_out(pictures: list[Picture]) -> list[Picture]:
    """The pictures with a fifth of each label's moved to validation, at least one of three, by hash.

    Pictures are taken in the order of their hash, so that adding a package moves few of the others.
    """
    groups: dict[tuple[str, ...], list[Picture]] = {}
    for picture in sorted(pictures, key=lambda picture: picture.sha256):
        if picture.split == "train":
            groups.setdefault(picture.labels or (picture.kind,), []).append(picture)
    held = {p.sha256 for group in groups.values() for p in group[: max(round(len(group) / 5), len(group) >= 3)]}
    return [
        Picture(p.package, p.path, "validation", p.kind, p.labels, p.licence, p.sha256) if p.sha256 in held else p
        for p in pictures
    ]


def build(packages: Path, cache: Path, ontology: Ontology) -> list[Picture]:
    """Fills `cache` with one WebP a picture and `index.tsv`."""
    cache.mkdir(parents=True, exist_ok=True)
    pictures = []
    for picture, pixels in collect(packages, ontology):
        # OpenCV's 101 means lossless: the alpha edge of a cut-out doesn't bear compression.
        quality = 101 if (pixels[..., 3] < 255).any() else 92
        cv2.imwrite(str(cache / picture.file), pixels, [cv2.IMWRITE_WEBP_QUALITY, quality])
        pictures.append(picture)
    pictures = hold_out(pictures)
    with (cache / "index.tsv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["package", "path", "split", "kind", "labels", "licence", "sha256"])
        for p in pictures:
            writer.writerow([p.package, p.path, p.split, p.kind, "|".join(p.labels), p.licence, p.sha256])
    return pictures


def read_index(cache: Path) -> list[Picture]:
    """The pictures of a cache, in the order of `targets.npy`."""
    with (cache / "index.tsv").open(encoding="utf-8", newline="") as file:
        return [
            Picture(
                row["package"],
                row["path"],
                row["split"],  # type: ignore[arg-type]  # written by build
                row["kind"],  # type: ignore[arg-type]
                tuple(filter(None, row["labels"].split("|"))),
                row["licence"],
                row["sha256"],
            )
            for row in csv.DictReader(file, delimiter="\t")
        ]


def read_pixels(cache: Path, picture: Picture) -> npt.NDArray[np.uint8]:
    """Pixels (H, W, 4), channels RGBA."""
    image = cv2.imread(str(cache / picture.file), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise FileNotFoundError(cache / picture.file)
    code = cv2.COLOR_BGRA2RGBA if image.shape[2] == 4 else cv2.COLOR_BGR2RGBA
    return np.asarray(cv2.cvtColor(image, code), np.uint8)
