"""The files that the user names, and the names of their outputs."""

from pathlib import Path

import pytest

from perceiverd.core.errors import PerceiverdError
from perceiverd.offline.folders.named_files import NamedFiles
from perceiverd.offline.folders.walk import Selection
from tests.offline.folders.test_walk import tree


def names(out: Path, *named: Path | str) -> list[str]:
    return [found.name for found in NamedFiles([str(each) for each in named], Selection(recursive=True), out)]


def test_one_folder_gives_the_paths_below_it(tmp_path: Path) -> None:
    """The outputs have the structure of the folder."""
    assert names(tmp_path / "out", tree(tmp_path / "in", "a.wav", "b/c.wav")) == ["a.wav", "b/c.wav"]


def test_several_inputs_get_folders_of_their_own(tmp_path: Path) -> None:
    """Folders keep their names; files have none before theirs."""
    tree(tmp_path, "door/a.wav", "room/a.wav", "c.wav")
    assert names(tmp_path / "out", tmp_path / "door", tmp_path / "room", tmp_path / "c.wav") == [
        "door/a.wav",
        "room/a.wav",
        "c.wav",
    ]


def test_two_outputs_of_one_name_are_refused(tmp_path: Path) -> None:
    """Before anything is written, the error says which."""
    tree(tmp_path, "a/x.wav", "b/x.wav")
    with pytest.raises(PerceiverdError, match=r"a/x\.wav: outputs of two inputs would have the name 'x\.wav'"):
        names(tmp_path / "out", tmp_path / "a/x.wav", tmp_path / "b/x.wav")


@pytest.mark.parametrize(
    ("named", "name"),
    [
        ("-", "stdin"),
        ("http://me:secret@host/a/b%20c.mp4?token=x", "b c.mp4"),
        ("rtsp://host:554/", "host"),
        ("http://[bad/x", "url"),
        ("../x.wav", "x.wav"),
    ],
)
def test_other_inputs_have_names_too(tmp_path: Path, named: str, name: str) -> None:
    """Standard input, URLs and paths, without passwords and parameters."""
    (found,) = NamedFiles([named], Selection(), tmp_path)
    assert (found.address, found.name) == (named, name)


def test_a_file_has_its_size_and_time(tmp_path: Path) -> None:
    """A missing or empty file has none, so it is never taken for done."""
    path = tree(tmp_path, "a.wav") / "a.wav"
    (tmp_path / "empty.wav").touch()
    files = list(NamedFiles([str(path), str(tmp_path / "empty.wav"), str(tmp_path / "no.wav")], Selection(), tmp_path))
    assert [(found.size, found.mtime_ns) for found in files] == [
        (path.stat().st_size, path.stat().st_mtime_ns),
        (0, 0),
        (0, 0),
    ]


def test_the_folder_of_outputs_may_be_that_of_the_media(tmp_path: Path) -> None:
    """Outputs beside the media are not taken for media."""
    tree(tmp_path, "a.wav")
    (tmp_path / "a.wav.vtt").write_text("WEBVTT\n")
    (tmp_path / "a.wav.parquet").write_bytes(b"PAR1" + bytes(100))
    assert names(tmp_path, tmp_path) == ["a.wav"]
