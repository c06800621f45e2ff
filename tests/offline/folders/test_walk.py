"""The media in a folder."""

import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from perceiverd.offline.folders.walk import Found, Passed, Selection, Walk

WAV = b"RIFF\x24\0\0\0WAVEfmt " + bytes(28)


def tree(root: Path, *names: str) -> Path:
    """Write a small WAV at each of these paths."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(WAV)
    return root


def names(root: Path, selection: Selection = Selection(recursive=True)) -> list[str]:  # noqa: B008 - frozen
    return [found.name for found in Walk(str(root), selection)]


def test_media_is_found_by_content(tmp_path: Path) -> None:
    """A WAV without an ending is found; text, empty files and hidden ones are passed over and counted."""
    root = tree(tmp_path, "b/no-ending", "a.wav", ".hidden/c.wav", ".d.wav")
    (root / "text.txt").write_text("hello")
    (root / "empty.wav").touch()
    walk = Walk(str(root), Selection(recursive=True))
    assert [found.name for found in walk] == ["a.wav", "b/no-ending"]
    assert walk.passed == Passed(empty=1, other=1, unwanted=0, hidden=2)


def test_a_damaged_file_with_the_name_of_media_is_found(tmp_path: Path) -> None:
    """It must be reported when it is opened. TypeScript is not a transport stream."""
    (tmp_path / "a.mp4").write_bytes(b"\0" * 5000)
    (tmp_path / "b.ts").write_text("export const a = 1;\n")
    (tmp_path / "c.TS").write_bytes(b"\0" * 5000)
    assert names(tmp_path) == ["a.mp4", "c.TS"]


def test_folders_below_are_entered_only_if_wanted(tmp_path: Path) -> None:
    """Without `recursive` only the files of the folder itself are found."""
    assert names(tree(tmp_path, "a.wav", "b/c.wav"), Selection()) == ["a.wav"]


def test_order_is_by_name_within_each_folder(tmp_path: Path) -> None:
    """Each walk gives the same order: the files of a folder, then its folders."""
    root = tree(tmp_path, "z.wav", "b/2.wav", "b/1.wav", "a/b/3.wav", "a/0.wav", "m.wav")
    assert names(root) == ["m.wav", "z.wav", "a/0.wav", "a/b/3.wav", "b/1.wav", "b/2.wav"]


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({"include": ("*.wav",)}, ["a.wav", "door/b.wav", "door/old/c.wav"]),
        ({"include": ("door/*",)}, ["door/b.wav", "door/d.ogg", "door/old/c.wav"]),
        ({"exclude": ("old",)}, ["a.wav", "door/b.wav", "door/d.ogg"]),
        ({"exclude": ("*.ogg", "a.*")}, ["door/b.wav", "door/old/c.wav"]),
        ({"include": ("*.wav",), "exclude": ("door/old/*",)}, ["a.wav", "door/b.wav"]),
    ],
)
def test_patterns_choose_files(tmp_path: Path, selection: dict[str, Any], expected: list[str]) -> None:
    """A pattern with a slash is for the path, another one for the name; an excluded folder is not entered."""
    root = tree(tmp_path, "a.wav", "door/b.wav", "door/d.ogg", "door/old/c.wav")
    assert names(root, Selection(recursive=True, **selection)) == expected


def test_old_files_are_left_out(tmp_path: Path) -> None:
    """`since` takes files that were changed at that time or later."""
    root = tree(tmp_path, "old.wav", "new.wav")
    os.utime(root / "old.wav", ns=(10, 10))
    os.utime(root / "new.wav", ns=(20, 20))
    assert names(root, Selection(since_ns=20)) == ["new.wav"]
    assert names(root, Selection(since_ns=10)) == ["new.wav", "old.wav"]


def test_links_and_pipes(tmp_path: Path) -> None:
    """A link to a file counts as a file; a link to a folder, a broken link and a FIFO do not stop the walk."""
    root = tree(tmp_path / "root", "a.wav")
    (root / "link.wav").symlink_to(root / "a.wav")
    (root / "loop").symlink_to(root)
    os.mkfifo(root / "fifo.wav")
    assert names(root) == ["a.wav", "link.wav"]
    (root / "broken.wav").symlink_to(root / "nowhere")
    faults = [found for found in Walk(str(root), Selection(recursive=True)) if found.fault]
    assert [(found.name, found.fault.split(" (")[0]) for found in faults] == [("broken.wav", "cannot be read")]


def test_the_folder_of_outputs_is_left_out(tmp_path: Path) -> None:
    """Outputs inside the folder are not taken for media."""
    root = tree(tmp_path, "a.wav", "out/b.wav", "sub/out/c.wav")
    assert [found.name for found in Walk(str(root), Selection(recursive=True), root / "out")] == [
        "a.wav",
        "sub/out/c.wav",
    ]


def test_a_folder_that_cannot_be_listed_is_a_fault(tmp_path: Path) -> None:
    """The walk reports it and goes on."""
    (found,) = Walk(str(tmp_path / "nowhere"), Selection())
    assert "cannot be listed (No such file or directory)" in found.fault


def test_names_may_be_any_bytes(tmp_path: Path) -> None:
    """A name that is no UTF-8 is found, and opens the file."""
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav"))
    path.write_bytes(WAV)
    (found,) = Walk(str(tmp_path), Selection())
    assert Path(found.address).read_bytes() == WAV


def test_size_and_time_of_change_are_known(tmp_path: Path) -> None:
    """They show later whether a file has changed."""
    root = tree(tmp_path, "a.wav")
    os.utime(root / "a.wav", ns=(5, 7))
    assert list(Walk(str(root), Selection())) == [Found(str(root / "a.wav"), "a.wav", len(WAV), 7)]


def test_memory_does_not_grow_with_the_number_of_folders(tmp_path: Path) -> None:
    """Five times as many folders of 50 files take no more memory."""

    def peak(folders: int) -> int:
        root = tmp_path / str(folders)
        for folder in range(folders):
            (root / f"{folder:03}").mkdir(parents=True)
            for number in range(50):
                (root / f"{folder:03}" / f"{number}.wav").touch()
        tracemalloc.start()
        try:
            assert names(root) == []
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(50) < peak(10) + 20_000
