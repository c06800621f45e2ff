"""A folder of corrections: adding, replacing, removing, several programs, hostile clips, a full folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from perceiverd.core.errors import CorrectionError
from perceiverd.corrections import Correction, Corrections, sound, store
from perceiverd.sources.snapshots import recent
from perceiverd.sources.snapshots.sound import flac

NOON = datetime(2026, 5, 17, 12, tzinfo=UTC)
RATE_HZ = 8000


def add(
    corrections: Corrections, verdict: str = "wrong", event: str | None = "7", at: datetime = NOON, **more: object
) -> Correction:
    return corrections.add(
        verdict,  # type: ignore[arg-type]
        "local",
        "door",
        "/m/0bt9lr",
        "Dog",
        at,
        at + timedelta(seconds=3),
        event,
        **more,  # type: ignore[arg-type]
    )


def keep_sound(folder: Path, start: datetime, seconds: int) -> None:
    """Recent sound as the daemon writes it, in files of 10 s. Each sample says which second it is."""
    (folder / "door").mkdir(parents=True, exist_ok=True)
    for at in range(0, seconds, 10):
        samples = np.repeat(np.arange(at, at + 10, dtype=np.float32) / np.float32(1000), RATE_HZ)
        begin_ns = round((start + timedelta(seconds=at)).timestamp() * 1e9)
        (folder / "door" / recent.name_of(begin_ns, 10_000)).write_bytes(flac(samples, RATE_HZ))


def test_the_sound_is_cut_by_time(tmp_path: Path) -> None:
    """A missed sound is cut out of the recent sound, across files, with two seconds on each side."""
    keep_sound(tmp_path / "recent", NOON - timedelta(seconds=20), 60)
    corrections = Corrections(tmp_path / "kept", {"local": tmp_path / "recent"})
    made = add(corrections, "missed", None, NOON + timedelta(seconds=8))
    assert made.sound and made.why is None
    assert made.sound_start == NOON + timedelta(seconds=6)
    samples, rate_hz = recent.read(tmp_path / "kept" / made.sound)
    assert (len(samples), rate_hz) == (7 * RATE_HZ, RATE_HZ)
    assert samples[::RATE_HZ] == pytest.approx(np.arange(26, 33) / 1000, abs=1e-4)
    assert corrections.every() == (made,)


def test_a_second_verdict_replaces_the_first(tmp_path: Path) -> None:
    """An event has one verdict. The same id at another time is another event."""
    clip = tmp_path / "a.flac"
    clip.write_bytes(flac(np.zeros(80, np.float32), RATE_HZ))
    corrections = Corrections(tmp_path / "kept")
    first = add(corrections, "wrong", clip=clip)
    other = add(corrections, "right", at=NOON + timedelta(days=1))
    second = add(corrections, "right")
    assert corrections.every() == (other, second)
    assert first.sound and not (tmp_path / "kept" / first.sound).exists()
    assert corrections.verdict_of("local", "door", "7", NOON) == "right"
    assert corrections.verdict_of("local", "door", "7", NOON + timedelta(hours=2)) is None
    assert corrections.verdict_of("barn", "door", "7", NOON) is None


def test_a_removed_correction_leaves_nothing(tmp_path: Path) -> None:
    """Removing takes the line and the sound; an unknown id changes nothing."""
    clip = tmp_path / "a.flac"
    clip.write_bytes(flac(np.zeros(80, np.float32), RATE_HZ))
    corrections = Corrections(tmp_path / "kept")
    made = add(corrections, clip=clip)
    path = corrections.path(made)
    assert path and path.read_bytes() == clip.read_bytes()
    assert not corrections.remove("../a")
    assert corrections.remove(made.id) and not path.exists() and corrections.every() == ()
    assert not corrections.remove(made.id)


def test_sound_that_is_not_written_yet_comes_later(tmp_path: Path) -> None:
    """Teaching comes before the daemon writes: the sound is fetched when it is there, and never given up too early."""
    now = datetime.now(UTC)
    corrections = Corrections(tmp_path / "kept", {"local": tmp_path / "recent"})
    made = add(corrections, "example", None, now - timedelta(seconds=4))
    assert made.sound is None and made.why == sound.AWAITED
    assert corrections.every() == (made,)
    keep_sound(tmp_path / "recent", now - timedelta(seconds=30), 40)
    (later,) = corrections.every()
    assert later.sound and later.why is None and later.id == made.id
    assert Corrections(tmp_path / "kept").every() == (later,)


def test_sound_that_never_came_is_given_up(tmp_path: Path) -> None:
    """If the daemon kept nothing of that time, the correction says so."""
    (tmp_path / "recent").mkdir()
    corrections = Corrections(tmp_path / "kept", {"local": tmp_path / "recent"})
    made = add(corrections, "missed", None)
    assert made.sound is None and made.why == "the daemon kept no sound of that time"
    assert "recent_hours" in (add(Corrections(tmp_path / "kept"), "missed", None).why or "")


@pytest.mark.parametrize("kind", ["passwd", "link", "fifo", "folder", "absent"])
def test_no_other_file_is_copied(tmp_path: Path, kind: str) -> None:
    """A message of a hostile daemon may name any path as its clip: only clips are copied, and nothing hangs."""
    clip = tmp_path / kind
    match kind:
        case "passwd":
            clip.write_text("root:x:0:0")
        case "link":
            (tmp_path / "a.flac").write_bytes(b"fLaC1234")
            clip.symlink_to(tmp_path / "a.flac")
        case "fifo":
            os.mkfifo(clip)
        case "folder":
            clip.mkdir()
    made = add(Corrections(tmp_path / "kept"), clip=clip)
    assert made.sound is None and made.why
    assert {each.name for each in (tmp_path / "kept").iterdir()} == {store.MANIFEST, store.LOCK}


def test_hostile_names_are_refused(tmp_path: Path) -> None:
    """Names from the network never become paths or lines."""
    corrections = Corrections(tmp_path / "kept", {"local": tmp_path})
    with pytest.raises(CorrectionError, match="the correction is invalid: stream must have"):
        corrections.add("missed", "local", "a\nb", "/m/0bt9lr", "Dog", NOON, NOON + timedelta(seconds=1))
    made = corrections.add("missed", "local", "../..", "/m/0bt9lr", "Dog", NOON, NOON + timedelta(seconds=1))
    assert made.sound is None
    with pytest.raises(CorrectionError, match="end must be after start"):
        corrections.add("missed", "local", "door", "/m/0bt9lr", "Dog", NOON, NOON)


def test_several_threads_and_programs_lose_nothing(tmp_path: Path) -> None:
    """Corrections that are added at the same time are all there afterwards."""
    folder = tmp_path / "kept"
    script = (
        "import sys; from datetime import UTC, datetime, timedelta; from pathlib import Path\n"
        "from perceiverd.corrections import Corrections\n"
        "now = datetime.now(UTC)\n"
        "for n in range(5):\n"
        "    Corrections(Path(sys.argv[1])).add('right', 'a', 'b', 'm', 'n', now, now + timedelta(seconds=1), f'p{n}')"
    )
    program = subprocess.Popen([sys.executable, "-c", script, str(folder)])
    shared = Corrections(folder)
    threads = [threading.Thread(target=add, args=(shared, "right", f"t{n}")) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert program.wait(60) == 0
    assert len(shared.every()) == 13


def test_a_killed_program_leaves_the_old_or_the_new_file(tmp_path: Path) -> None:
    """Whenever a program that adds corrections is killed, the file is whole, and the next program can go on."""
    folder = tmp_path / "kept"
    script = (
        "import sys; from datetime import UTC, datetime, timedelta; from pathlib import Path\n"
        "from perceiverd.corrections import Corrections\n"
        "now = datetime.now(UTC)\n"
        "for n in range(10_000):\n"
        "    Corrections(Path(sys.argv[1])).add('right', 'a', 'b', 'm', 'n', now, now + timedelta(seconds=1), f'{n}')\n"
        "    print(n, flush=True)"
    )
    for wanted in (3, 40, 17):
        with subprocess.Popen(
            [sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, text=True
        ) as program:
            assert program.stdout
            for _ in range(wanted):
                program.stdout.readline()
            program.kill()
            heard = wanted + len(program.stdout.readlines())
        assert len(Corrections(folder).every()) >= heard
    add(Corrections(folder))
    assert not list(folder.glob("*.part"))


def test_a_full_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limits nothing is stored and nothing is deleted; the message says what to do."""
    clip = tmp_path / "a.flac"
    clip.write_bytes(flac(np.zeros(80, np.float32), RATE_HZ))
    corrections = Corrections(tmp_path / "kept")
    made = add(corrections, clip=clip)
    monkeypatch.setattr(store, "MOST_BYTES", 100)
    with pytest.raises(CorrectionError, match="remove some corrections first"):
        add(corrections, event="8", clip=clip)
    monkeypatch.setattr(store, "MOST", 1)
    with pytest.raises(CorrectionError, match="remove some first"):
        add(corrections, event="9")
    assert corrections.every() == (made,)


def test_a_damaged_file_is_reported_and_not_overwritten(tmp_path: Path) -> None:
    """A line that somebody has broken is an error with its place; adding does not destroy the file."""
    corrections = Corrections(tmp_path / "kept")
    add(corrections)
    path = tmp_path / "kept" / store.MANIFEST
    path.write_text(path.read_text() + json.dumps({"id": 7}) + "\n")
    broken = path.read_bytes()
    with pytest.raises(CorrectionError, match=r"corrections\.jsonl: line 2: "):
        add(corrections, event="8")
    assert path.read_bytes() == broken


def test_only_owner_and_group_may_read(tmp_path: Path) -> None:
    """Others on the machine can read neither the folder nor the sounds."""
    corrections = Corrections(tmp_path / "kept")
    add(corrections)
    assert (tmp_path / "kept").stat().st_mode & 0o007 == 0
    assert (tmp_path / "kept" / store.MANIFEST).stat().st_mode & 0o777 == store.FILE_MODE & ~0o022
