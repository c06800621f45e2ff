"""The corpus: each sound once, unchanged, in the right split."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from perceiverd.training.data import corpus
from perceiverd.training.data.corpus import HOP, RATE_HZ, Corpus
from perceiverd.training.data.recipe import CorpusSource, Recipe
from tests.support.soundfonts import font
from tests.support.sounds import noise, wav


def build(tmp_path: Path, files: dict[str, bytes], exclude: tuple[str, ...] = ()) -> Corpus:
    for name, data in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    plan = Recipe(
        source=(
            CorpusSource(kind="folder", name="train", licence="x", labels=(("dog*", "Dog"),)),
            CorpusSource(kind="folder", name="test", licence="y", split="test"),
        ),
        exclude=exclude,
    )
    for source in plan.source:
        (tmp_path / source.name).mkdir(exist_ok=True)
    corpus.build(plan, cache=tmp_path, root=tmp_path, out=tmp_path / "out", processes=1)
    return Corpus(tmp_path / "out")


def test_silence_at_the_ends_is_cut(tmp_path: Path) -> None:
    """A clip starts and ends with sound, has its samples unchanged, and starts at a multiple of 0.16 s."""
    one, two = noise(5003, 1), noise(7001, 2)
    zeros = np.zeros(999, np.int16)
    built = build(tmp_path, {"train/dog.wav": wav(np.concatenate([zeros, one, zeros])), "train/x.wav": wav(two)})
    assert [clip.samples for clip in built.clips] == [5003, 7001]
    for clip, samples in zip(built.clips, (one, two), strict=True):
        np.testing.assert_array_equal(built.samples(clip), samples)
        assert clip.offset % HOP == 0
    assert [clip.labels for clip in built.clips] == [("Dog",), ()]


def test_a_duplicate_of_a_test_sound_is_not_trained_on(tmp_path: Path) -> None:
    """Of two identical sounds the one in the test split stays, even if the files differ."""
    sound = noise(6000, 3)
    built = build(tmp_path, {"train/a.wav": wav(np.append(sound, np.int16(0))), "test/b.wav": wav(sound)})
    assert [(clip.source, clip.split) for clip in built.clips] == [("test", "test")]


def test_an_excluded_file_is_left_out(tmp_path: Path) -> None:
    """A file with an excluded SHA-256 is not in the corpus."""
    bad = wav(noise(6000, 4))
    files = {"train/a.wav": bad, "train/b.wav": wav(noise(6000, 5))}
    built = build(tmp_path, files, exclude=(hashlib.sha256(bad).hexdigest(),))
    assert [clip.path for clip in built.clips] == ["b.wav"]


def test_a_long_file_gives_pieces(tmp_path: Path) -> None:
    """A file of 200 s gives four pieces of 30 s, all of one recording."""
    built = build(tmp_path, {"train/a.wav": wav(noise(200 * 8000, 5), 8000)})
    assert [clip.samples for clip in built.clips] == [30 * RATE_HZ] * 4
    assert {clip.recording for clip in built.clips} == {"train:a"}


def test_files_without_sound_are_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Broken and silent files give no clip and do not stop the build."""
    silent = wav(np.zeros(9000, np.int16))
    files = {"train/broken.wav": b"RIFFnonsense", "train/silent.wav": silent, "train/good.wav": wav(noise(6000, 6))}
    assert [clip.path for clip in build(tmp_path, files).clips] == ["good.wav"]


def test_levels_are_decibels(tmp_path: Path) -> None:
    """A square wave of half scale has -6 dB, digital zero has -128."""
    square = np.tile(np.array([16384, -16384], np.int16), HOP)
    gap = np.zeros(HOP, np.int16)
    built = build(tmp_path, {"train/a.wav": wav(np.concatenate([square, gap, square[:HOP]]))})
    assert built.levels(built.clips[0]).tolist() == [-6, -6, -128, -6]


