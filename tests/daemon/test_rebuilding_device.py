"""The daemon's loop while the GPU's engine is built again: real sources, a real network, a factory that is slow."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from perceiverd.daemon.daemon import Daemon
from perceiverd.model import resilient as resilient_module
from perceiverd.model.card import load_card
from perceiverd.model.resilient import ResilientEngine
from perceiverd.model.torch_engine import TorchEngine
from perceiverd.pipeline import tagger as tagger_module
from perceiverd.sources.specs import Synthetic
from perceiverd.wire.client import subscribe
from perceiverd.wire.messages import Scores
from tests.daemon.test_daemon import settings
from tests.support.small_devices import LONG_S, Factory, SmallDevice


class House:
    """A daemon, its device, and what a subscriber gets."""

    def __init__(self, model: Path, endpoint: str) -> None:
        card = load_card(model)
        self.small = SmallDevice(8)
        self.factory = Factory(card, self.small)
        self.engine = ResilientEngine("cuda:0", self.factory, partial(TorchEngine, card, "cpu"))
        self.daemon = Daemon(settings(model, endpoint, door=Synthetic(video=False), yard=Synthetic(video=False)))
        self._endpoint = endpoint
        self.scores = 0
        self._over = threading.Event()

    @contextmanager
    def watched(self, story: Callable[[], None]) -> Iterator[None]:
        """A subscriber counts scores, and `story` runs beside the daemon; at its end the daemon is stopped."""
        threads = [threading.Thread(target=each) for each in (self._count, partial(self._tell, story))]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            self.factory.gate.set()
            for thread in threads:
                thread.join(LONG_S)

    def _count(self) -> None:
        with subscribe(self._endpoint) as subscription:
            while not self._over.is_set():
                self.scores += isinstance(subscription.receive_message(0.05), Scores)

    def _tell(self, story: Callable[[], None]) -> None:
        try:
            story()
        finally:
            self.daemon.stop()

    def wait(self, what: Callable[[], bool]) -> None:
        ends_s = time.monotonic() + LONG_S
        while not what():
            assert time.monotonic() < ends_s
            time.sleep(0.01)

    def more_scores(self) -> None:
        """Wait until every stream must have had some more windows."""
        self.wait(lambda seen=self.scores: self.scores >= seen + 6)  # type: ignore[misc]

    def label_while_it_builds(self) -> None:
        """Memory becomes full, then free again; returns when the CPU has labelled beside the build."""
        self.more_scores()
        self.small.free = 0
        self.wait(lambda: self.engine.device == "cpu")
        self.small.free = 8
        assert self.factory.begun.wait(LONG_S)
        self.more_scores()


@pytest.fixture
def house(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.setattr(resilient_module, "FIRST_PAUSE_S", 0.01)
    house = House(tiny_model, f"ipc://{tmp_path}/labels")
    monkeypatch.setattr(tagger_module, "load_engine", lambda *_: house.engine)
    return house


def test_labels_go_on_while_the_engine_is_built(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """Memory is full, then free: the CPU labels all streams while the engine is made, and the device takes over."""
    caplog.set_level("INFO")
    done: list[str] = []

    def story() -> None:
        house.label_while_it_builds()
        done.append(house.engine.device)
        house.factory.gate.set()
        house.wait(lambda: house.engine.device == "cuda:0")
        house.more_scores()
        done.append(house.engine.device)

    with house.watched(story):
        house.daemon.run()
    assert done == ["cpu", "cuda:0"]
    health = house.engine.health
    assert health.builds >= 1 and health.windows_on_cpu > 0 and not health.is_lost
    assert "device-rebuilt" in caplog.text and "daemon-stopping" in caplog.text


def test_a_stop_while_the_engine_is_built(house: House) -> None:
    """The daemon ends although the build does not: in its last turn the CPU labels what is under way."""
    hanging: list[bool] = []

    def story() -> None:
        house.label_while_it_builds()

    with house.watched(story):
        house.daemon.run()
        thread = house.engine._device_thread._thread
        assert thread is not None
        hanging.append(thread.is_alive())
    assert hanging == [True] and house.factory.made == 1
