"""The Debian packages that the images come from, and how they are unpacked. Knows nothing of labels."""

import subprocess
from pathlib import Path

from perceiverd.training.data.packages import archive, read_rcc
from perceiverd.training.data.recipe import CorpusSource

HELD_OUT = "gcompris-qt-data"
"""Never trained on: its sounds and images are the test set and the demo clip."""
DEMO_CLIP = ("picosdeeuropa_by_Aitzol_Berasategi.jpg",)
"""Images of the demo clip that come from other packages. They are in no split."""
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}

PACKAGES = {
    source.name: source
    for source in (
        CorpusSource(
            kind="deb",
            name="tuxpaint-stamps-default",
            version="2022.06.04-1",
            sha256="6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
            licence="GPL-2",
        ),
        CorpusSource(
            kind="deb",
            name="scratch",
            version="1.4.0.6~dfsg1-6.1",
            sha256="36c582eb93110f64f06c4e685c41e933ccba2fa68db12f79b10bfe840b21fc10",
            licence="CC BY-SA 3.0",
        ),
        CorpusSource(
            kind="deb",
            name="gnome-backgrounds",
            version="43.1-1",
            sha256="a670dea21572652127d6e55f9cdb3a226d0037854fdbfd037003c7d00ee0dc4e",
            licence="CC BY-SA 3.0 / CC BY-SA 2.0 / CC BY 2.0",
            author="Jakub Steiner; Garrett LeSage; Quinn Dombrowski; Felix Leupold; Helena Bartošová",
        ),
        CorpusSource(
            kind="deb",
            name="mate-backgrounds",
            version="1.26.0-1",
            sha256="7bf4c2209f34b4f61ba6d24c8b58c28b361e82e4b943aae6d42c030169af9e04",
            licence="GPL-2+ / CC BY-SA",
        ),
        CorpusSource(
            kind="deb",
            name="plasma-workspace-wallpapers",
            version="4:5.27.5-2",
            sha256="32cd18b71c8c938a18b3b351f217c02ac590e323caa3cf322fbb875ce8892f8b",
            licence="CC BY-SA 4.0 / LGPL-3",
        ),
        CorpusSource(
            kind="deb",
            name="lomiri-wallpapers-16.04",
            version="20.04.0-2",
            sha256="a99ff6a3bfe451e4cc0682ecb3cc82e71740626d59e4845ae34a0a0e45421eab",
            licence="CC BY 4.0 / CC BY-SA 4.0 / CC0",
        ),
        CorpusSource(
            kind="deb",
            name="lomiri-wallpapers-20.04",
            version="20.04.0-2",
            sha256="d44e89b8473aafe64a5b678f014862dc31335aaaf18665c544d985d854f1a709",
            licence="CC BY-SA 3.0",
        ),
        CorpusSource(
            kind="deb",
            name="ukui-wallpapers",
            version="20.04.3-1.1",
            sha256="6d49be70152e6d603163458e177e501deb0be8f2916389ccbfcf59b0d7fc0262",
            licence="CC BY-SA 4.0",
        ),
        CorpusSource(
            kind="deb",
            name=HELD_OUT,
            version="3.1-2",
            sha256="e9cf06ab2105529068df73085784e835d2ff03f870d2a8091f09125d40abac9f",
            licence="CC0 / CC BY / CC BY-SA / public domain a file",
        ),
    )
}
"""Each licence is the package's summary. The package's copyright file is the authority; if it is machine-readable, it
names the licence of each file."""

ROOTS = {
    "tuxpaint-stamps-default": ("tux", "usr/share/tuxpaint/stamps"),
    "scratch": ("scr", "usr/share/scratch/Media"),
    HELD_OUT: ("gc", "."),
} | {name: ("wall", "usr/share") for name in PACKAGES if "backgrounds" in name or "wallpapers" in name}
"""For each package the short name at the start of its rules, and the folder that paths are relative to."""


def unpack(debs: Path, packages: Path) -> None:
    """Unpack each package to a folder of its name in `packages`, as `images.build` expects them.

    A .deb that is not yet in `debs` is downloaded.
    """
    packages.mkdir(parents=True, exist_ok=True)
    for package in ROOTS:
        folder = packages / package
        if folder.exists():
            continue
        subprocess.run(["dpkg-deb", "-x", archive(PACKAGES[package], debs), folder], check=True)
        if package == HELD_OUT:
            _unpack_resources(folder)


def _unpack_resources(folder: Path) -> None:
    """Write the images in each Qt resource file to a folder of that file's name."""
    for resource in sorted(folder.rglob("*.rcc")):
        for path, content in read_rcc(resource.read_bytes()):
            if Path(path).suffix in SUFFIXES:
                file = folder / resource.stem / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
