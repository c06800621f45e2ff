"""The list of files to tag."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from perceiverd.offline.folders.spool import Spool
from perceiverd.offline.folders.walk import Found


def found(number: int) -> Found:
    return Found(
        os.fsdecode(b"/in/caf\xe9-%d" % number), f"ü-{number}", number, number * 10**15, "a fault" * (number % 2)
    )


def test_files_come_out_as_they_went_in(tmp_path: Path) -> None:
    """All fields survive, whatever the name is, in order; then there is none."""
    with Spool(tmp_path) as spool:
        spool.fill(found(number) for number in range(7))
        assert [spool.take() for _ in range(8)] == [*map(found, range(7)), None]
        assert (spool.files, spool.size, spool.is_complete) == (7, 21, True)


def test_threads_share_the_list(tmp_path: Path) -> None:
    """Each file is given to exactly one of several threads."""
    taken: list[Found] = []

    def work(spool: Spool) -> None:
        while (each := spool.take()) is not None:
            taken.append(each)

    with Spool(tmp_path) as spool:
        threads = [threading.Thread(target=work, args=(spool,)) for _ in range(5)]
        for thread in threads:
            thread.start()
        spool.fill(map(found, range(1000)))
        for thread in threads:
            thread.join()
    assert sorted(each.size for each in taken) == list(range(1000))


def test_stop_ends_those_who_wait(tmp_path: Path) -> None:
    """After `stop` no file is given out, and a walk without end ends."""

    def endless() -> Iterator[Found]:
        while True:
            yield found(0)

    with Spool(tmp_path) as spool:
        spool.fill(endless())
        assert spool.take() is not None
        spool.stop()
        assert spool.take() is None


def test_an_error_of_the_walk_reaches_the_worker(tmp_path: Path) -> None:
    """What the walk raises is raised where files are taken."""

    def broken() -> Iterator[Found]:
        yield found(1)
        raise OSError("the disk is gone")

    with Spool(tmp_path) as spool:
        spool.fill(broken())
        with pytest.raises(OSError, match="the disk is gone"):
            list(iter(spool.take, None))


def test_the_list_leaves_nothing_behind(tmp_path: Path) -> None:
    """It has no name, so not even a kill leaves it on the disk."""
    with Spool(tmp_path) as spool:
        spool.fill([found(1)])
        assert list(tmp_path.iterdir()) == []
