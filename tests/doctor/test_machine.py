"""What the daemon stands on, as it is on whatever machine runs the tests, and with less of it."""

import resource
from pathlib import Path

import pytest

from perceiverd.doctor import machine


def test_the_clock_is_looked_at() -> None:
    """Whether it is synchronised is told, as the kernel sees it; here nobody sets it meanwhile."""
    found = list(machine.clock())
    assert [finding.check for finding in found] == ["clock"]
    assert found[0].verdict in ("ok", "warning")
    assert bool(found[0].do) == (found[0].verdict == "warning")


def test_memory_is_held_against_what_is_needed() -> None:
    """One source fits on a machine that runs these tests, a million don't."""
    (one,), (many,) = machine.memory(1), machine.memory(1_000_000)
    assert (one.verdict, many.verdict) == ("ok", "warning")
    assert one.what.split()[0].isdecimal()


@pytest.mark.parametrize(
    ("limit", "used", "stat"),
    [
        ("memory.max", "memory.current", "anon 1\ninactive_file 900000000\n"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "cache 1\ntotal_inactive_file 900000000\n"),
    ],
)
def test_files_that_were_read_take_no_memory(tmp_path: Path, limit: str, used: str, stat: str) -> None:
    """What a container holds of them is free to whoever asks."""
    (tmp_path / "memory").mkdir()
    (tmp_path / limit).write_text("1000000000\n")
    (tmp_path / used).write_text("990000000\n")
    (full,) = machine.memory(1, tmp_path)
    assert (full.verdict, full.what.split()[0]) == ("warning", "9")
    (tmp_path / limit).with_name("memory.stat").write_text(stat)
    (found,) = machine.memory(1, tmp_path)
    assert (found.verdict, found.what.split()[0]) == ("ok", "867")


def test_few_descriptors_are_told() -> None:
    """With a limit that is really low the limit and the remedy are named."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        (low,) = machine.descriptors(2)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert low.verdict == "warning"
    assert low.what.startswith("256 open files are allowed here")
    assert "ulimit" in low.do
    (high,) = machine.descriptors(2)
    assert high.verdict == ("ok" if soft >= 1024 else "warning")


def test_devices_are_named_or_said_to_be_missing() -> None:
    """A camera's node stands there with its name; where there is none, that is no fault by itself."""
    (cameras,), (cards,) = machine.cameras(), machine.sound_cards()
    if not list(Path("/dev").glob("video[0-9]*")):
        assert (cameras.verdict, cameras.do) == ("ok", "")
        assert "no attached camera" in cameras.what
    if not list(Path("/dev/snd").glob("pcmC*D*c")):
        assert (cards.verdict, cards.do) == ("ok", "")
        assert "no attached microphone" in cards.what


def test_the_sound_library_is_a_fault_only_where_it_is_missing_and_needed() -> None:
    """Whoever has no microphone does without."""
    (idle,), (needed,) = machine.sound_library(needed=False), machine.sound_library(needed=True)
    assert idle.verdict == "ok"
    assert needed.verdict == ("ok" if "is there" in needed.what else "fault")
    assert bool(needed.do) == (needed.verdict == "fault")