def test_a_quieter_duplicate_is_not_trained_on(tmp_path: Path) -> None:
    """A training source's quieter and longer version of a held-out sound is dropped."""
    sound = noise(32_000, 7)
    longer = np.concatenate([noise(4_000, 8), sound // 2])
    built = build(
        tmp_path, {"train/a.wav": wav(longer), "train/b.wav": wav(noise(32_000, 9)), "test/b.wav": wav(sound)}
    )
    assert [(clip.source, clip.path) for clip in built.clips] == [("test", "b.wav"), ("train", "b.wav")]


def test_held_out_sounds_come_first(tmp_path: Path) -> None:
    """A source's held-out files are indexed before an earlier source's training files are written."""
    sound = noise(20_000, 10)
    for path, data in {"one/a.wav": wav(sound), "two/a.wav": wav(sound), "two/b.wav": wav(noise(9_000, 11))}.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(data)
    plan = Recipe(
        source=(
            CorpusSource(kind="folder", name="one", licence="x"),
            CorpusSource(kind="folder", name="two", licence="x", validation=("a.wav",)),
        )
    )
    corpus.build(plan, cache=tmp_path, root=tmp_path, out=tmp_path / "out", processes=1)
    found = [(clip.source, clip.path, clip.split) for clip in Corpus(tmp_path / "out").clips]
    assert found == [("two", "a.wav", "validation"), ("two", "b.wav", "train")]


@pytest.mark.timeout(300)
def test_the_same_recipe_gives_the_same_bytes(tmp_path: Path) -> None:
    """One process and two processes write the same files, and sums.txt has their SHA-256."""
    (tmp_path / "folder").mkdir()
    for number in range(10):  # more than one chunk for each process
        (tmp_path / "folder" / f"{number}.wav").write_bytes(wav(noise(5_000 + 700 * number, number), 22_050))
    (tmp_path / "cache").mkdir()
    sources = [CorpusSource(kind="folder", name="folder", licence="x", validation=("3.wav",))]
    if shutil.which("espeak-ng") and shutil.which("dpkg-query"):
        speech = CorpusSource(
            kind="speech", name="espeak-ng", version="1", program="espeak-ng 1", licence="x", voices=("sv:sv+m6",)
        )
        sources.append(speech)
    plan = Recipe(source=tuple(sources))
    for out, processes in (("one", 1), ("two", 2)):
        corpus.build(plan, cache=tmp_path / "cache", root=tmp_path, out=tmp_path / out, processes=processes)
    names = [*corpus.FILES, "sums.txt"]
    assert [(tmp_path / "one" / name).read_bytes() for name in names] == [
        (tmp_path / "two" / name).read_bytes() for name in names
    ]
    sums = dict(line.split("  ")[::-1] for line in (tmp_path / "one" / "sums.txt").read_text().splitlines())
    assert sums == {name: hashlib.sha256((tmp_path / "one" / name).read_bytes()).hexdigest() for name in corpus.FILES}
    assert {clip.source for clip in Corpus(tmp_path / "one").clips} == {source.name for source in sources}


@pytest.mark.skipif(not all(map(shutil.which, ("fluidsynth", "dpkg-deb"))), reason="needs fluidsynth and dpkg-deb")
def test_a_packaged_soundfont_gives_clips(tmp_path: Path) -> None:
    """A soundfont's package gives labelled clips with licence and author; paths of the split `never` are left out."""
    root = tmp_path / "root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN" / "control").write_text(
        "Package: sine-soundfont\nVersion: 1\nArchitecture: all\nMaintainer: A <a@b.c>\nDescription: d\n"
    )
    (root / "usr/share/doc/sine-soundfont").mkdir(parents=True)
    (root / "usr/share/doc/sine-soundfont/copyright").write_text(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n"
        "Files: *\nCopyright: 2001 Ann\nLicense: MIT\n"
    )
    (root / "usr/share/sine.sf2").write_bytes(font(42, 440))
    command = ["dpkg-deb", "--root-owner-group", "--build", str(root), str(tmp_path / "sine-soundfont_1_all.deb")]
    subprocess.run(command, check=True, capture_output=True)
    source = CorpusSource(
        kind="soundfont", name="sine-soundfont", version="1", program="fluidsynth 1", licence="x", split="rendered",
        recording="folder", group="rendered", never=("cello/042-[1-9].wav",),
    )  # fmt: skip
    corpus.build(Recipe(source=(source,)), cache=tmp_path, root=tmp_path, out=tmp_path / "out", processes=1)
    (clip,) = Corpus(tmp_path / "out").clips
    assert (clip.path, clip.labels, clip.split) == ("cello/042-0.wav", ("Cello",), "rendered")
    assert (clip.recording, clip.licence, clip.author) == ("sine-soundfont:cello", "MIT", "Ann")
