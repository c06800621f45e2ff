"""The bytes of windows that files hold together: a limit, waiting without loss, and no wait that never ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiverd.core.errors import MediaError
from perceiverd.core.media import NS_PER_S
from perceiverd.model.batch_sizes import window_bytes
from perceiverd.model.card import Card, load_card
from perceiverd.model.geometry import Video
from perceiverd.offline import joint, window_memory
from perceiverd.offline.folders.run import FolderOptions, tag_into
from perceiverd.offline.tag import TagOptions
from perceiverd.offline.window_memory import WindowMemory, WindowShare, share_of
from perceiverd.offline.writers.formats import chosen
from tests.offline.test_joint import Watched, records, rounded
from tests.support.clips import GEOMETRY, make_model, write_clip
from tests.support.small_devices import SmallDevice

LONG_S = 60.0
MB = 1_000_000
BATCH = 4
BIG = msgspec.structs.replace(GEOMETRY, video=Video(10, 10, 180, 240, (2, 12, 16), 2))
"""Windows of 1.4 MB."""


def in_threads(calls: Sequence[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG_S)
        assert not thread.is_alive()


def wait(what: Callable[[], bool]) -> None:
    for _ in range(round(LONG_S / 0.01)):
        if what():
            return
        threading.Event().wait(0.01)
    raise AssertionError


@given(
    st.lists(st.tuples(st.integers(1, 400), st.integers(1, 9)), min_size=1, max_size=7),
    st.integers(1, 1000),
)
def test_files_hold_no_more_than_the_limit_and_all_get_on(files: list[tuple[int, int]], limit_mb: int) -> None:
    """Whatever windows of 1 to 400 MB files want, all end, and together they hold the limit at most, or one file."""
    memory = WindowMemory(limit_mb * MB)

    def read(each_mb: int, windows: int) -> None:
        with memory.share("file", each_mb * MB) as share:
            batch = 0
            for _ in range(windows):
                batch += 1
                assert share.held_bytes >= (batch + 1) * each_mb * MB  # the batch, and the window that is collected
                if batch == BATCH or not share.more():
                    batch = 0
                    share.tagged()

    in_threads([lambda pair=pair: read(*pair) for pair in files])  # type: ignore[misc]
    largest = max(2 * each_mb for each_mb, _ in files)
    assert memory.most_bytes <= max(limit_mb, largest) * MB
    assert (memory.held_bytes, memory.waiting) == (0, 0)


def test_a_file_that_waits_goes_before_larger_batches() -> None:
    """A file with room gets no more while another waits, and that one begins as soon as there is room."""
    memory, begun = WindowMemory(10 * MB), threading.Event()

    def second() -> None:
        with memory.share("b", 2 * MB):
            begun.set()

    with memory.share("a", 2 * MB) as share:
        assert [share.more() for _ in range(4)] == [True, True, True, False]
        thread = threading.Thread(target=second)
        thread.start()
        wait(lambda: memory.waiting == 1)
        assert not begun.is_set() and memory.held_bytes == 10 * MB
        share.tagged()
        assert begun.wait(LONG_S)
        thread.join(LONG_S)
        assert share.more() and share.held_bytes == memory.held_bytes == 6 * MB
    assert memory.held_bytes == 0


def test_a_long_wait_is_logged_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line names the file, and what is held and needed."""
    monkeypatch.setattr(window_memory, "LONG_S", 0.01)
    memory = WindowMemory(100 << 20, clock_s=partial(next, count(0.0, 12.0)))

    def second() -> None:
        with memory.share("late.mp4", 30 << 20):
            pass

    with memory.share("a", 45 << 20):
        thread = threading.Thread(target=second)
        thread.start()
        wait(lambda: "file-waiting" in caplog.text)
        threading.Event().wait(0.05)
    thread.join(LONG_S)
    (line,) = [record.message for record in caplog.records]
    assert line == "file-waiting file=late.mp4 waited_s=12 held_mb=90 needs_mb=60"


def test_the_end_of_a_run_ends_the_waits() -> None:
    """A file that waits is not begun any more, and none after it."""
    memory, faults = WindowMemory(1), list[str]()

    def second() -> None:
        with pytest.raises(MediaError, match="b: was not begun") as caught, memory.share("b", 5):
            pass
        faults.append(str(caught.value))

    with memory.share("a", 5):
        thread = threading.Thread(target=second)
        thread.start()
        wait(lambda: memory.waiting == 1)
        memory.end()
        thread.join(LONG_S)
    assert len(faults) == 1
    with pytest.raises(MediaError), memory.share("c", 1):
        pass


def test_a_single_file_has_no_limit() -> None:
    """A tagger that has one file at a time shares nothing."""
    with share_of(object(), "a", BIG) as share:
        assert share.more() and share.held_bytes == 0
        share.tagged()
    assert WindowShare().more()


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Card:
    return load_card(make_model(tmp_path_factory.mktemp("model") / "big", BIG))


@pytest.mark.parametrize("windows", [3, 7])
def test_files_of_a_large_geometry(windows: int, card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for 3 or 7 windows, five jobs give the outputs of one file at a time: files wait, and none fails."""
    media = tmp_path / "media"
    media.mkdir()
    for number in range(5):
        write_clip(media / f"{'x' * (number + 1)}.mp4", audio_s=4, video_s=4)
    memory, shared, found = WindowMemory(windows * window_bytes(BIG)), joint.shared, list[object]()
    options = TagOptions(top=3, hop_ns=NS_PER_S, batch=BATCH, sorts=True)
    for jobs, room in ((5, memory), (1, WindowMemory())):
        monkeypatch.setattr("perceiverd.offline.folders.run.shared", partial(shared, memory=room))
        how = FolderOptions(formats=chosen("jsonl"), settings="s", jobs=jobs)
        out = tmp_path / f"{jobs}"
        report = tag_into(out, [str(media)], Watched(card, SmallDevice(8)), options, how)
        assert (report.tagged, report.failed) == (5, 0)
        assert room.most_bytes <= room.limit_bytes and (room.held_bytes, room.waiting) == (0, 0)
        found.append(rounded(list(records(out).values())))
    assert found[0] == found[1]
    assert memory.most_bytes >= 2 * window_bytes(BIG)
