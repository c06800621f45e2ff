"""Arguments of a run on many workers: paths, patterns, folders, lists and buckets."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from perceiverd.core.errors import PerceiverdError
from perceiverd.offline.cluster.inputs import expanded, is_bucket


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.wav", "a.wav", "sub/c.mp4", ".hidden", "list.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def test_folders_patterns_and_lists_name_files(folder: Path) -> None:
    """A folder has all below it but hidden files; a list's paths start at its folder; each file is there once."""
    (folder / "list.txt").write_text("a.wav\n\nsub\nhttps://example.org/x.mp3\n")
    everything = [str(folder / name) for name in ("a.wav", "b.wav", "list.txt", "sub/c.mp4")]
    assert expanded([str(folder)]) == everything
    assert expanded([str(folder / "*.wav"), str(folder / "a.wav")]) == everything[:2]
    listed = expanded([f"@{folder / 'list.txt'}"])
    assert listed == [everything[0], everything[3], "https://example.org/x.mp3"]


def test_buckets_are_listed(tmp_path: Path) -> None:
    """An address that fsspec knows may be a file, a prefix or a pattern."""
    files = fsspec.filesystem("memory")
    for name in ("1/a.wav", "1/b.mp3", "2/c.wav"):
        files.pipe_file(f"/{tmp_path.name}/{name}", b"x")
    root = f"memory://{tmp_path.name}"
    assert [name.rpartition("/")[2] for name in expanded([root])] == ["a.wav", "b.mp3", "c.wav"]
    assert [name.rpartition("/")[2] for name in expanded([f"{root}/*/*.wav"])] == ["a.wav", "c.wav"]
    assert all(is_bucket(name) for name in expanded([root]))
    assert not is_bucket("https://example.org/x.mp3") and not is_bucket("/x.mp3")


def test_a_missing_file_is_left_to_the_worker(tmp_path: Path) -> None:
    """A path that may exist on another machine is kept, absolute; a worker that lacks it reports it."""
    assert expanded([str(tmp_path / "gone.wav")]) == [str(tmp_path / "gone.wav")]


@pytest.mark.parametrize("argument", ["-", "@none.txt", "memory://none-at-all", "none/*.wav"])
def test_what_names_no_file_is_refused(argument: str, tmp_path: Path) -> None:
    """Standard input, a missing list, an empty bucket and a pattern without a match are one line."""
    with pytest.raises(PerceiverdError, match=r"several workers|cannot read the list|has no file|cannot be listed"):
        expanded([argument if argument.startswith(("-", "@", "memory")) else str(tmp_path / argument)])
