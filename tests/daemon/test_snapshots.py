"""Snapshots: which streams keep them, where and under which name. By default no stream keeps any."""

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
sources = [{{ kind = "file", path = "{clip}", loop = true{only} }}]
{stream}
"""
KEEPING = '[snapshots]\non_event = true\ndirectory = "kept"\n'


def files(*folders: Path) -> dict[Path, int]:
    """Every file below these folders, and its size."""
    return {path: path.stat().st_size for each in folders for path in each.rglob("*") if path.is_file()}


@pytest.fixture
def received(start: Start, tmp_path: Path, tiny_model: Path) -> Callable[..., Iterator[Event | Status]]:
    """Runs a daemon with these options and yields its events and statuses; it stops with the test.

    `then` is added to the stream's table after the first event, with a reload.
    """
    homes = {name: str(tmp_path / name) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_STATE_HOME")}
    for home in homes.values():
        Path(home).mkdir()

    def run(more: str = "", then: str = "", within_s: float = 100, only: str = "") -> Iterator[Event | Status]:
        path = tmp_path / "perceiverd.toml"
        text = partial(TOML.format, model=tiny_model, folder=tmp_path, clip=CLIP, more=more, only=only)
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
                assert process.wait(60) == 0

    return run


@pytest.mark.timeout(180)
@pytest.mark.long
def test_nothing_is_kept_by_default(
    received: Callable[..., Iterator[Event | Status]], tmp_path: Path, tiny_model: Path
) -> None:
    """A daemon with events writes no file: not beside its model or its media, and not in a home folder."""
    places = (tmp_path, tiny_model, CLIP.parent)
    begun, before = 0, dict[Path, int]()
    for item in received():
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
def test_a_snapshot_of_a_real_clip(received: Callable[..., Iterator[Event | Status]], tmp_path: Path) -> None:
    """The message of an event that begins names a file with the clip's own picture; only this user may read it."""
    named, kept = set[str](), 0
    for item in received(KEEPING + "before_s = 1.0\nafter_s = 0.5\n"):
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
    unnamed = {str(path) for path in pictures} - named
    assert len(unnamed) <= 1 < len(pictures)  # one more event may begin before the daemon stops
    assert (folder.stat().st_mode & 0o777, pictures[0].stat().st_mode & 0o777) == (0o700, 0o600)
    with av.open(str(pictures[0])) as shown, av.open(str(CLIP)) as clip:
        picture = next(shown.decode(video=0)).to_ndarray(format="rgb24")
        assert picture.shape == (360, 640, 3)  # the source's own resolution, not the model's
        # It is one of the clip's frames.
        all_frames = (frame.to_ndarray(format="rgb24") for frame in clip.decode(video=0))
        assert min(float(np.abs(picture.astype(np.int16) - each).mean()) for each in all_frames) < 4
    with av.open(str(clips[0])) as film:
        assert [stream.type for stream in film.streams] == ["video", "audio"]
        times_s = [frame.time for frame in film.decode(video=0)]
        assert len(times_s) >= 4
        assert times_s == sorted(times_s)
    with av.open(str(clips[0])) as film:
        audio_s = sum(frame.samples / frame.sample_rate for frame in film.decode(audio=0))
        assert 0.9 < audio_s < 2.0


@pytest.mark.timeout(180)
@pytest.mark.long
def test_sound_of_a_stream_that_only_hears(received: Callable[..., Iterator[Event | Status]], tmp_path: Path) -> None:
    """The message names a FLAC file with the sound around the event, and a picture of its spectrogram."""
    named = set[str]()
    for item in received(KEEPING + "before_s = 0.5\nafter_s = 0.5\n", only=', only = "audio"'):
        if isinstance(item, Event) and item.clip and item.snapshot:
            named |= {item.clip, item.snapshot}
        if isinstance(item, Status) and item.sources[0].snapshots:
            break
    every = sorted((tmp_path / "kept").iterdir())
    written = [path for path in every if str(path) in named]
    assert len(every) - len(written) <= 2  # the files of one more event, which may begin before the daemon stops
    assert {path.suffix for path in written} == {".flac", ".jpg"}
    with av.open(str(next(path for path in written if path.suffix == ".flac"))) as sound:
        assert 0.5 < sum(frame.samples / frame.sample_rate for frame in sound.decode(audio=0)) <= 1.0


@pytest.mark.timeout(180)
def test_a_reload_switches_snapshots_on(received: Callable[..., Iterator[Event | Status]], tmp_path: Path) -> None:
    """`snapshot_on_event` in a stream's table takes effect with a reload."""
    kept = 0
    for item in received('[snapshots]\ndirectory = "kept"\n', "snapshot_on_event = true"):
        if isinstance(item, Event):
            assert item.snapshot is None or (tmp_path / "kept").is_dir()
        if isinstance(item, Status):
            kept = item.sources[0].snapshots
        if kept:
            break
    written = len(list((tmp_path / "kept").glob("*.jpg")))
    assert 1 <= kept <= written <= kept + 1  # one more may be written before the daemon stops


@pytest.mark.timeout(180)
@pytest.mark.long
def test_a_lost_folder_stops_no_labels(received: Callable[..., Iterator[Event | Status]], tmp_path: Path) -> None:
    """If snapshots cannot be written, labels continue, and statuses and log have the failures."""
    folder, failed, events = tmp_path / "kept", 0, 0
    for item in received(KEEPING):
        if isinstance(item, Event):
            events += 1
            while folder.is_dir():  # until its source is no longer quicker to make it again
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


def test_no_stream_keeps_snapshots_by_default() -> None:
    """Without options there are none, even if the service has a state directory."""
    assert snapshots.options_of(settings(""), {"STATE_DIRECTORY": "/var/lib/perceiverd"}) == {}


def test_a_service_keeps_them_in_its_state_directory() -> None:
    """They go to the first state directory, and a stream may be left out."""
    config_ = settings("[snapshots]\non_event = true")
    options = snapshots.options_of(config_, {"STATE_DIRECTORY": "/var/lib/perceiverd:/var/lib/other"})
    assert {each.directory for each in options.values()} == {"/var/lib/perceiverd/snapshots"}
    assert set(options) == {"a", "b"}
    some = {
        name: msgspec.structs.replace(each, snapshot_on_event=name == "a") for name, each in config_.streams.items()
    }
    assert set(snapshots.options_of(msgspec.structs.replace(config_, streams=some), {"STATE_DIRECTORY": "/s"})) == {"a"}


def test_a_missing_folder_is_an_error() -> None:
    """Without a state directory of systemd the configuration must name a folder."""
    with pytest.raises(ConfigError, match=r"\$\.snapshots: has no directory; set one"):
        snapshots.options_of(settings("[snapshots]\non_event = true"), {})


def test_a_folder_that_others_can_read_is_an_error(tmp_path: Path) -> None:
    """A folder that other users may read is refused and stays as it is."""
    folder = tmp_path / "open"
    folder.mkdir(mode=0o755)
    config_ = settings(f"[snapshots]\non_event = true\ndirectory = '{folder}'")
    with pytest.raises(ConfigError, match="other users may read it; chmod 700"):
        snapshots.prepare(snapshots.options_of(config_, {}))
    assert folder.stat().st_mode & 0o777 == 0o755
