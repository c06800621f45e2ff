"""Pictures for the video branch: found in unpacked packages, labelled by path, split, and cached small.

What a file shows is told by the rules below, written after looking at every picture they name. Knows nothing
of windows or of teachers.
"""

import csv
import fnmatch
import hashlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from perceiverd.core.labels import Ontology
from perceiverd.training.data.copyright import Copyright
from perceiverd.training.data.packages import archive, read_rcc
from perceiverd.training.data.recipe import Source

LONGEST_SIDE = 256
"""Pixels; a window of 160 may be zoomed into by 1.6 before it blurs."""
LOOK, TWINS = 16, 24
"""Places a side of a picture's look, and how many of all 256 may differ in near twins: copies differ in 0 or 1, one
drawing in other colours or with another sign on it in up to 25."""

Kind = Literal["object", "negative", "unlabelled", "background"]
Split = Literal["train", "validation", "test", "twin"]

KINDS: dict[str, Kind] = {"-": "negative", "?": "unlabelled", "#": "background"}

HELD_OUT = "gcompris-qt-data"
"""Never trained on: its sounds and pictures are the test and the demo clip."""

CLIP = ("picosdeeuropa_by_Aitzol_Berasategi.jpg",)
"""Pictures of the demo clip that come from other packages: in no split at all."""

PACKAGES = {
    source.name: source
    for source in (
        Source(
            kind="deb",
            name="tuxpaint-stamps-default",
            version="2022.06.04-1",
            sha256="6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
            licence="GPL-2",
        ),
        Source(
            kind="deb",
            name="openclipart-png",
            version="1:0.18+dfsg-19",
            sha256="f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02",
            licence="public domain",
        ),
        Source(
            kind="deb",
            name="scratch",
            version="1.4.0.6~dfsg1-6.1",
            sha256="36c582eb93110f64f06c4e685c41e933ccba2fa68db12f79b10bfe840b21fc10",
            licence="CC BY-SA 3.0",
        ),
        Source(
            kind="deb",
            name="gnome-backgrounds",
            version="43.1-1",
            sha256="a670dea21572652127d6e55f9cdb3a226d0037854fdbfd037003c7d00ee0dc4e",
            licence="CC BY-SA 3.0 / CC BY-SA 2.0 / CC BY 2.0",
            author="Jakub Steiner; Garrett LeSage; Quinn Dombrowski; Felix Leupold; Helena Bartošová",
        ),
        Source(
            kind="deb",
            name="mate-backgrounds",
            version="1.26.0-1",
            sha256="7bf4c2209f34b4f61ba6d24c8b58c28b361e82e4b943aae6d42c030169af9e04",
            licence="GPL-2+ / CC BY-SA",
        ),
        Source(
            kind="deb",
            name="plasma-workspace-wallpapers",
            version="4:5.27.5-2",
            sha256="32cd18b71c8c938a18b3b351f217c02ac590e323caa3cf322fbb875ce8892f8b",
            licence="CC BY-SA 4.0 / LGPL-3",
        ),
        Source(
            kind="deb",
            name="lomiri-wallpapers-16.04",
            version="20.04.0-2",
            sha256="a99ff6a3bfe451e4cc0682ecb3cc82e71740626d59e4845ae34a0a0e45421eab",
            licence="CC BY 4.0 / CC BY-SA 4.0 / CC0",
        ),
        Source(
            kind="deb",
            name="lomiri-wallpapers-20.04",
            version="20.04.0-2",
            sha256="d44e89b8473aafe64a5b678f014862dc31335aaaf18665c544d985d854f1a709",
            licence="CC BY-SA 3.0",
        ),
        Source(
            kind="deb",
            name="ukui-wallpapers",
            version="20.04.3-1.1",
            sha256="6d49be70152e6d603163458e177e501deb0be8f2916389ccbfcf59b0d7fc0262",
            licence="CC BY-SA 4.0",
        ),
        Source(
            kind="deb",
            name=HELD_OUT,
            version="3.1-2",
            sha256="e9cf06ab2105529068df73085784e835d2ff03f870d2a8091f09125d40abac9f",
            licence="CC0 / CC BY / CC BY-SA / public domain a file",
        ),
    )
}
"""The packages that are read. A licence is the package's summary; its copyright file is the authority, file by file
where a program can read it."""


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
} | {name: ("wall", "usr/share") for name in PACKAGES if "backgrounds" in name or "wallpapers" in name}
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
    author: str
    """As the package's copyright file has it; empty where only the package as a whole is told."""
    look: str
    """What `look_of` makes of it."""
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
        deb = archive(PACKAGES[package], debs)
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
        told = _copyright(packages / package, package)
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
            stanza = told.of(f"{root}/{path}")
            licence, author = (stanza.licence, stanza.holders) if stanza else _whole(package)
            yield Picture(package, path, split, kind, labels, licence, author, look_of(pixels), digest), pixels


def _copyright(unpacked: Path, package: str) -> Copyright:
    file = unpacked / "usr/share/doc" / package / "copyright"
    return Copyright(file.read_text("utf-8", "replace") if file.exists() else "")


def _whole(package: str) -> tuple[str, str]:
    return PACKAGES[package].licence, PACKAGES[package].author


def look_of(pixels: npt.NDArray[np.uint8]) -> str:
    """64 hexadecimal digits: which of 16 x 16 places are brighter than the one left of them. Near twins share most."""
    opacity = pixels[..., 3:].astype(np.float32) / 255
    grey = (pixels[..., :3] * opacity + 128 * (1 - opacity)).mean(axis=2)
    small = cv2.resize(grey, (LOOK + 1, LOOK), interpolation=cv2.INTER_AREA)
    return np.packbits(small[:, 1:] > small[:, :-1]).tobytes().hex()


def _alike(one: Picture, other: Picture) -> bool:
    return (int(one.look, 16) ^ int(other.look, 16)).bit_count() <= TWINS


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

    Pictures are taken in the order of their hash, so that adding a package moves few of the others. Near twins of
    those that are held out, here or in the test, become "twin": they would be asked for what was learnt by heart.
    """
    groups: dict[tuple[str, ...], list[Picture]] = {}
    for picture in sorted(pictures, key=lambda picture: picture.sha256):
        if picture.split == "train":
            groups.setdefault(picture.labels or (picture.kind,), []).append(picture)
    held = {p.sha256 for group in groups.values() for p in group[: max(round(len(group) / 5), len(group) >= 3)]}
    split = [replace(p, split="validation") if p.sha256 in held else p for p in pictures]
    asked = [p for p in split if p.split != "train"]
    return [replace(p, split="twin") if p.split == "train" and any(_alike(p, q) for q in asked) else p for p in split]


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
        writer.writerow(["package", "path", "split", "kind", "labels", "licence", "author", "look", "sha256"])
        for p in pictures:
            names = "|".join(p.labels)
            writer.writerow([p.package, p.path, p.split, p.kind, names, p.licence, p.author, p.look, p.sha256])
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
                row["author"],
                row["look"],
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
