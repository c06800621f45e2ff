"""Nobody waits for an engine that is made: the thread makes it, the CPU computes meanwhile, and a stop has a bound."""

from __future__ import annotations

import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from perceiverd.core.errors import ModelError
from perceiverd.model import resilient as resilient_module
from perceiverd.model.card import Card, load_card
from perceiverd.model.engine import Engine, PendingLogits
from perceiverd.model.onnx_engine import OnnxEngine
from perceiverd.model.resilient import MOST_FAILURES, ResilientEngine
from perceiverd.model.torch_engine import TorchEngine
from tests.model.test_resilient import Clock, assert_right, media
from tests.support.small_devices import LONG_S, Factory, LateEngine, SmallDevice, SmallEngine, settle


def is_ready(pending: PendingLogits) -> bool:
    """As it is now: mypy takes a property for one that does not change."""
    return pending.is_ready


@pytest.fixture(scope="module")
def card(tiny_model: Path) -> Card:
    return load_card(tiny_model)


@pytest.fixture
def small() -> SmallDevice:
    return SmallDevice(8)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def factory(card: Card, small: SmallDevice) -> Factory:
    return Factory(card, small)


@pytest.fixture
def engine(card: Card, factory: Factory, clock: Clock) -> ResilientEngine:
    return ResilientEngine("cuda:0", factory, partial(TorchEngine, card, "cpu"), clock)


@pytest.fixture
def building(engine: ResilientEngine, card: Card, factory: Factory, small: SmallDevice, clock: Clock) -> None:
    """The device was full, so the engine was given up; now it is built again, which does not end."""
    small.free = 0
    assert_right(engine, card, 2)
    settle(engine)
    small.free, clock.now_s = 8, clock.now_s + 400
    assert_right(engine, card, 2)
    assert factory.begun.wait(LONG_S)


