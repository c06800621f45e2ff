"""What changes from one configuration to the next, and what has to wait for a restart."""

import msgspec
import pytest

from perceiverd.config import Config, ModelConfig, PublishConfig, StreamConfig, WindowConfig
from perceiverd.core.errors import ConfigError
from perceiverd.daemon.reload import LIVE, ConfigDiff, enabled, sources_of
from perceiverd.pipeline.rules import EventOptions, StreamOptions
from perceiverd.sources.specs import File, Synthetic

A, B, OFF = (
    StreamConfig((Synthetic(),)),
    StreamConfig((File("b"), Synthetic(video=False))),
    StreamConfig((File("c"),), enabled=False),
)
OLD = Config(streams={"a": A, "b": B, "off": OFF})


def test_streams_are_compared_by_name() -> None:
    """Streams are added, removed, changed or stay; a disabled one counts as removed."""
    streams = {"new": A, "b": StreamConfig((File("b", loop=True),)), "off": StreamConfig(OFF.sources), "a": A}
    change = ConfigDiff.between(OLD, Config(streams=streams))
    assert (change.added, change.removed, change.changed) == (("new", "off"), (), ("b",))
    back = ConfigDiff.between(change.config, msgspec.structs.replace(OLD, streams={"a": A, "off": OFF}))
    assert (back.added, back.removed, back.changed) == ((), ("new", "b", "off"), ())


def test_live_options_change_and_the_others_wait() -> None:
    """The resulting configuration has the new values of live options, and the old ones of all others."""
    new = Config(
        ModelConfig(threads=3),
        WindowConfig(hop_s=2),
        PublishConfig("ipc:///x", top=3, high_water_mark=9, status_interval_s=4.0),
        streams=OLD.streams,
    )
    change = ConfigDiff.between(OLD, new)
    assert change.waiting == ("model.threads", "publish.endpoint", "publish.high_water_mark")
    assert change.config.model == OLD.model
    assert change.config.window == new.window
    assert change.config.publish == PublishConfig(top=3, status_interval_s=4.0)
    assert ConfigDiff.between(change.config, new).waiting == change.waiting  # reported again until the restart


def test_the_same_configuration_changes_nothing() -> None:
    """The step from a configuration to itself is empty."""
    assert ConfigDiff.between(OLD, OLD) == ConfigDiff(OLD, (), (), (), (), ())


def test_new_options_for_events_change_the_rules() -> None:
    """General options change the rules of all streams that stay, options of a stream only its own."""
    stricter = msgspec.structs.replace(B, events=StreamOptions(on=0.9))
    one = ConfigDiff.between(OLD, Config(streams={"new": A, "a": A, "b": stricter}))
    assert (one.new_rules, one.changed) == (("b",), ())
    assert ConfigDiff.between(OLD, Config(events=EventOptions(on=0.9), streams=OLD.streams)).new_rules == ("a", "b")


def test_a_configuration_without_streams_is_refused() -> None:
    """It is refused by a reload as at the start."""
    with pytest.raises(ConfigError, match="no stream is enabled"):
        ConfigDiff.between(OLD, Config(streams={"off": OFF}))


def test_the_sources_are_in_order() -> None:
    """The key of each source is its stream's name and its position."""
    assert list(sources_of(enabled(OLD))) == [("a", 0), ("b", 0), ("b", 1)]


def test_live_options_exist() -> None:
    """Every name in LIVE is a section or an option of one."""
    for name in LIVE:
        section, _, option = name.partition(".")
        assert section in Config.__struct_fields__
        assert not option or option in getattr(Config(), section).__struct_fields__
