"""`perceiverd bridge mqtt`: labels for homes. A subscriber like any other, which tells an MQTT broker what it hears.

The daemon needs nothing of it and notices nothing when it fails. One loop on one thread: hear, mirror, tell the broker.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from perceiverd.core import logs
from perceiverd.core.errors import ConfigError, WireError
from perceiverd.core.labels import Label, ontology
from perceiverd.core.systemd import Notifier, watchdog_ns
from perceiverd.mqtt.broker import PASSWORD, Address, Broker
from perceiverd.mqtt.homeassistant import TopicState
from perceiverd.wire import Curve, Gap, Restarted, Stale, Subscription, messages, subscribe
from perceiverd.wire.keys import read_curve

logger = logging.getLogger(__name__)

EVENTS = "events/"
TOPICS = (EVENTS, messages.HELLO, "status/")
TURN_S = 0.1
HEARD_A_TURN = 256
"""Messages, so that a flood can't keep the broker from its turn."""
LOGGED_EVERY_S = 60.0
TOPIC = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")


@dataclass(frozen=True, slots=True)
class BridgeOptions:
    """What was asked for."""

    endpoint: str
    broker: str
    """`mqtt://USER@HOST:PORT` or `mqtts://...`."""
    labels: Sequence[str] = ()
    """Names or mids of labels that are there from the start."""
    prefix: str = "perceiverd"
    discovery: str = "homeassistant"
    """Home Assistant's prefix; "" for no discovery."""
    ca: Path | None = None
    """Certificate of the authority that vouches for the broker; None for those that the system trusts."""
    server_key: Path | None = None
    """The daemon's public key, where it encrypts; with it one's own secret key."""
    secret_key: Path | None = None


def mqtt(wish: BridgeOptions, environment: Mapping[str, str] = os.environ) -> int:
    """Repeat what the daemon says until a signal; returns 0.

    Raises ConfigError for what can't be meant, WireError where the endpoint is none.
    """
    logs.to_stdout()
    address = Address.parse(wish.broker)
    for name, prefix in (("--prefix", wish.prefix), ("--discovery", wish.discovery)):
        if not TOPIC.fullmatch(prefix) and (prefix or name == "--prefix"):
            raise ConfigError(f"{name} {prefix!r} is no topic; expected letters, digits, _ and -, parted by /")
    curve = read_curve(wish.server_key, wish.secret_key)
    mirror = TopicState(wish.prefix, wish.discovery, find(wish.labels))
    with Broker(address, environment.get(PASSWORD), wish.prefix, mirror, wish.ca) as broker:
        Bridge(wish.endpoint, curve, mirror, broker).run()
    return 0


def find(wanted: Sequence[str]) -> tuple[Label, ...]:
    """AudioSet's labels of these names or mids. Raises ConfigError for one that is none, with what may be meant."""
    known = {key: label for label in ontology().labels for key in (label.mid, label.name.lower())}
    for name in wanted:
        if name.lower() not in known:
            near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
            meant = f"did you mean {known[near[0]].name!r}?" if near else "see perceiverd/ontology.tsv"
            raise ConfigError(f"--label {name!r} is no label of AudioSet; {meant}")
    return tuple(known[name.lower()] for name in wanted)


class Bridge:
    """Between one daemon and one broker."""

    def __init__(self, endpoint: str, curve: Curve | None, mirror: TopicState, broker: Broker) -> None:
        self.should_exit = False
        self._endpoint, self._curve, self._mirror, self._broker = endpoint, curve, mirror, broker
        self._notifier = Notifier.from_environment()
        self._watchdog_s = (watchdog_ns() or 0) / 1e9
        self._torn = False
        """Whether messages of events were lost, so that a label may be on whose event is over."""
        self._missed = 0
        self._next_alive_s = self._next_log_s = 0.0

    def run(self) -> None:
        with self._signals():
            subscription = subscribe(self._endpoint, TOPICS, curve=self._curve)
            try:
                # Ready without daemon and broker: either may come later, or go and come again.
                self._notifier.ready()
                logger.info("started endpoint=%s", self._endpoint)
                while not self.should_exit:
                    heard = self._hear(subscription)
                    if self._torn and not heard:
                        # Who subscribes anew is told what is open; what is not is over.
                        subscription.close()
                        subscription = subscribe(self._endpoint, TOPICS, curve=self._curve)
                        self._broker.outbox.put(self._mirror.doubt())
                        self._torn = False
                    self._broker.turn(0.0 if heard else TURN_S)
                    self._tend()
                self._notifier.stopping()
                logger.info("stopping")
            finally:
                subscription.close()

    def _hear(self, subscription: Subscription) -> bool:
        """Take what has come, without waiting; False where nothing has."""
        heard = False
        for _ in range(HEARD_A_TURN):
            try:
                item = subscription.receive(0)
            except WireError as error:  # of a daemon that is newer than this bridge
                self._log(str(error))
                continue
            if item is None:
                break
            heard = True
            match item:
                case Gap():
                    self._missed += item.missed
                    self._torn |= item.topic.startswith(EVENTS)
                case Restarted():
                    pass  # the mirror sees it by itself
                case Stale():
                    if not item.over:
                        self._broker.outbox.put(self._mirror.silence())
                case _:
                    self._broker.outbox.put(self._mirror.take(item))
        return heard

    def _tend(self) -> None:
        now_s = time.monotonic()
        dropped = self._broker.outbox.dropped
        if notes := self._mirror.lose(dropped, self._missed):
            self._broker.outbox.put(notes)
            if dropped or self._missed:
                self._log(f"lost dropped={dropped} missed={self._missed}")
        if self._watchdog_s and now_s >= self._next_alive_s:
            self._next_alive_s = now_s + self._watchdog_s / 4
            self._notifier.alive()

    def _log(self, line: str) -> None:
        """No more than a line a minute of what may happen a thousand times a second."""
        if (now_s := time.monotonic()) >= self._next_log_s:
            self._next_log_s = now_s + LOGGED_EVERY_S
            logger.warning("%s", line)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT ask for the end; a second SIGINT is the kernel's."""

        def stop(number: int, frame: FrameType | None) -> None:
            logger.info("signal name=%s", signal.Signals(number).name)
            self.should_exit = True
            if number == signal.SIGINT:
                signal.signal(signal.SIGINT, signal.SIG_DFL)

        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
