"""The daemon: sources in, labels out, for months. One loop on one thread, no locks.

Each turn takes what has arrived, cuts windows, tags the newest window of every stream as one batch, and publishes. If a
stream has newer windows, the older ones are dropped and counted: live labels that come late are useless. The
parts do the work; this module holds their order.
"""

from __future__ import annotations

import gc
import logging
import os
import time
from collections.abc import Iterable
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from perceiverd import __version__, config
from perceiverd.config import Config
from perceiverd.core import logs
from perceiverd.core.clock import SuspendDetector, now_ns
from perceiverd.core.errors import ConfigError, ModelError
from perceiverd.core.http import Server
from perceiverd.core.logs import log_event
from perceiverd.core.media import NS_PER_S
from perceiverd.core.signals import SignalFlags
from perceiverd.core.systemd import Notifier, watchdog_ns
from perceiverd.daemon import metrics, reload, reports
from perceiverd.daemon.batching import LAST_S, WindowBatches
from perceiverd.daemon.health import START_S
from perceiverd.daemon.reports import Identity, state_of
from perceiverd.daemon.stream import StreamState, known_down
from perceiverd.daemon.telemetry import LoopCounts, StreamTelemetry, Telemetry
from perceiverd.model.card import load_card
from perceiverd.sources.process.arrivals import Arrival, Discontinuity, StateChange
from perceiverd.sources.process.restart import RunState
from perceiverd.sources.specs import modalities_of
from perceiverd.wire import messages
from perceiverd.wire.auth import Authenticator
from perceiverd.wire.messages import Message, Status
from perceiverd.wire.publisher import Publisher

if TYPE_CHECKING:
    from perceiverd.pipeline.tagger import Tagger

logger = logging.getLogger("perceiverd.daemon")

IDLE_MS = 50
"""The longest wait for media. After it the loop answers signals and new subscribers."""
POLLS_A_TURN = 16
"""How often the loop asks the sources in one turn: even if they flood it, windows must be tagged."""
TELEMETRY_NS = NS_PER_S
"""The time between two updates of the telemetry."""
READY_WITHIN_S = 60
"""This long after the model was loaded the start is over, with or without a window."""
SLACK_NS = 10 * NS_PER_S
"""A stream whose window is overdue by more than this is stuck."""


def run(path: Path, endpoint: str | None = None) -> int:
    """Run the configuration in this file until a signal, or until all its streams have ended; returns 0.

    `endpoint`, if given, replaces the file's. Raises ConfigError if the configuration or its model cannot be used,
    WireError if the endpoint cannot be bound.
    """
    logs.to_stdout()
    settings = config.load(path, endpoint)
    try:
        Daemon(settings, path=path, endpoint=endpoint).run()
    except (ConfigError, ModelError) as error:
        # A missing or broken model is a fault of the configuration too: a restart would not help.
        raise ConfigError(f"{path}: {error}") from error
    return 0


