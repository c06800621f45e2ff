"""What changes from one configuration to the next, and what of it has to wait."""

import msgspec
import pytest

from perceiverd.config import Config, ModelConfig, PublishConfig, StreamConfig, WindowConfig
from perceiverd.core.errors import ConfigError
from perceiverd.daemon.reload import LIVE, ConfigDiff, sources_of, watched
from perceiverd.pipeline.rules import EventOptions, StreamOptions
from perceiverd.sources.specs import File, Synthetic

A, B, OFF = (
    StreamConfig((Synthetic(),)),
    StreamConfig((File("b"), Synthetic(video=False))),
    StreamConfig((File("c"),), enabled=False),
)
OLD = Config(streams={"a": A, "b": B, "off": OFF})


def test_streams_are_told_apart() -> None:
    """Streams come, go, change or stay; one that is switched off counts as gone."""
    streams = {"new": A, "b": StreamConfig((File("b", loop=True),)), "off": StreamConfig(OFF.sources), "a": A}
    change = ConfigDiff.between(OLD, Config(streams=streams))
    assert (change.added, change.removed, change.changed) == (("new", "off"), (), ("b",))
    back = ConfigDiff.between(change.settings, msgspec.structs.replace(OLD, streams={"a": A, "off": OFF}))
    assert (back.added, back.removed, back.changed) == ((), ("new", "b", "off"), ())


def test_what_can_change_changes_and_the_rest_waits() -> None:
    """The settings to come have what is live of the new ones, and what needs a restart of the old."""
    new = Config(
        ModelConfig(threads=3),
        WindowConfig(hop_s=2),
        PublishConfig("ipc:///x", top=3, high_water_mark=9, status_interval_s=4.0),
        streams=OLD.streams,
    )
    change = ConfigDiff.between(OLD, new)
    assert change.waiting == ("model.threads", "publish.endpoint", "publish.high_water_mark")
    assert change.settings.model == OLD.model
    assert change.settings.window == new.window
    assert change.settings.publish == PublishConfig(top=3, status_interval_s=4.0)
    assert ConfigDiff.between(change.settings, new).waiting == change.waiting  # said again until the restart


def test_nothing_changes_when_nothing_has() -> None:
    """The same configuration makes no change."""
    assert ConfigDiff.between(OLD, OLD) == ConfigDiff(OLD, (), (), (), (), ())


def test_rules_change_where_they_are_others() -> None:
    """Other options for events change the rules of all streams that stay, or of the one that they are for."""
    louder = msgspec.structs.replace(B, events=StreamOptions(on=0.9))
    one = ConfigDiff.between(OLD, Config(streams={"new": A, "a": A, "b": louder}))
    assert (one.reruled, one.changed) == (("b",), ())
    assert ConfigDiff.between(OLD, Config(events=EventOptions(on=0.9), streams=OLD.streams)).reruled == ("a", "b")


def test_without_a_stream_there_is_nothing_to_do() -> None:
    """A configuration that leaves no stream is refused, at the start as later."""
    with pytest.raises(ConfigError, match="no stream is enabled"):
        ConfigDiff.between(OLD, Config(streams={"off": OFF}))


def test_the_sources_are_in_order() -> None:
    """Every source of a watched stream has its stream's name and its place as key."""
    assert list(sources_of(watched(OLD))) == [("a", 0), ("b", 0), ("b", 1)]


def test_what_is_live_exists() -> None:
    """Every name in LIVE is a section or an option of one."""
    for name in LIVE:
        section, _, option = name.partition(".")
        assert section in Config.__struct_fields__
        assert not option or option in getattr(Config(), section).__struct_fields__
