"""What happens if a GPU fails: smaller batches, then the CPU, and back. Errors and engines are real."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from perceiverd.model import resilient as resilient_module
from perceiverd.model.card import Card, load_card
from perceiverd.model.cuda.staging import SlotLogits
from perceiverd.model.engine import WindowMedia
from perceiverd.model.faults import fault_of
from perceiverd.model.resilient import ResilientEngine
from perceiverd.model.torch_engine import TorchEngine
from tests.support.small_devices import LONG_S, LateEngine, SmallDevice, SmallEngine, settle


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may need longer than windows are held."""
    monkeypatch.setattr(resilient_module, "HOLD_S", LONG_S)


@pytest.fixture(scope="module")
def card(tiny_model: Path) -> Card:
    return load_card(tiny_model)


@pytest.fixture(params=[SmallEngine, LateEngine], ids=["at once", "late"])
def kind(request: pytest.FixtureRequest) -> type[SmallEngine]:
    return request.param  # type: ignore[no-any-return]


def media(card: Card, count: int) -> list[WindowMedia]:
    assert card.geometry.audio
    rng = np.random.default_rng(count)
    return [WindowMedia(rng.uniform(-1, 1, card.geometry.audio.samples).astype(np.float32), None) for _ in range(count)]


def resilient(card: Card, small: SmallDevice, clock: Clock, kind: type[SmallEngine] = SmallEngine) -> ResilientEngine:
    return ResilientEngine("cuda:0", partial(kind, card, small), partial(TorchEngine, card, "cpu"), clock)


def assert_right(engine: ResilientEngine, card: Card, count: int) -> None:
    """All windows have the logits of the CPU."""
    given = media(card, count)
    exact = TorchEngine(card, "cpu").logits(np.stack([each.audio for each in given if each.audio is not None]), None)
    np.testing.assert_allclose(engine.submit(given).logits(), exact, atol=1e-4)


def test_a_batch_that_does_not_fit_is_halved(card: Card, kind: type[SmallEngine]) -> None:
    """Memory for two windows: batches of eight become batches of two, and every window has its labels."""
    small, clock = SmallDevice(8), Clock()
    engine = resilient(card, small, clock, kind)
    assert engine.health.batch_limit == 8 and engine.device == "cuda:0"
    small.free = 2
    assert_right(engine, card, 7)
    assert (engine.health.batch_limit, engine.health.out_of_memory, engine.health.windows_on_cpu) == (2, 2, 0)


def test_the_cpu_takes_over_and_gives_back(
    card: Card, kind: type[SmallEngine], caplog: pytest.LogCaptureFixture
) -> None:
    """Without memory for one window the CPU computes. Once there is memory again, batches grow back to the whole."""
    caplog.set_level("INFO")
    small, clock = SmallDevice(8), Clock()
    engine = resilient(card, small, clock, kind)
    small.free = 0
    assert_right(engine, card, 5)
    assert engine.device == "cpu" and engine.health.windows_on_cpu == 5 and engine.health.out_of_memory == 4
    small.free = 8
    assert_right(engine, card, 1)  # the pause is not over
    assert engine.device == "cpu"
    limits = []
    for _ in range(6):
        clock.now_s += 400
        assert_right(engine, card, 8)
        limits.append(settle(engine).health.batch_limit)
    assert limits == [1, 2, 4, 8, 8, 8] and engine.device == "cuda:0"
    events = [record.message.split()[0] for record in caplog.records]
    assert events == [*["device-memory-short"] * 4, "device-rebuilt", "device-recovered"]
    assert (engine.health.builds, engine.health.failed_builds) == (1, 0)


def test_batches_are_as_large_as_a_graph(card: Card) -> None:
    """With sizes that are no powers of two, the limit is always one of them: others would be padded to a larger one."""
    small, clock = SmallDevice(6), Clock()
    engine = ResilientEngine(
        "cuda:0", partial(SmallEngine, card, small, sizes=(1, 2, 4, 6)), partial(TorchEngine, card, "cpu"), clock
    )
    small.free = 3
    assert_right(engine, card, 6)
    limits = [engine.health.batch_limit]
    small.free = 6
    for _ in range(3):
        clock.now_s += 400
        assert_right(engine, card, 6)
        limits.append(settle(engine).health.batch_limit)
    assert limits == [2, 4, 6, 6]


