"""The folder of snapshots: names, permissions, age, size and a full disk."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from perceiverd.sources.snapshots import store
from perceiverd.sources.snapshots.store import SnapshotStore, name_of

AT = datetime(2026, 1, 31, 23, 59, 59, 123_456, UTC)


def test_names() -> None:
    """A name sorts by UTC and holds nothing but letters, digits, - and _."""
    assert name_of("door", "Dog", AT) == "20260131T235959.123Z_door_Dog"
    assert name_of("door", "Vehicle horn, car horn; ../x\n", AT.astimezone(timezone(timedelta(hours=9)))) == (
        "20260131T235959.123Z_door_Vehicle-horn-car-horn-x"
    )
    assert name_of("d", "…", AT).endswith("_d_label")
    assert name_of("d", "a", AT) < name_of("a", "a", AT + timedelta(milliseconds=1))
    assert store.NAME.fullmatch(name_of("front_door-2", "Speech", AT) + ".jpg")


def test_only_the_owner_reads(tmp_path: Path) -> None:
    """Only the owner can read folder and files, whatever the umask is."""
    before = os.umask(0)
    try:
        SnapshotStore(tmp_path / "kept", 60, 1000).add("a.jpg", b"1234")
    finally:
        os.umask(before)
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "kept/a.jpg").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "kept/a.jpg").read_bytes() == b"1234"


def test_a_shared_folder_lets_its_group_read(tmp_path: Path) -> None:
    """Mode 2750 is the operator's word: new files and folders are for the group, too, and never for others."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept").chmod(0o2750)
    before = os.umask(0)
    try:
        SnapshotStore(tmp_path / "kept", 60, 1000).add("a.jpg", b"1234")
        SnapshotStore(tmp_path / "kept/recent/door", 60, 1000).add("b.flac", b"1234")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o7777 for path in (tmp_path / "kept").rglob("*")}
    assert modes == {"a.jpg": 0o640, "recent": 0o2750, "door": 0o2750, "b.flac": 0o640}
    for refused in (0o750, 0o2770, 0o2755):
        (tmp_path / "kept").chmod(refused)
        with pytest.raises(PermissionError, match="2750 to let its group read it"):
            store.check(tmp_path / "kept")


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    """A symbolic link in the folder cannot redirect a snapshot to another place."""
    (tmp_path / "kept").mkdir(mode=0o700)
    (tmp_path / "kept/a.jpg.part").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="exists"):
        SnapshotStore(tmp_path / "kept", 60, 1000).add("a.jpg", b"1234")
    assert not (tmp_path / "elsewhere").exists()


def test_old_and_surplus_files_are_removed(tmp_path: Path) -> None:
    """Files that are too old go, then the oldest of too many; a file that is no snapshot stays."""
    kept = SnapshotStore(tmp_path / "kept", 3600, 250)
    names = [name_of("a", "x", AT + timedelta(seconds=second)) + ".jpg" for second in range(5)]
    for number, name in enumerate(names):
        kept.add(name, bytes(100))
        os.utime(tmp_path / "kept" / name, (10_000 + number, 10_000 + number))
    stranger = tmp_path / "kept/notes.txt"
    stranger.write_bytes(bytes(1000))
    os.utime(stranger, (0, 0))
    kept.prune(10_005)
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {*names[3:], "notes.txt"}
    kept.prune(10_004 + 3600)
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {names[4], "notes.txt"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M,mode=700", "none", str(place)], check=False)
    if mounted.returncode:
        pytest.skip("needs root, to mount a small disk")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot that does not fit leaves nothing behind; the last 100 MB of a disk stay free."""
    kept = SnapshotStore(small_disk, 60, 10**9)
    with pytest.raises(OSError, match="100 MB are free") as caught:
        kept.add("a.jpg", b"1")
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.setattr(store, "RESERVE_BYTES", -(10**9))
    with pytest.raises(OSError, match="No space"):
        kept.add("a.jpg", bytes(2_000_000))
    assert not list(small_disk.iterdir())
