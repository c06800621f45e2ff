"""Manifests: both formats are read, new labels become classes, and each error names its line."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from perceiverd.core.errors import ConfigError
from perceiverd.core.labels import ontology
from perceiverd.evaluation import manifest
from perceiverd.evaluation.manifest import Manifest, ManifestRow

KNOWN = ontology().labels
DOG, BARK = "/m/0bt9lr", "/m/05tny_"


def read(folder: Path, text: str, *, skip: float = 0.0, media: Path | None = None) -> Manifest:
    path = folder / "clips.csv"
    path.write_text(text, encoding="utf-8")
    return manifest.read(path, KNOWN, skip=skip, media=media)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.wav", "b.wav", "sub/c.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\0")
    return tmp_path


def test_our_format_is_read(folder: Path) -> None:
    """Paths start at the CSV's folder; labels are names or mids; times are optional; lines are counted from 1."""
    found = read(
        folder,
        f"file,start_s,end_s,labels\na.wav,0.5,2,dog|{BARK}\n\nsub/c.mp4,,,Door bell at home\nb.wav,,,\n",
    )
    assert found.rows == (
        ManifestRow(2, folder / "a.wav", 0.5, 2.0, (DOG, BARK)),
        ManifestRow(4, folder / "sub/c.mp4", 0.0, None, ("user/door-bell-at-home",)),
        ManifestRow(5, folder / "b.wav", 0.0, None, ()),
    )
    assert [(label.index, label.mid, label.name) for label in found.new] == [
        (527, "user/door-bell-at-home", "Door bell at home")
    ]
    assert found.mids == (DOG, BARK, "user/door-bell-at-home")


@pytest.mark.parametrize("sign", [";", "\t"])
def test_other_separators_are_read(folder: Path, sign: str) -> None:
    """Semicolons or tabs may separate cells, and the file may start with a byte-order mark."""
    text = "\ufefffile,labels\na.wav,Dog\n".replace(",", sign)
    assert read(folder, text).rows == (ManifestRow(2, folder / "a.wav", 0.0, None, (DOG,)),)


def test_a_class_of_an_earlier_fit_is_known(folder: Path) -> None:
    """A label that the starting model has, by mid or name, adds no class."""
    first = read(folder, "file,labels\na.wav,Kettle song\n")
    again = manifest.read(first.path, [*KNOWN, *first.new])
    assert again.new == () and again.rows == first.rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,strat_s,labels\n", "line 1: unknown column 'strat_s'; did you mean 'start_s'?"),
        ("file,start_s\n", "line 1: needs one column 'labels'"),
        ("", "line 1: needs one column 'file'"),
        ("file,labels\n", "has no clip; each line needs a file"),
        ("file,labels\na.wav,Dog,more\n", "line 2: 3 cells for 2 columns; put a cell that has a comma into quotes"),
        ("file,start_s,end_s,labels\na.wav,2,2,Dog\n", "line 2: a clip from 2 s to 2 s is empty"),
        ("file,start_s,end_s,labels\na.wav,-1,2,Dog\n", "line 2: a clip from -1 s to 2 s is empty"),
        ("file,start_s,end_s,labels\na.wav,nan,2,Dog\n", "line 2: a clip from nan s"),
        ("file,start_s,end_s,labels\n\na.wav,one,2,Dog\n", "line 3: 'one' is not a number of seconds"),
        ("file,labels\n,Dog\n", "line 2: the file is missing"),
        ("file,labels\na.wav,Speach\n", "did you mean 'Speech'? For a class of your own write user/speach"),
        ("file,labels\na.wav,/m/none\n", "unknown label '/m/none'; it is not one of AudioSet's 527"),
        ("file,labels\nnone.wav,Dog\n", "line 2: no such file"),
        (f"file,labels\n{'a' * 300},Dog\n", "line 2: no such file"),
        (f'file,labels\n"{"a" * 200_000},Dog\n', "line 2: field larger than field limit (131072); is a closing quote"),
    ],
)
def test_a_wrong_manifest_is_refused(folder: Path, text: str, message: str) -> None:
    """The error is one line with the place and what to do."""
    with pytest.raises(ConfigError) as error:
        read(folder, text)
    assert message in str(error.value)


def test_every_wrong_line_is_logged(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each of several faults has a log line; after 20 only their number is logged."""
    with caplog.at_level(logging.WARNING), pytest.raises(ConfigError, match="24 lines are wrong"):
        read(folder, "file,start_s,end_s,labels\n" + "a.wav,2,1,Dog\n" * 24)
    lines = caplog.messages
    assert len(lines) == manifest.MAX_LOGGED + 1
    assert "line 2:" in lines[0] and lines[-1] == "faults-omitted count=4"


def test_some_files_may_be_missing(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Clips without a file are logged, counted and left out, up to the allowed share."""
    text = "file,labels\na.wav,Dog\nb.wav,Dog\nnone.wav,Dog\n"
    with caplog.at_level(logging.WARNING):
        found = read(folder, text, skip=0.4)
    assert len(found.rows) == 2 and found.missing == 1
    assert "line 4: no such file" in caplog.text
    with pytest.raises(ConfigError, match="no such file"):
        read(folder, text, skip=0.3)


AUDIOSET = """# Segments csv created Sun Mar  5 10:54:31 2017
# num_ytids=3, num_segs=4
# YTID, start_seconds, end_seconds, positive_labels
--4gqARaEJE, 0.000, 10.000, "/m/068hy,/m/0bt9lr"
-_0000000_1, 30.000, 40.000, "/m/05tny_"
-_0000000_1, 70.000, 80.000, "/m/0bt9lr"
abcdefghijk, 5.000, 15.000, "/m/0bt9lr"
"""


def test_lists_of_audioset_are_read(folder: Path) -> None:
    """Comments are skipped, labels are mids, clips are found by id, or by id and start."""
    media = folder / "media"
    for name in (
        "--4gqARaEJE.mp4",
        "part/-_0000000_1_30.000.wav",
        "part/-_0000000_1_70000_80000.wav",
        "Yabcdefghijk.m4a",
    ):
        (media / name).parent.mkdir(parents=True, exist_ok=True)
        (media / name).write_bytes(b"\0")
    found = read(folder, AUDIOSET, media=media)
    assert found.new == ()
    assert [(row.number, row.file.name, row.start_s, row.end_s, row.cut) for row in found.rows] == [
        (4, "--4gqARaEJE.mp4", 0.0, 10.0, True),
        (5, "-_0000000_1_30.000.wav", 0.0, None, False),
        (6, "-_0000000_1_70000_80000.wav", 0.0, None, False),
        (7, "Yabcdefghijk.m4a", 5.0, 15.0, True),
    ]
    assert found.rows[0].labels == ("/m/068hy", DOG)


def test_lists_of_audioset_need_media(folder: Path) -> None:
    """A list without the folder of its clips is refused, and so is one with an unknown label."""
    with pytest.raises(ConfigError, match="--media"):
        read(folder, AUDIOSET)
    with pytest.raises(ConfigError, match="line 4: unknown label 'Dogs'"):
        read(folder, AUDIOSET.replace("/m/068hy,/m/0bt9lr", "Dogs"), media=folder)


def test_a_folder_is_read_without_labels(folder: Path) -> None:
    """Every file below a folder is a clip without labels; hidden files are left out."""
    (folder / ".hidden").write_bytes(b"\0")
    assert [row.file.name for row in manifest.files_in(folder)] == ["a.wav", "b.wav", "c.mp4"]
