"""Snapshots: who keeps some, where and under which name; and that by default nobody keeps anything."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import av
import msgspec
import numpy as np
import pytest

from perceiverd import config
from perceiverd.core.errors import ConfigError
from perceiverd.daemon import snapshots
from perceiverd.wire.client import subscribe
from perceiverd.wire.messages import Event, Status
from tests.support.program import Start

CLIP = Path(__file__).parents[2] / "configs/demo/clip.mp4"
TOML = """
[model]
name = "{model}"
[publish]
endpoint = "ipc://{folder}/labels"
[window]
hop_s = 0.5
[events]
on = 0.001
allow = ["Speech", "Music", "Dog", "Bell"]
labels = {{ Music = {{ min_duration_s = 2.5 }}, Dog = {{ min_duration_s = 5.0 }}, Bell = {{ min_duration_s = 7.5 }} }}
{more}
[streams.hall]
sources = [{{ kind = "file", path = "{clip}", loop = true }}]
{stream}
"""
KEEPING = '[snapshots]\non_event = true\ndirectory = "kept"\n'


def files(*folders: Path) -> dict[Path, int]:
    """Every file below these folders, and its size."""
    return {path: path.stat().st_size for each in folders for path in each.rglob("*") if path.is_file()}


@pytest.fixture
def heard(start: Start, tmp_path: Path, tiny_model: Path) -> Callable[..., Iterator[Event | Status]]:
    """Runs a daemon with these options and yields what it says of events and of itself; it stops with the test.

    `then` is added to the stream's table after the first event, with a reload.
    """
    homes = {name: str(tmp_path / name) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_STATE_HOME")}
    for home in homes.values():
        Path(home).mkdir()

    def run(more: str = "", then: str = "", within_s: float = 60) -> Iterator[Event | Status]:
        path = tmp_path / "perceiverd.toml"
        text = partial(TOML.format, model=tiny_model, folder=tmp_path, clip=CLIP, more=more)
        path.write_text(text(stream=""))
        process = start("run", "--config", str(path), log=tmp_path / "log", **homes)
        deadline_s = time.monotonic() + within_s
        with subscribe(f"ipc://{tmp_path}/labels", ("events/", "status/")) as subscription:
            try:
                while time.monotonic() < deadline_s:
                    if isinstance(item := subscription.receive_message(0.5), Event | Status):
                        yield item
                    if then and isinstance(item, Event):
                        path.write_text(text(stream=then))
                        process.send_signal(signal.SIGHUP)
                        then = ""
                    assert process.poll() is None, (tmp_path / "log").read_text()
            finally:
                process.send_signal(signal.SIGTERM)
                assert process.wait(20) == 0

    return run


@pytest.mark.timeout(180)
@pytest.mark.long
def test_nothing_is_kept_unless_it_is_asked_for(
    heard: Callable[..., Iterator[Event | Status]], tmp_path: Path, tiny_model: Path
) -> None:
    """A daemon that hears and sees events by default writes no file: beside its model, its media or at home."""
    places = (tmp_path, tiny_model, CLIP.parent)
    begun, before = 0, dict[Path, int]()
    for item in heard():
        if isinstance(item, Event) and item.kind == "begin":
            before = before or files(*places)
            begun += 1
            assert item.snapshot is None
        if begun == 4:
            break
    assert begun == 4
    after = files(*places)
    log = tmp_path / "log"
    assert {path: size for path, size in after.items() if path != log} == {
        path: size for path, size in before.items() if path != log and "perceiverd-" not in str(path)
    }


@pytest.mark.timeout(180)
@pytest.mark.long
def test_a_snapshot_of_a_real_clip(heard: Callable[..., Iterator[Event | Status]], tmp_path: Path) -> None:
    """When an event begins its message names a file, in which the clip's own picture is, for nobody else to read."""
    named, kept = set[str](), 0
    for item in heard(KEEPING + "before_s = 1.0\nafter_s = 0.5\n"):
        if isinstance(item, Event) and item.kind == "begin":
            assert item.snapshot
            named.add(item.snapshot)
        if isinstance(item, Status):
            kept = item.sources[0].snapshots
            assert item.sources[0].snapshots_failed == 0
        if kept >= 2:
            break
    folder = tmp_path / "kept"
    pictures, clips = sorted(folder.glob("*.jpg")), sorted(folder.glob("*.mkv"))
    assert {str(path) for path in pictures} <= named
    assert (folder.stat().st_mode & 0o777, pictures[0].stat().st_mode & 0o777) == (0o700, 0o600)
    with av.open(str(pictures[0])) as shown, av.open(str(CLIP)) as clip:
        seen = next(shown.decode(video=0)).to_ndarray(format="rgb24")
        assert seen.shape == (360, 640, 3)  # the source's own resolution, not the model's
        # It is one of the clip's pictures.
        all_of_it = (frame.to_ndarray(format="rgb24") for frame in clip.decode(video=0))
        assert min(float(np.abs(seen.astype(np.int16) - each).mean()) for each in all_of_it) < 4
    with av.open(str(clips[0])) as film:
        assert [stream.type for stream in film.streams] == ["video", "audio"]
        times_s = [frame.time for frame in film.decode(video=0)]
        assert len(times_s) >= 4
        assert times_s == sorted(times_s)
    with av.open(str(clips[0])) as film:
        heard_s = sum(frame.samples / frame.sample_rate for frame in film.decode(audio=0))
        assert 0.9 < heard_s < 2.0