@pytest.mark.usefixtures("building")
def test_the_cpu_computes_while_the_engine_is_built(
    engine: ResilientEngine, card: Card, factory: Factory, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Every batch has its labels at once, from the CPU; when the engine is ready, the next batch goes to the device."""
    caplog.set_level("INFO")
    for _ in range(3):
        clock.now_s += 400
        pending = engine.submit(media(card, 3))
        assert pending.is_ready and engine.device == "cpu"
        pending.logits()
    assert (engine.health.is_preparing, engine.health.builds, factory.made) == (True, 1, 1)
    on_cpu = engine.health.windows_on_cpu
    factory.gate.set()
    assert settle(engine).device == "cuda:0" and engine.health.batch_limit == 1
    assert_right(engine, card, 3)
    assert engine.health.windows_on_cpu == on_cpu
    assert [record.message.split()[0] for record in caplog.records] == ["device-rebuilt"]


def test_an_error_that_comes_with_the_results_makes_nobody_wait(card: Card, small: SmallDevice, clock: Clock) -> None:
    """The batch is not ready until the CPU's engine is loaded; asking costs nothing, and then its logits are right."""
    gate = threading.Event()

    def spare() -> Engine:
        assert gate.wait(LONG_S)
        return TorchEngine(card, "cpu")

    engine = ResilientEngine("cuda:0", partial(LateEngine, card, small), spare, clock)
    pending = engine.submit(media(card, 3))
    small.is_broken = True
    assert [is_ready(pending) for _ in range(5)] == [False] * 5
    assert engine.health.is_lost and not gate.is_set()
    gate.set()
    ends_s = time.monotonic() + LONG_S
    while not is_ready(pending):
        assert time.monotonic() < ends_s
        time.sleep(0.002)
    audio = np.stack([each.audio for each in media(card, 3) if each.audio is not None])
    np.testing.assert_allclose(pending.logits(), TorchEngine(card, "cpu").logits(audio, None), atol=1e-4)


@pytest.mark.usefixtures("building")
def test_a_stop_does_not_wait_for_a_build_that_hangs(
    engine: ResilientEngine, card: Card, factory: Factory, small: SmallDevice
) -> None:
    """`close` ends after its bound although the build does not, and the CPU's labels are there until then."""
    assert_right(engine, card, 1)
    assert not engine.close(0.05)
    factory.gate.set()
    assert engine.close(LONG_S)  # the thread ends as soon as it can
    assert small.free == 8 and factory.made == 1


@pytest.mark.usefixtures("building")
def test_builds_that_fail_are_counted_rare_and_bounded(
    engine: ResilientEngine, card: Card, factory: Factory, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A model that cannot be read costs no labels: attempts become rare, each has one line, and the last says so."""
    factory.fault = ModelError("weights.safetensors: cannot be read")
    factory.gate.set()
    for _ in range(600):
        clock.now_s += 10
        engine.submit(media(card, 1)).logits()
        settle(engine)
    assert (engine.health.builds, engine.health.failed_builds) == (MOST_FAILURES, MOST_FAILURES)
    lines = [record.message for record in caplog.records if record.message.startswith("device-build-failed")]
    assert len(lines) == MOST_FAILURES and "attempt=1 next_s=10 " in lines[0] and "next_s=never" in lines[-1]
    assert engine.device == "cpu"


@pytest.mark.usefixtures("building")
def test_a_device_that_is_lost_while_it_is_built(
    engine: ResilientEngine, card: Card, factory: Factory, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The CPU goes on computing, and the device is not tried again."""
    factory.fault = torch.AcceleratorError("CUDA error: unspecified launch failure")
    factory.gate.set()
    assert settle(engine).health.is_lost
    clock.now_s += 10_000
    assert_right(engine, card, 2)
    assert engine.health.builds == 1 and caplog.text.count("device-lost") == 1


@pytest.fixture
def shrinking(engine: ResilientEngine, card: Card, small: SmallDevice) -> None:
    """A batch of eight did not fit; to make the engine ready for four takes until the gate opens."""
    small.free, small.is_slow = 4, True
    held = engine.submit(media(card, 8))
    assert not is_ready(held) and engine.health.is_preparing and engine.health.batch_limit == 4


@pytest.mark.usefixtures("shrinking")
def test_windows_wait_while_smaller_batches_are_made_ready(
    engine: ResilientEngine, card: Card, factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller does not: its batch is not ready. Then the device computes it, and the CPU nothing."""
    monkeypatch.setattr(resilient_module, "HOLD_S", LONG_S)
    pending = engine.submit(media(card, 3))
    assert not is_ready(pending)
    factory.gate.set()
    settle(engine)
    assert is_ready(pending) and pending.logits().shape[0] == 3 and engine.health.windows_on_cpu == 0
    assert_right(engine, card, 8)


@pytest.mark.usefixtures("shrinking")
def test_windows_do_not_wait_for_ever(
    engine: ResilientEngine, card: Card, factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the device does not become ready in time, the CPU computes; the device has the work again when it is ready."""
    monkeypatch.setattr(resilient_module, "HOLD_S", 0.01)
    assert_right(engine, card, 3)
    assert engine.health.windows_on_cpu == 3 and engine.health.is_preparing
    factory.gate.set()
    assert settle(engine).device == "cuda:0"
    monkeypatch.setattr(resilient_module, "HOLD_S", LONG_S)
    assert_right(engine, card, 3)
    assert engine.health.windows_on_cpu == 3


def test_windows_wait_while_the_cpus_engine_is_loaded(card: Card, clock: Clock) -> None:
    """The caller goes on: its batch is ready when the CPU's engine is, and is computed there."""
    gate, small = threading.Event(), SmallDevice(8)

    def spare() -> Engine:
        assert gate.wait(LONG_S)
        return TorchEngine(card, "cpu")

    engine = ResilientEngine("cuda:0", partial(SmallEngine, card, small), spare, clock)
    small.is_broken = True
    pending = engine.submit(media(card, 2))
    assert engine.health.is_lost and not is_ready(pending)
    gate.set()
    assert pending.logits().shape[0] == 2 and is_ready(pending) and engine.health.windows_on_cpu == 2


def test_the_cpus_engine_is_loaded_for_the_kinds_that_wait(card: Card, clock: Clock) -> None:
    """What a kind of window needs is loaded in the thread too: the first batch on the CPU does not wait for it."""
    small = SmallDevice(8)
    engine = ResilientEngine("cuda:0", partial(SmallEngine, card, small), partial(OnnxEngine, card), clock)
    small.is_broken = True
    engine.submit(media(card, 3))
    assert engine._spare is not None
    spare = engine._spare.result(LONG_S)
    assert isinstance(spare, OnnxEngine) and list(spare._trunks) == [frozenset({"audio"})]


@pytest.mark.parametrize("error", [ValueError("no such layer"), torch.AcceleratorError("CUDA error: unknown error")])
def test_what_fails_in_the_background_costs_no_labels(
    engine: ResilientEngine, card: Card, small: SmallDevice, factory: Factory, error: Exception
) -> None:
    """An error while sizes are made ready leaves the work to the CPU, whatever it is."""

    def fail(_: int | None = None) -> None:
        raise error

    assert engine._gpu
    engine._gpu.prepare = fail  # type: ignore[assignment,method-assign]
    small.free = 4
    assert_right(engine, card, 8)
    assert settle(engine).device == "cpu" and engine.health.windows_on_cpu == 8
    assert engine.health.is_lost == isinstance(error, RuntimeError)


def test_two_batches_that_do_not_fit_are_one_failure(
    engine: ResilientEngine, card: Card, small: SmallDevice, factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error of the second finds that smaller batches are being made ready already."""
    monkeypatch.setattr(resilient_module, "HOLD_S", 0.01)
    small.is_slow = True
    batches = [engine.submit(media(card, 8)) for _ in range(2)]

    def short() -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    for batch in batches:
        for part in batch._parts:  # type: ignore[attr-defined]
            part.logits = short
    assert [len(batch.logits()) for batch in batches] == [8, 8]
    assert engine.health.out_of_memory == 1
    factory.gate.set()
    assert settle(engine).health.batch_limit == 4
