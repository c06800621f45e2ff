"""Whose windows are in a batch, and what happens while batches are under way."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiverd.core.media import NS_PER_S
from perceiverd.daemon.batching import BUSY_MS, Turns, WindowBatches
from perceiverd.daemon.stream import StreamState
from perceiverd.daemon.telemetry import LoopCounts
from perceiverd.model.card import Card, load_card
from perceiverd.model.fitting import PreparedEngine
from perceiverd.model.resilient import ResilientEngine
from perceiverd.model.torch_engine import TorchEngine
from perceiverd.pipeline import tagger as tagger_module
from perceiverd.pipeline.tagger import Tagger
from perceiverd.pipeline.windower import Window
from tests.support.small_devices import LONG_S, HeldEngine, SmallDevice, SmallEngine
from tests.support.streams import stream

MS = 1_000_000


def due_streams(*names: str) -> dict[str, StreamState]:
    """Streams that each have two windows: an old one and a newer one."""
    found = {}
    for name in names:
        found[name] = stream()
        found[name].name = name
        found[name].due = [window(0), window(1)]
    return found


def window(number: int) -> Window:
    rng = np.random.default_rng(number)
    samples = rng.uniform(-1, 1, 8_000).astype(np.float32)
    return Window(number * NS_PER_S // 2, (number + 1) * NS_PER_S // 2, samples, None)


def tagger_of(monkeypatch: pytest.MonkeyPatch, model: Path, make: Callable[[Card], PreparedEngine]) -> Tagger:
    """A tagger whose model runs on the engine that `make` gives for the card."""
    card = load_card(model)
    engine = ResilientEngine("cuda:0", partial(make, card), partial(TorchEngine, card, "cpu"))
    monkeypatch.setattr(tagger_module, "load_engine", lambda *_: engine)
    return Tagger(card, "cuda:0")


def test_a_batch_has_the_window_of_every_stream() -> None:
    """Without a limit and without waiting all streams that are due are taken, in their order."""
    turns = Turns(0)
    assert turns.choose(["c", "a"], 3, None, 0) == ["c", "a"]
    assert turns.choose([], 3, None, 0) == () and not turns.is_waiting


@given(streams=st.integers(1, 40), limit=st.integers(1, 16), ticks=st.integers(20, 80))
def test_a_full_device_stretches_all_hops_alike(streams: int, limit: int, ticks: int) -> None:
    """If more streams are due than fit, each has its turn as often as any other, to within one."""
    turns, names, served = Turns(0), [f"s{number}" for number in range(streams)], Counter[str]()
    for tick in range(ticks):
        chosen = turns.choose(names, streams, limit, tick)
        assert len(chosen) == min(limit, streams) and len(set(chosen)) == len(chosen)
        served.update(chosen)
    counts = [served[name] for name in names]
    assert max(counts) - min(counts) <= 1


def test_the_first_window_waits_only_so_long() -> None:
    """A batch starts when it is full, when all streams are in it, or when its first window has waited long enough."""
    turns = Turns(10 * MS)
    assert turns.choose(["a"], 3, 8, 100 * MS) == () and turns.is_waiting
    assert turns.choose(["a", "b"], 3, 8, 109 * MS) == ()
    assert turns.choose(["a", "b"], 3, 8, 110 * MS) == ["a", "b"]
    assert turns.choose(["a"], 3, 8, 200 * MS) == ()
    assert turns.choose(["a", "b", "c"], 3, 8, 201 * MS) == ["c", "a", "b"]
    assert turns.choose(["a", "b"], 3, 2, 300 * MS) == ["a", "b"]


def test_streams_that_are_gone_are_forgotten() -> None:
    """A reload that removes a stream leaves nothing of it."""
    turns = Turns(0)
    turns.choose(["a", "b"], 2, None, 0)
    turns.forget({"b": None})
    assert turns._last_turn == {"b": 2}


def test_two_batches_are_under_way_at_most(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the device works the loop goes on; results come in order, and each stream's newest window is taken."""
    made: list[HeldEngine] = []

    def make(card: Card) -> HeldEngine:
        made.append(HeldEngine(card))
        return made[0]

    tagger, batches = tagger_of(monkeypatch, tiny_model, make), WindowBatches(LoopCounts(), 0)
    streams = due_streams("a", "b", "c")
    for _ in range(3):
        batches.start(tagger, streams, 0)
    assert list(batches.finished()) == [] and batches.wait_ms(50) == BUSY_MS
    assert [batches.has(each) for each in streams.values()] == [True] * 3
    assert [each.progress.dropped for each in streams.values()] == [1, 1, 1]  # the old ones
    made[0].open = True
    found = list(batches.finished())
    assert [(each.stream.name, each.window.start_ns) for each in found] == [
        (name, NS_PER_S // 2) for name in ("a", "b", "c")
    ]
    exact = tagger.tag([window(1)])[0]
    for each in found:
        np.testing.assert_allclose(each.scores, exact, atol=1e-5)
    assert batches.wait_ms(50) == 50 and not batches.has(streams["a"])


def test_discarded_windows_are_counted(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a suspend, windows under way are dropped. The end of a run waits for them, but not for ever."""
    made: list[HeldEngine] = []

    def make(card: Card) -> HeldEngine:
        made.append(HeldEngine(card))
        return made[0]

    tagger, batches = tagger_of(monkeypatch, tiny_model, make), WindowBatches(LoopCounts(), 0)
    streams = due_streams("a")
    batches.start(tagger, streams, 0)
    batches.discard()
    assert streams["a"].progress.dropped == 2 and list(batches.finished(wait_s=LONG_S)) == []
    streams["a"].due = [window(2)]
    batches.start(tagger, streams, 0)
    assert list(batches.finished(wait_s=0.01)) == [] and batches.has(streams["a"])
    threading.Timer(0.05, setattr, (made[0], "open", True)).start()
    assert [each.window.start_ns for each in batches.finished(wait_s=LONG_S)] == [NS_PER_S]


def test_labels_go_on_when_memory_runs_out(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory runs out in the middle, then is free again: every batch has its scores, and streams take turns."""
    small = SmallDevice(8)
    tagger = tagger_of(monkeypatch, tiny_model, partial(SmallEngine, small=small))
    batches, served = WindowBatches(LoopCounts(), 0), Counter[str]()
    streams = due_streams(*"abcdefg")
    for turn in range(40):
        small.free = (8, 2, 0)[turn // 10] if turn < 30 else 8
        for each in streams.values():
            each.due = [window(turn)]
        batches.start(tagger, streams, turn)
        for one in batches.finished(wait_s=LONG_S):
            assert np.isfinite(one.scores).all()
            served[one.stream.name] += 1
    assert tagger.health and tagger.health.out_of_memory > 0 and tagger.health.windows_on_cpu > 0
    assert min(served.values()) >= 10 and max(served.values()) - min(served.values()) <= 1
