"""The checks of the machine that runs the tests, also with lower limits."""

import resource
from pathlib import Path

import pytest

from perceiverd.doctor import machine


def test_the_clock_is_checked() -> None:
    """There is one finding, about synchronisation, because no program sets the clock during the test."""
    found = list(machine.clock())
    assert [finding.check for finding in found] == ["clock"]
    assert found[0].verdict in ("ok", "warning")
    assert bool(found[0].do) == (found[0].verdict == "warning")


def test_memory_is_compared_with_the_need() -> None:
    """One source fits into the memory of this machine; a million sources do not."""
    (one,), (many,) = machine.memory(1), machine.memory(1_000_000)
    assert (one.verdict, many.verdict) == ("ok", "warning")
    assert one.what.split()[0].isdecimal()
    assert one.what.endswith(" needs about 420 MB with 1 source")
    (in_torch,) = machine.memory(2, in_torch=True)
    assert in_torch.what.endswith(" needs about 940 MB with 2 sources")


@pytest.mark.parametrize(
    ("limit", "used", "stat"),
    [
        ("memory.max", "memory.current", "anon 1\ninactive_file 900000000\n"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "cache 1\ntotal_inactive_file 900000000\n"),
    ],
)
def test_cached_files_count_as_free_memory(tmp_path: Path, limit: str, used: str, stat: str) -> None:
    """The kernel frees a container's cached files on demand, so they count as free."""
    (tmp_path / "memory").mkdir()
    (tmp_path / limit).write_text("1000000000\n")
    (tmp_path / used).write_text("990000000\n")
    (full,) = machine.memory(1, tmp_path)
    assert (full.verdict, full.what.split()[0]) == ("warning", "9")
    (tmp_path / limit).with_name("memory.stat").write_text(stat)
    (found,) = machine.memory(1, tmp_path)
    assert (found.verdict, found.what.split()[0]) == ("ok", "867")


def test_a_low_limit_of_descriptors_is_a_warning() -> None:
    """The warning names the limit and how to raise it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        (low,) = machine.descriptors(2)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert low.verdict == "warning"
    assert low.what.startswith("the limit is 256 open files")
    assert "ulimit" in low.do
    (high,) = machine.descriptors(2)
    assert high.verdict == ("ok" if soft >= 1024 else "warning")


def test_missing_devices_are_no_fault() -> None:
    """A machine without cameras or microphones is in order."""
    (cameras,), (cards,) = machine.cameras(), machine.sound_cards()
    if not list(Path("/dev").glob("video[0-9]*")):
        assert (cameras.verdict, cameras.do) == ("ok", "")
        assert "no camera is attached" in cameras.what
    if not list(Path("/dev/snd").glob("pcmC*D*c")):
        assert (cards.verdict, cards.do) == ("ok", "")
        assert "no microphone is attached" in cards.what


def test_a_missing_sound_library_is_a_fault_only_if_needed() -> None:
    """Without a microphone in the configuration PortAudio may be missing."""
    (idle,), (needed,) = machine.sound_library(needed=False), machine.sound_library(needed=True)
    assert idle.verdict == "ok"
    assert needed.verdict == ("ok" if "is installed" in needed.what else "fault")
    assert bool(needed.do) == (needed.verdict == "fault")
