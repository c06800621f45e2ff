"""Which stretches of sound are kept as recent sound: by times and scores alone, and by a real daemon."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from perceiverd.core.labels import ontology
from perceiverd.core.media import NS_PER_S
from perceiverd.daemon.recent_sound import GUARD_NS, LEAST_NS, STRETCH_NS, RecentSound
from perceiverd.pipeline.windower import Window
from perceiverd.sources.snapshots import recent
from perceiverd.sources.snapshots.requests import RecentOptions, SoundRequest
from perceiverd.wire.client import subscribe
from perceiverd.wire.messages import Status
from tests.support.program import Start
from tests.support.streams import SETTINGS

LABELS = ontology().labels
SPEECH = ontology().find("Speech").index
KEPT = RecentOptions("/kept", "door", 3600, 10**9)
HOP_NS, LENGTH_NS, LIMIT = NS_PER_S // 2, NS_PER_S * 5 // 4, 0.1
CLEAR, SPOKEN, UNHEARD, DROPPED = 0, 1, 2, 3
FROM_NS = 7 * NS_PER_S


def row(score: float) -> NDArray[np.float32]:
    scores = np.full(len(LABELS), 0.01, np.float32)
    scores[SPEECH] = score
    return scores


def watched(kinds: Sequence[int], limit: float | None) -> tuple[list[tuple[int, int]], RecentSound]:
    """What is asked for if the windows are of these kinds, half a second apart."""
    asked: list[SoundRequest] = []

    def accept(request: SoundRequest) -> bool:
        asked.append(request)
        return True

    sound = RecentSound(LABELS, accept)
    options = replace(SETTINGS, speech_limit=limit, recent=KEPT)
    for number, kind in enumerate(kinds):
        begin_ns = FROM_NS + number * HOP_NS
        missing = {"audio": "hole"} if kind == UNHEARD else {}
        if kind != DROPPED:
            window = Window(begin_ns, begin_ns + LENGTH_NS, None, None, missing=missing)  # type: ignore[arg-type]
            sound.tagged(window, row(0.4 if kind == SPOKEN else 0.02), options)
    sound.stop(options)
    return [(each.begin_ns, each.end_ns) for each in asked], sound


@settings(deadline=None)
@given(st.lists(st.sampled_from([CLEAR] * 30 + [SPOKEN, UNHEARD, DROPPED]), min_size=1, max_size=300))
def test_nothing_near_speech_is_kept(kinds: list[int]) -> None:
    """With a limit, no kept stretch is within the guard of a window with speech, or without a judgement."""
    asked, sound = watched(kinds, LIMIT)
    assert asked == sorted(asked)
    assert all(one[1] <= other[0] for one, other in pairwise(asked))
    for begin_ns, end_ns in asked:
        assert LEAST_NS <= end_ns - begin_ns <= STRETCH_NS
        for number, kind in enumerate(kinds):
            first_ns = FROM_NS + number * HOP_NS
            if kind in (SPOKEN, UNHEARD):
                assert first_ns - GUARD_NS >= end_ns or first_ns + LENGTH_NS + GUARD_NS <= begin_ns
    end_ns = FROM_NS + max((n for n, kind in enumerate(kinds) if kind != DROPPED), default=0) * HOP_NS + LENGTH_NS
    kept_s = sum(end - begin for begin, end in asked) / 1e9
    assert kept_s + sum(sound.withheld_s.values()) <= (end_ns - FROM_NS + 2 * GUARD_NS) / 1e9


@given(st.lists(st.sampled_from([CLEAR] * 9 + [SPOKEN, UNHEARD]), min_size=4, max_size=300))
def test_without_a_limit_everything_is_kept(kinds: list[int]) -> None:
    """The stretches follow each other without a gap, from the first window to nearly the last."""
    asked, sound = watched(kinds, None)
    end_ns = FROM_NS + (len(kinds) - 1) * HOP_NS + LENGTH_NS
    assert asked[0][0] == FROM_NS and end_ns - asked[-1][1] < LEAST_NS
    assert all(one[1] == other[0] for one, other in pairwise(asked))
    assert sound.withheld_s == {}


def test_clear_time_is_kept_around_speech() -> None:
    """A minute with one spoken window loses that window and the guard on both sides, and no more."""
    asked, sound = watched([CLEAR] * 60 + [SPOKEN] + [CLEAR] * 60, LIMIT)
    spoken_ns = FROM_NS + 60 * HOP_NS
    assert (spoken_ns - GUARD_NS) in [end for _, end in asked]
    assert (spoken_ns + LENGTH_NS + GUARD_NS) in [begin for begin, _ in asked]
    assert sound.withheld_s == {"speech": (LENGTH_NS + 2 * GUARD_NS) / 1e9}


def test_what_no_source_takes_is_counted() -> None:
    """A request that finds no source is lost, and the status has its seconds."""
    sound = RecentSound(LABELS, lambda _: False)
    options = replace(SETTINGS, recent=KEPT)
    for number in range(50):
        begin_ns = number * HOP_NS
        sound.tagged(Window(begin_ns, begin_ns + LENGTH_NS, None, None), row(0.0), options)
    assert sound.withheld_s == {"no source": STRETCH_NS / 1e9}


TOML = """
[model]
name = "{model}"
[publish]
endpoint = "ipc://{folder}/labels"
status_interval_s = 1.0
[window]
hop_s = 0.5
[snapshots]
directory = "kept"
recent_hours = 1.0
[streams.hall]
sources = [{{ kind = "synthetic", video = false }}]
"""


@pytest.mark.timeout(180)
@pytest.mark.long
def test_a_real_daemon_keeps_sound_at_its_time(start: Start, tmp_path: Path, tiny_model: Path) -> None:
    """The synthetic source beeps at whole monotonic seconds; the files have the beeps at these times in UTC."""
    (tmp_path / "perceiverd.toml").write_text(TOML.format(model=tiny_model, folder=tmp_path))
    process = start("run", "--config", str(tmp_path / "perceiverd.toml"), log=tmp_path / "log")
    folder, deadline_s, status = tmp_path / "kept/recent", time.monotonic() + 120, None
    with subscribe(f"ipc://{tmp_path}/labels", ("status/",)) as subscription:
        while status is None or "written" not in status.recent_s:
            assert time.monotonic() < deadline_s and process.poll() is None, (tmp_path / "log").read_text()
            if isinstance(item := subscription.receive_message(0.5), Status):
                status = item
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert status.recent_sound == str(folder) and status.sources[0].snapshots_failed == 0
    (first, *_) = recent.segments(folder, "hall")
    assert (folder.stat().st_mode & 0o777, first.path.stat().st_mode & 0o777) == (0o700, 0o600)
    assert status.recent_s["written"] == pytest.approx(first.length_ms / 1000, abs=0.1)
    assert first.length_ms == pytest.approx(20_000, abs=100)
    found = recent.cut(folder, "hall", first.start + timedelta(seconds=3), first.start + timedelta(seconds=9))
    assert found is not None
    loud = np.abs(found.samples) > 0.5 * np.abs(found.samples).max()
    begins = np.flatnonzero(loud & ~np.roll(np.convolve(loud, np.ones(3000), "full")[: len(loud)] > 0, 1))
    offset_s = datetime.now(UTC).timestamp() - time.monotonic()
    at_s = [(found.start + timedelta(seconds=n / found.rate_hz)).timestamp() - offset_s for n in begins.tolist()]
    assert len(at_s) in (5, 6, 7)
    assert all(abs(each - round(each)) < 0.05 for each in at_s[1:])