@pytest.mark.timeout(180)
def test_snapshots_are_switched_on_while_it_runs(
    heard: Callable[..., Iterator[Event | Status]], tmp_path: Path
) -> None:
    """A reload with `snapshot_on_event` in a stream's table is enough."""
    kept = 0
    for item in heard('[snapshots]\ndirectory = "kept"\n', "snapshot_on_event = true"):
        if isinstance(item, Event):
            assert item.snapshot is None or (tmp_path / "kept").is_dir()
        if isinstance(item, Status):
            kept = item.sources[0].snapshots
        if kept:
            break
    assert kept == len(list((tmp_path / "kept").glob("*.jpg"))) >= 1


@pytest.mark.timeout(180)
@pytest.mark.long
def test_a_folder_that_is_lost(heard: Callable[..., Iterator[Event | Status]], tmp_path: Path) -> None:
    """Where pictures can't be written labels go on, and what is missing is counted and told."""
    folder, failed, events = tmp_path / "kept", 0, 0
    for item in heard(KEEPING):
        if isinstance(item, Event):
            events += 1
            while folder.is_dir():  # until its source no longer is quicker to make it again
                folder.rename(tmp_path / f"gone{time.monotonic_ns()}")
                with contextlib.suppress(IsADirectoryError):
                    folder.write_text("in the way")
        if isinstance(item, Status):
            failed = item.sources[0].snapshots_failed
        if failed >= 2:
            break
    assert events > failed >= 2
    assert "snapshot-failed " in (tmp_path / "log").read_text()


def settings(more: str) -> config.Config:
    return msgspec.convert(
        {"streams": {"a": {"sources": [{"kind": "synthetic"}]}, "b": {"sources": [{"kind": "synthetic"}]}}}
        | msgspec.toml.decode(more.encode()),
        config.Config,
    )


def test_nobody_keeps_anything_by_default() -> None:
    """Without options no source is told to keep pictures, wherever the service's state may be."""
    assert snapshots.keeps_of(settings(""), {"STATE_DIRECTORY": "/var/lib/perceiverd"}) == {}


def test_a_service_keeps_them_in_its_state() -> None:
    """The state directory is the place, unless another is written; a stream may be left out."""
    told = settings("[snapshots]\non_event = true")
    keeps = snapshots.keeps_of(told, {"STATE_DIRECTORY": "/var/lib/perceiverd:/var/lib/other"})
    assert {keep.directory for keep in keeps.values()} == {"/var/lib/perceiverd/snapshots"}
    assert set(keeps) == {"a", "b"}
    quiet = {name: msgspec.structs.replace(each, snapshot_on_event=name == "a") for name, each in told.streams.items()}
    assert set(snapshots.keeps_of(msgspec.structs.replace(told, streams=quiet), {"STATE_DIRECTORY": "/s"})) == {"a"}


def test_no_place_is_an_error() -> None:
    """Who asks for pictures and runs no service is told to name a folder."""
    with pytest.raises(ConfigError, match=r"\$\.snapshots: has no directory; write one"):
        snapshots.keeps_of(settings("[snapshots]\non_event = true"), {})


def test_a_folder_for_all_eyes_is_an_error(tmp_path: Path) -> None:
    """A folder that other users may read is refused and stays as it is."""
    folder = tmp_path / "open"
    folder.mkdir(mode=0o755)
    told = settings(f"[snapshots]\non_event = true\ndirectory = '{folder}'")
    with pytest.raises(ConfigError, match="other users may read it; chmod 700"):
        snapshots.prepare(snapshots.keeps_of(told, {}))
    assert folder.stat().st_mode & 0o777 == 0o755
