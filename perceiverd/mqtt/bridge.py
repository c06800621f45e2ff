"""`perceiverd bridge mqtt`: forwards events to an MQTT broker. A subscriber like any other.

The daemon does not depend on it and does not notice if it fails. One loop on one thread: receive, update, send.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from perceiverd.core import logs
from perceiverd.core.errors import ConfigError, WireError, nearest
from perceiverd.core.labels import Label, ontology
from perceiverd.core.logs import LogLimit, log_event, log_limited
from perceiverd.core.signals import stopping
from perceiverd.core.systemd import Notifier, watchdog_ns
from perceiverd.mqtt.broker import PASSWORD, Address, Broker
from perceiverd.mqtt.homeassistant import TopicState
from perceiverd.wire import Curve, Gap, Item, Restarted, Stale, Subscription, messages, subscribe
from perceiverd.wire.keys import read_curve

logger = logging.getLogger("perceiverd.mqtt")

EVENTS = "events/"
SUBSCRIBED = (EVENTS, messages.HELLO, "status/")
TURN_S = 0.1
"""How long one turn of the loop waits for the broker if the daemon is quiet."""
ITEMS_A_TURN = 256
"""Items received in one turn, so that a flood of messages does not delay the broker's keep-alive."""
TOPIC = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")


@dataclass(frozen=True, slots=True)
class BridgeOptions:
    """The options of `perceiverd bridge mqtt`."""

    endpoint: str
    """Where the daemon publishes."""
    broker: str
    """`mqtt://USER@HOST:PORT` or `mqtts://...`."""
    labels: Sequence[str] = ()
    """Names or mids of labels that have topics from the start."""
    prefix: str = "perceiverd"
    """Prefix of the topics."""
    discovery: str = "homeassistant"
    """Home Assistant's prefix; "" to disable discovery."""
    ca: Path | None = None
    """Certificate of the authority that signed the broker's; None for the authorities that the system trusts."""
    server_key: Path | None = None
    """The daemon's public key file, if it encrypts."""
    secret_key: Path | None = None
    """The bridge's own secret key file, if the daemon encrypts."""


def run(options: BridgeOptions, environment: Mapping[str, str] = os.environ) -> int:
    """Forward events until a signal arrives; returns 0.

    Raises ConfigError if an option is invalid, WireError if the endpoint is.
    """
    logs.to_stdout()
    address = Address.parse(options.broker)
    for name, prefix in (("--prefix", options.prefix), ("--discovery", options.discovery)):
        if not TOPIC.fullmatch(prefix) and (prefix or name == "--prefix"):
            raise ConfigError(f"{name}: invalid topic {prefix!r}; use letters, digits, '_' and '-', separated by '/'")
    curve = read_curve(options.server_key, options.secret_key)
    state = TopicState(options.prefix, options.discovery, find_labels(options.labels))
    with Broker(address, environment.get(PASSWORD), options.prefix, state, options.ca) as broker:
        Bridge(options.endpoint, curve, state, broker).run()
    return 0


def find_labels(wanted: Sequence[str]) -> tuple[Label, ...]:
    """AudioSet's labels with these names or mids. Raises ConfigError for an unknown one, with a suggestion."""
    known = {key: label for label in ontology().labels for key in (label.mid, label.name.lower())}
    for name in wanted:
        if name.lower() not in known:
            near = nearest(name, (label.name for label in ontology().labels))
            hint = f"did you mean '{near}'?" if near else "see perceiverd/core/ontology.tsv"
            raise ConfigError(f"--label: unknown label '{name}'; {hint}")
    return tuple(known[name.lower()] for name in wanted)


class Bridge:
    """Forwards messages from one daemon to one broker."""

    def __init__(self, endpoint: str, curve: Curve | None, state: TopicState, broker: Broker) -> None:
        self.should_exit = False
        self._endpoint, self._curve, self._state, self._broker = endpoint, curve, state, broker
        self._notifier = Notifier.from_environment()
        self._watchdog_s = (watchdog_ns() or 0) / 1e9
        self._next_alive_s = 0.0
        self._events_lost = False
        """Whether messages of events were missed, so that a label may be on although its event is over."""
        self._missed = 0
        self._losses_limit, self._unreadable_limit = LogLimit(), LogLimit()

    def run(self) -> None:
        with stopping(logger, self._stop):
            subscription = self._subscribe()
            try:
                # Ready without daemon and broker: either may come later, or leave and return.
                self._notifier.ready()
                log_event(logger, logging.INFO, "bridge-started", endpoint=self._endpoint)
                while not self.should_exit:
                    received = self._receive(subscription)
                    if self._events_lost and not received:
                        # The daemon repeats open events for a new subscription. Those that it does not repeat are over.
                        subscription.close()
                        subscription = self._subscribe()
                        self._broker.outbox.put(self._state.resubscribed())
                        self._events_lost = False
                    self._broker.run_once(0.0 if received else TURN_S)
                    self._publish_losses()
                    self._feed_watchdog()
                self._notifier.stopping()
                log_event(logger, logging.INFO, "bridge-stopping")
            finally:
                subscription.close()

    def _subscribe(self) -> Subscription:
        return subscribe(self._endpoint, SUBSCRIBED, curve=self._curve)

    def _receive(self, subscription: Subscription) -> bool:
        """Process what has arrived, without waiting; False if nothing has."""
        received = False
        for _ in range(ITEMS_A_TURN):
            try:
                item = subscription.receive(0)
            except WireError as error:  # from a daemon that is newer than this bridge
                log_limited(
                    logger,
                    logging.WARNING,
                    "message-unreadable",
                    self._unreadable_limit,
                    time.monotonic_ns(),
                    error=error,
                )
                continue
            if item is None:
                break
            received = True
            self._process(item)
        return received

    def _process(self, item: Item) -> None:
        match item:
            case Gap():
                self._missed += item.missed
                self._events_lost |= item.topic.startswith(EVENTS)
            case Restarted():
                pass  # the state notices it by the boot_id
            case Stale():
                if not item.over:
                    self._broker.outbox.put(self._state.daemon_stale())
            case _:
                self._broker.outbox.put(self._state.update(item))

    def _publish_losses(self) -> None:
        dropped = self._broker.outbox.dropped
        if not (changes := self._state.set_losses(dropped, self._missed)):
            return
        self._broker.outbox.put(changes)
        if (dropped or self._missed) and self._losses_limit.admit(time.monotonic_ns()) is not None:
            log_event(logger, logging.WARNING, "bridge-losing", dropped=dropped, missed=self._missed)

    def _feed_watchdog(self) -> None:
        now_s = time.monotonic()
        if self._watchdog_s and now_s >= self._next_alive_s:
            self._next_alive_s = now_s + self._watchdog_s / 4
            self._notifier.alive()

    def _stop(self) -> None:
        self.should_exit = True