class HoardingEngine(SmallEngine):
    """What it has computed is in variables of the call that fails, and `release` looks whether it is free."""

    held: weakref.ref[torch.Tensor] | None = None
    was_free: bool | None = None

    def submit(self, windows: Sequence[WindowMedia]) -> SlotLogits:
        if self._small.free < len(windows):
            layer = torch.zeros(3)
            HoardingEngine.held = weakref.ref(layer)
            self._small.check(len(windows))
        return super().submit(windows)

    def release(self) -> None:
        HoardingEngine.was_free = self.held is not None and self.held() is None
        super().release()


def test_what_a_failed_batch_computed_is_free_before_memory_is_given_back(card: Card) -> None:
    """An error refers to the variables of the calls that it ended. They are forgotten before the cache is emptied."""
    small = SmallDevice(8)
    engine = resilient(card, small, Clock(), HoardingEngine)
    small.free = 2
    assert_right(engine, card, 4)
    assert HoardingEngine.was_free


def test_failed_attempts_become_rare(card: Card) -> None:
    """While memory stays short, the pauses between attempts double, up to five minutes."""
    small, clock = SmallDevice(8), Clock()
    engine = resilient(card, small, clock)
    small.free = 0
    attempts = []
    for _ in range(360):
        clock.now_s += 10
        before = engine.health.out_of_memory
        engine.submit(media(card, 1)).logits()
        attempts.append(settle(engine).health.out_of_memory > before)
    assert 10 < sum(attempts) < 20
    assert engine.health.failed_builds == sum(attempts) - 1


def test_a_lost_device_leaves_the_work_to_the_cpu(card: Card, kind: type[SmallEngine]) -> None:
    """After a fault from which CUDA cannot recover, labels go on, and the device is not touched again."""
    small, clock = SmallDevice(8), Clock()
    engine = resilient(card, small, clock, kind)
    small.is_broken, there = True, weakref.ref(engine._gpu)
    assert_right(engine, card, 3)
    gc.collect()
    assert there() is not None  # to free its memory would end the process
    small.is_broken = False
    clock.now_s += 10_000
    assert_right(engine, card, 3)
    assert engine.device == "cpu" and engine.health.is_lost and engine.health.windows_on_cpu == 6


def test_a_full_device_at_the_start(card: Card) -> None:
    """If there is room for batches of two at the start, these are used; without any room the CPU begins."""
    assert resilient(card, SmallDevice(2), Clock()).health.batch_limit == 2
    small, clock = SmallDevice(0), Clock()
    engine = resilient(card, small, clock)
    assert_right(engine, card, 2)
    assert engine.device == "cpu"
    small.free, clock.now_s = 8, clock.now_s + 400
    assert_right(engine, card, 2)
    assert settle(engine).device == "cuda:0"


def test_other_errors_are_not_hidden(card: Card) -> None:
    """A fault of the program is raised as it is."""
    engine = resilient(card, SmallDevice(8), Clock())
    with pytest.raises(ValueError, match="could not broadcast"):
        engine.submit([WindowMedia(np.zeros(3, np.float32), None)])


def give_up_a_graph() -> None:
    """Fail as the recording of a graph does that does not fit."""
    try:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
    finally:
        raise torch.AcceleratorError("CUDA error: operation failed due to a previous error during capture")


def test_an_error_after_short_memory_is_short_memory() -> None:
    """Giving up a graph that did not fit may raise another error, which must not count as a lost device."""
    with pytest.raises(RuntimeError) as caught:
        give_up_a_graph()
    assert fault_of(caught.value) == "memory"


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory."), "memory"),
        (torch.AcceleratorError("CUDA error: out of memory"), "memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"), "memory"),
        (RuntimeError("cuFFT error: CUFFT_INTERNAL_ERROR"), "memory"),
        (RuntimeError("cuFFT error: CUFFT_EXEC_FAILED"), "lost"),
        (torch.AcceleratorError("CUDA error: unspecified launch failure"), "lost"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), "lost"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None),
        (MemoryError("out of memory"), None),
    ],
)
def test_errors_are_told_apart(error: Exception, fault: str | None) -> None:
    """Short memory, a lost device, and anything else."""
    assert fault_of(error) == fault