class Daemon:
    """Runs one configuration, once."""

    def __init__(
        self,
        settings: Config,
        notifier: Notifier | None = None,
        path: Path | None = None,
        endpoint: str | None = None,
    ) -> None:
        """Opens nothing yet. SIGHUP reads `path` again, with `endpoint` in place of the file's.

        Raises ConfigError if no stream is enabled.
        """
        reload.enabled(settings)
        self.signals = SignalFlags()
        self._config, self._path, self._endpoint = settings, path, endpoint
        self._ready = False
        self._reload_note = ""
        """Why the last reload was refused, or what of it needs a restart; for `systemctl status`."""
        self._notifier = notifier or Notifier.from_environment()
        self._watchdog_ns = watchdog_ns()
        self._next_status_ns = self._next_telemetry_ns = self._next_alive_ns = 0
        self._up_since = datetime.now(UTC)
        self._suspend_detector, self._counts, self._telemetry = SuspendDetector(), LoopCounts(), Telemetry(now_ns())
        self._batches = WindowBatches(self._counts, settings.model.max_batch_wait_ms * 1_000_000)

    def stop(self) -> None:
        """Ask the loop to end after this turn."""
        self.signals.should_stop = True

    def run(self) -> None:
        with self.signals, ExitStack() as opened:
            self.startup(opened)
            try:
                self.main_loop()
            finally:
                self.shutdown()

    # The three parts of a run.

    def startup(self, opened: ExitStack) -> None:
        """Open everything: first what fails fast, then the model, at last the sources.

        SIGTERM and SIGINT end the process at once until the model is loaded.
        """
        publish = self._config.publish
        self._card = load_card(self._config.model.name)
        self._resolved = reload.Resolved.of(self._config, self._card, os.environ)
        publisher = Publisher(publish.endpoint, publish.high_water_mark, _authenticator(publish))
        self._publisher = opened.enter_context(publisher)
        log_event(logger, logging.INFO, "publisher-listening", endpoint=publisher.endpoint, boot_id=publisher.boot_id)
        if address := self._config.metrics.address:
            server = opened.enter_context(Server(*address, metrics.pages(self._telemetry)))
            log_event(logger, logging.INFO, "metrics-listening", host=address[0], port=server.port)
        self._load()
        opened.callback(self._tagger.close)
        self.signals.defer_stop()
        self._supervisor = opened.enter_context(self._resolved.supervisor(self._card, os.environ))
        self._streams = {name: self._stream(name) for name in self._resolved.rules}
        self._hello = reports.hello(self._config, self._streams, self._identity)
        self._publisher.send(self._hello)
        self._ready_by_ns = now_ns() + READY_WITHIN_S * NS_PER_S
        self._notifier.extend(READY_WITHIN_S + SLACK_NS / NS_PER_S)
        self._notifier.status("waiting for the first window")
        names, model = tuple(self._streams), self._card.name
        log_event(logger, logging.INFO, "daemon-started", version=__version__, model=model, streams=names)

    def main_loop(self) -> None:
        """Turn until a signal asks to stop, or until every stream has ended and its last window was published."""
        while not self.signals.should_stop:
            if self.signals.should_reload:
                self._reload()
            self._take_arrivals()
            self._tag_due()
            self._publisher.handle_subscribers()
            self._heartbeat()
            if all(stream.is_over and not self._batches.has(stream) for stream in self._streams.values()):
                log_event(logger, logging.INFO, "streams-ended", streams=tuple(self._streams))
                return

    def shutdown(self) -> None:
        """Publish the end. The context closes what was opened, in reverse order."""
        self._notifier.stopping()
        self._publish_tagged(wait_s=LAST_S)
        self._batches.discard()  # nothing, unless an engine hangs
        self._publisher.handle_subscribers()
        for stream in self._streams.values():
            self._publish(stream.end_events("stopped"))
        self._publish(self._all_statuses(now_ns()))
        windows = sum(stream.progress.tagged for stream in self._streams.values())
        dropped = sum(stream.progress.dropped for stream in self._streams.values())
        log_event(
            logger, logging.INFO, "daemon-stopping", signal=self.signals.stopped_by, windows=windows, dropped=dropped
        )

    # Starting.

    def _load(self) -> None:
        """Load the model and let it tag once: the first time is slow, and a broken model must show before "ready"."""
        began_s, card = time.monotonic(), self._card
        self._notifier.extend(START_S)
        self._notifier.status(f"loading the model {card.name}")
        from perceiverd.pipeline.tagger import Tagger

        self._identity = Identity(messages.Model(card.name, card.sha256), self._up_since)
        model = self._config.model
        self._tagger: Tagger = Tagger(card, model.device, model.threads, model.engine, model.precision, model.max_batch)
        self._tagger.warm_up(self._kinds())
        # The engine's many objects stay for ever. Searching them for garbage would hold up the loop now and then, and
        # the exit by a second.
        gc.freeze()
        took_s = f"{time.monotonic() - began_s:.1f}"
        log_event(
            logger,
            logging.INFO,
            "model-loaded",
            name=card.name,
            sha256=card.sha256,
            took_s=took_s,
            engine=self._tagger.engine,
            device=self._tagger.device,
        )

    def _kinds(self) -> list[frozenset[str]]:
        """The modalities that the streams may have, each kind once."""
        streams = self._config.streams.values()
        kinds = [frozenset[str]().union(*map(modalities_of, stream.sources)) for stream in streams]
        return list(dict.fromkeys(kinds))

    def _stream(self, name: str) -> StreamState:
        return StreamState(
            name,
            self._card.geometry,
            self._resolved.rules[name],
            self._resolved.settings[name],
            self._identity,
            partial(self._supervisor.request_media, name),
        )

    # Reloading.

    def _reload(self) -> None:
        """Use the file's new configuration, except for what needs a restart. If it has an error, change nothing."""
        self.signals.should_reload = False
        if self._ready:  # earlier, systemd would take the end of the reload for the end of the start
            self._notifier.reloading()
        try:
            diff = reload.read(self._path, self._config, self._endpoint)
            resolved = reload.Resolved.of(diff.config, self._card, os.environ)
        except (ConfigError, ModelError) as error:
            self._reload_note = f"; reload refused, the old configuration stays: {error}"
            log_event(logger, logging.ERROR, "reload-refused", error=error)
        else:
            self._use(diff, resolved)
        if self._ready:
            self._notifier.ready()
        self._notifier.status(self._summary())

    def _use(self, diff: reload.ConfigDiff, resolved: reload.Resolved) -> None:
        before, self._config, self._resolved = self._config, diff.config, resolved
        self._publish(reload.exchange(diff, resolved, self._streams, self._supervisor))
        self._publish([self._status(self._streams[name], now_ns()) for name in diff.removed])
        for name in {*diff.removed, *(before.streams.keys() - self._config.streams.keys())}:
            self._publisher.forget(name)
        self._streams = {name: self._streams.get(name) or self._stream(name) for name in resolved.rules}
        self._batches.turns.forget(self._streams)
        self._next_status_ns = 0
        hello = reports.hello(self._config, self._streams, self._identity)
        if hello != self._hello:
            self._hello = hello
            self._publisher.send(hello)
        reload.log(diff, unchanged=len(self._streams) - len(diff.added) - len(diff.changed))
        self._reload_note = f"; needs a restart: {', '.join(diff.waiting)}" if diff.waiting else ""

    # One turn.

    def _take_arrivals(self) -> None:
        timeout_ms = self._batches.wait_ms(IDLE_MS)
        for _ in range(POLLS_A_TURN):
            arrivals = self._supervisor.poll(timeout_ms)
            self._check_suspend()  # before the media that came since
            for arrival in arrivals:
                self._take(arrival)
            if not arrivals:
                break
            timeout_ms = 0
        for name, stream in self._streams.items():
            if state_of(self._supervisor.state(name)) is RunState.ENDED:
                stream.flush()

    def _check_suspend(self) -> None:
        """CLOCK_MONOTONIC stands still while the machine is suspended, so no source can see the gap."""
        if not (slept_ns := self._suspend_detector.slept_ns()):
            return
        self._counts.suspends += 1
        slept_s = f"{slept_ns / NS_PER_S:.1f}"
        log_event(logger, logging.WARNING, "machine-suspended", slept_s=slept_s, streams=len(self._streams))
        self._batches.discard()  # their media times have no UTC time any more
        for stream in self._streams.values():
            self._publish(stream.suspended(slept_ns))

    def _take(self, arrival: Arrival) -> None:
        stream = self._streams[arrival.stream]
        match arrival.what:
            case Discontinuity(modalities=modalities):
                stream.gap(modalities, arrival.position)
            case StateChange(state=RunState.STALLED | RunState.BACKING_OFF | RunState.ENDED):
                stream.inputs.lost(arrival.position)
            case StateChange():
                pass  # the supervisor logs it, and the next status has it
            case media:
                stream.receive(arrival.position, media)

    def _tag_due(self) -> None:
        """Publish the windows that are tagged, and start a batch of the newest windows; a CPU computes it at once."""
        self._publish_tagged()
        self._batches.start(self._tagger, self._streams, now_ns())
        self._publish_tagged()

    def _publish_tagged(self, *, wait_s: float = 0.0) -> None:
        for one in self._batches.finished(wait_s=wait_s):
            stream = one.stream
            if self._streams.get(stream.name) is stream:  # a reload may have removed it
                explain = self._publisher.is_requested(messages.explain_topic(stream.name))
                self._publish(stream.tagged(one.window, one.scores, explain=explain, reused=one.reused))

    def _heartbeat(self) -> None:
        self._telemetry.turned_ns = now = now_ns()
        # In every turn: a source that is down for less than the interval of statuses is down nevertheless.
        for stream in self._streams.values():
            self._attend(stream, now)
        if not self._ready and (reason := self._ready_for(now)):
            self._ready, self._next_status_ns = True, 0
            self._notifier.ready()
            log_event(logger, logging.INFO, "daemon-ready", reason=reason)
        if now >= self._next_status_ns:
            # From now, not from when it was due: after a long inference one status is enough.
            self._next_status_ns = now + round(self._config.publish.status_interval_s * NS_PER_S)
            self._publish(self._all_statuses(now))
            if self._ready:
                self._notifier.status(self._summary())
            for stream in self._streams.values():
                stream.log_losses(now)
        if now >= self._next_telemetry_ns:
            self._next_telemetry_ns = now + TELEMETRY_NS
            streams = {name: self._stream_telemetry(stream, now) for name, stream in self._streams.items()}
            self._telemetry.frame = reports.telemetry_frame(
                streams,
                self._identity,
                self._counts,
                self._publisher,
                recent_ns=self._recent_ns,
                at_ns=now,
                device=self._tagger.health,
            )
        if self._watchdog_ns and now >= self._next_alive_ns and not self._is_stuck(now):
            self._next_alive_ns = now + self._watchdog_ns // 4
            self._notifier.alive()

    def _attend(self, stream: StreamState, now: int) -> None:
        sources = self._supervisor.state(stream.name)
        stream.update(sources, now)
        for source in sources:
            if stream.inputs.restart_due(source.position, now):
                self._supervisor.restart((stream.name, source.position), "frozen", "its video is frozen")
        if not self._batches.has(stream):
            self._publish(stream.events_over(sources))

    # What it asks and reports.

    def _ready_for(self, now: int) -> str:
        """Why the start is over; empty while it is not.

        The first window has gone the whole way from a source to the socket. Without hope of a window the start is over
        too: a camera that is unplugged when the machine boots must not fail the unit. The watchdog checks the rest.
        """
        if any(stream.progress.tagged for stream in self._streams.values()):
            return "first-window"
        if all(known_down(self._supervisor.state(name)) for name in self._streams):
            return "all-streams-down"
        return "time-out" if now >= self._ready_by_ns else ""

    def _is_stuck(self, now: int) -> bool:
        """Whether a stream is up, has given windows before, and has sent none recently.

        The supervisor restarts what is down. A stream that is up and never gave a window has a camera slower than the
        model can use. A restart of the daemon would not help it, and would hurt the others.
        """
        return any(stream.progress.is_stuck(now, self._recent_ns) for stream in self._streams.values())

    @property
    def _recent_ns(self) -> int:
        """A stream that is well sent its last window no longer ago than this."""
        window = self._config.window
        return round((2 * window.hop_s + window.wait_s) * NS_PER_S) + self._card.geometry.window_ns + SLACK_NS

    def _summary(self) -> str:
        """One line for `systemctl status`."""
        streams = [(state_of(self._supervisor.state(name)), each.progress) for name, each in self._streams.items()]
        return reports.summary(streams) + self._reload_note

    def _publish(self, outgoing: Iterable[Message]) -> None:
        for message in outgoing:
            self._publisher.send(message)

    def _status(self, stream: StreamState, now: int) -> Status:
        sources = self._supervisor.state(stream.name)
        return stream.status(sources, subscriptions=self._publisher.subscriptions, at_ns=now)

    def _all_statuses(self, now: int) -> list[Status]:
        watched = [self._status(stream, now) for stream in self._streams.values()]
        return [*watched, *reports.all_disabled(self._config, self._identity, now)]

    def _stream_telemetry(self, stream: StreamState, now: int) -> StreamTelemetry:
        return stream.telemetry(self._supervisor.state(stream.name), self._status(stream, now))


def _authenticator(publish: config.PublishConfig) -> Authenticator | None:
    if publish.secret_key is None or publish.client_keys is None:
        return None
    return Authenticator(Path(publish.secret_key), Path(publish.client_keys))
