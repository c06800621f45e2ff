"""The daemon: sources in, labels out, for months. One loop on one thread, no locks.

Each turn takes what has arrived, cuts windows, tags the newest of every stream as one batch and publishes the scores.
A window that a newer one has overtaken is dropped here, and only here, and counted: live labels that come late are
worth less than none. The parts do the work; this module holds the order in which they do it.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import msgspec

from perceiverd import __version__, config
from perceiverd.config import Config
from perceiverd.core import logs
from perceiverd.core.clock import SuspendDetector, now_ns, utc
from perceiverd.core.errors import ConfigError, ModelError
from perceiverd.core.media import NS_PER_S, Chunk, Frame
from perceiverd.core.systemd import Notifier, watchdog_ns
from perceiverd.daemon import metrics, reload, snapshots
from perceiverd.daemon.http import Server
from perceiverd.daemon.stream import StreamState, disabled, known_down, state_of
from perceiverd.daemon.telemetry import Telemetry, TelemetryFrame, inferences
from perceiverd.model.card import Card, load_card
from perceiverd.pipeline.rules import Rules
from perceiverd.pipeline.tracker import EventTracker
from perceiverd.pipeline.windower import Window, Windower
from perceiverd.sources.process.arrivals import Arrival, Discontinuity, Modality, StateChange
from perceiverd.sources.process.restart import RunState
from perceiverd.sources.process.supervisor import Supervisor
from perceiverd.sources.specs import File, name_of
from perceiverd.wire import messages
from perceiverd.wire.auth import Authenticator
from perceiverd.wire.messages import Event, Hello, Message, Status
from perceiverd.wire.publisher import Publisher

if TYPE_CHECKING:
    from perceiverd.pipeline.tagger import Tagger

logger = logging.getLogger(__name__)

IDLE_MS = 50
"""The longest wait for media; a signal is answered and a subscriber greeted after it at the latest."""
POLLS_A_TURN = 16
"""How often the sources are asked before tagging gets its turn, even where they flood."""
SNAPSHOT_NS = NS_PER_S
"""How often what is measured is left for others to read."""
READY_WITHIN_S = 60
"""It counts as started so long after the model was loaded, whether a window came or not."""
LOADING_S = 600
"""What loading may take: the first start from a small board's memory card, with other work going on."""
SLACK_NS = 10 * NS_PER_S
"""How much later than due a stream's window may be before its stream counts as stuck."""


def run(path: Path, endpoint: str | None = None) -> int:
    """Run the configuration in this file until a signal, or until all its streams have ended; returns 0.

    `endpoint`, where it is given, stands in the place of the file's.
    Raises ConfigError where the configuration or its model can't be used, WireError where the endpoint can't be bound.
    """
    logs.to_stdout()
    settings = config.load(path, endpoint)
    try:
        Daemon(settings, path=path, endpoint=endpoint).run()
    except (ConfigError, ModelError) as error:
        # A model that is missing or broken is a fault of the configuration too: starting again would not mend it.
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
        """Opens nothing yet; `path` is what SIGHUP reads again, with `endpoint` in the place of its own.

        Raises ConfigError where no stream is enabled.
        """
        self.should_exit = self.should_reload = self._loading = False
        self._settings, self._path, self._endpoint = settings, path, endpoint
        self._ready = False
        reload.watched(settings)
        self._reload_note = ""
        """Why the last reload was refused, or what of it needs a restart; for `systemctl status`."""
        self._notifier = notifier or Notifier.from_environment()
        self._watchdog_ns = watchdog_ns()
        self._status_ns = round(settings.publish.status_interval_s * NS_PER_S)
        self._next_status_ns = self._next_alive_ns = 0
        self._up_since = datetime.now(UTC)
        self._wakes, self._suspends = SuspendDetector(), 0
        self._inference, self._inference_cpu_s = inferences(), 0.0
        self._board = Telemetry(now_ns())
        self._next_snapshot_ns = 0

    def run(self) -> None:
        with self._signals(), ExitStack() as opened, suppress(_LeftEarly):
            self.startup(opened)
            try:
                self.main_loop()
            finally:
                self.shutdown()

    # The three parts of a life.

    def startup(self, opened: ExitStack) -> None:
        """Open everything, in this order: what fails fast first; the sources last, when there is a model to feed."""
        settings = self._settings
        card = load_card(settings.model.name)
        rules, secrets = reload.rules_of(settings, card), config.secrets_of(settings, os.environ)
        self._keeps = snapshots.keeps_of(settings, os.environ)
        snapshots.prepare(self._keeps)
        publish = settings.publish
        self._publisher = opened.enter_context(Publisher(publish.endpoint, publish.high_water_mark, _door(publish)))
        logger.info("listening endpoint=%s boot_id=%s", self._publisher.endpoint, self._publisher.boot_id)
        if address := settings.metrics.address:
            server = opened.enter_context(Server(*address, metrics.pages(self._board)))
            logger.info("serving-metrics host=%s port=%d", address[0], server.port)
        with self._left_at_once():
            self._load(card)
        self._streams = {name: self._stream(name, rules[name]) for name in rules}
        sources = reload.sources_of(reload.watched(settings))
        # Under systemd the unit's own directory, which nobody else reaches and which goes with it.
        runtime_dir = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
        runner = Supervisor(
            sources,
            card.geometry.media_format,
            secrets=secrets,
            snapshots=self._keeps,
            runtime_dir=Path(runtime_dir) if runtime_dir else None,
        )
        self._runner = opened.enter_context(runner)
        self._said_hello = self._hello()
        self._publisher.send(self._said_hello)
        self._ready_by_ns = now_ns() + READY_WITHIN_S * NS_PER_S
        self._notifier.extend(READY_WITHIN_S + SLACK_NS / NS_PER_S)
        self._notifier.status("waiting for the first window")
        logger.info("started version=%s model=%s streams=%s", __version__, card.name, ",".join(self._streams))

    def main_loop(self) -> None:
        """Turn until told to stop, or until every stream has ended and its last window is out."""
        while not self.should_exit:
            if self.should_reload:
                self._reload()
            self._take_arrivals()
            self._tag_due()
            self._publisher.handle_subscribers()
            self._heartbeat()
            if self._all_flushed():
                logger.info("all-streams-ended")
                return

    def shutdown(self) -> None:
        """Say that it ends; what was opened is closed by its context, last opened first."""
        self._notifier.stopping()
        self._publisher.handle_subscribers()
        for stream in self._streams.values():
            self._publish(stream.end_events("stopped", self._model))
        self._publish_status(now_ns())
        windows = {name: stream.tagged for name, stream in self._streams.items()}
        dropped = sum(stream.dropped for stream in self._streams.values())
        logger.info("stopping windows=%d dropped=%d", sum(windows.values()), dropped)

    # What a reload does.

    def _reload(self) -> None:
        """Take the file's new configuration whole, but for what needs a restart; or none of it, and say why."""
        self.should_reload = False
        if self._ready:  # before, the word that a reload is over would be taken for the word that the start is
            self._notifier.reloading()
        try:
            if self._path is None:
                raise ConfigError("there is no file to read again")
            change = reload.read(self._path, self._settings, self._endpoint)
            rules = reload.rules_of(change.settings, self._card)
            secrets = config.secrets_of(change.settings, os.environ)
            keeps = snapshots.keeps_of(change.settings, os.environ)
            snapshots.prepare(keeps)
        except (ConfigError, ModelError) as error:
            self._reload_note = f"; reload refused, the old configuration stays: {error}"
            logger.error("reload-refused in_force=old error=%r", str(error))
        else:
            self._keeps = keeps
            self._change(change, rules, secrets)
        if self._ready:
            self._notifier.ready()
        self._notifier.status(self._summary())

    def _change(self, change: reload.ConfigDiff, rules: Mapping[str, Rules], secrets: Mapping[str, str]) -> None:
        off, self._settings = reload.switched_off(self._settings), change.settings
        gone = self._runner.exchange(reload.sources_of(reload.watched(self._settings)), secrets, self._keeps)
        for name in (*change.removed, *change.changed):
            self._publish(self._streams[name].end_events("reload", self._model))
        for name in change.removed:
            self._publish([self._status(self._streams.pop(name), now_ns())])
            self._publisher.forget(name)
        for name in off.keys() - self._settings.streams.keys():
            self._publisher.forget(name)
        for name, position in gone:
            if name in self._streams:
                self._streams[name].exchanged(position)
        for name in change.reruled:
            self._publish(self._streams[name].change_rules(rules[name], self._model))
        for name, stream in self._streams.items():
            self._tune(name, stream)
        self._streams = {name: self._streams.get(name) or self._stream(name, rules[name]) for name in rules}
        self._status_ns, self._next_status_ns = round(self._settings.publish.status_interval_s * NS_PER_S), 0
        if self._hello() != self._said_hello:
            self._said_hello = self._hello()
            self._publisher.send(self._said_hello)
        logger.info(
            "reloaded added=%s removed=%s changed=%s unchanged=%d",
            *(",".join(names) or "-" for names in (change.added, change.removed, change.changed)),
            len(self._streams) - len(change.added) - len(change.changed),
        )
        self._reload_note = ""
        if change.waiting:
            self._reload_note = f"; needs a restart: {', '.join(change.waiting)}"
            logger.warning("needs-restart options=%s in_force=old", ",".join(change.waiting))

    # What a turn does.

    def _take_arrivals(self) -> None:
        timeout_ms = IDLE_MS
        for _ in range(POLLS_A_TURN):
            arrivals = self._runner.poll(timeout_ms)
            self._wake()  # before what came since is taken
            for arrival in arrivals:
                self._take(arrival)
            if not arrivals:
                break
            timeout_ms = 0
        for name, stream in self._streams.items():
            if not stream.flushed and state_of(self._runner.state(name)) is RunState.ENDED:
                stream.take(stream.windower.flush())
                stream.flushed = True

    def _wake(self) -> None:
        """Where the machine was suspended, CLOCK_MONOTONIC stood still: no source can know of the gap."""
        if not (slept_ns := self._wakes.slept_ns()):
            return
        self._suspends += 1
        logger.warning("machine-was-suspended slept_s=%.1f streams=%d", slept_ns / NS_PER_S, len(self._streams))
        for stream in self._streams.values():
            self._publish(stream.slept(slept_ns, self._model))

    def _take(self, arrival: Arrival) -> None:
        stream = self._streams[arrival.stream]
        match arrival.what:
            case Frame() | Chunk() as item:
                modality: Modality = "video" if isinstance(item, Frame) else "audio"
                stream.hear(modality, arrival, item)
            case Discontinuity(modalities=modalities):
                for modality in modalities:
                    stream.torn(modality, arrival.position)
            case StateChange(state=RunState.STALLED | RunState.BACKING_OFF | RunState.ENDED):
                stream.lost(arrival.position)
            case StateChange():
                pass  # logged by the runner, and told with the next status

    def _tag_due(self) -> None:
        """Tag one window of every stream that has one, and publish."""
        for stream in self._streams.values():
            stream.drop_overtaken()
        batch = [(name, stream.due.pop(0)) for name, stream in self._streams.items() if stream.due]
        if not batch:
            return
        began_ns, began_cpu_s = now_ns(), time.process_time()
        scores = self._tagger.tag([window for _, window in batch])
        self._inference.add((now_ns() - began_ns) / NS_PER_S)
        self._inference_cpu_s += time.process_time() - began_cpu_s
        for (name, window), row in zip(batch, scores, strict=True):
            stream = self._streams[name]
            self._publisher.send(stream.scores(window, row, self._labels, self._settings.publish.top, self._model))
            self._publish(self._pictured(stream, window, stream.events(window, row, self._model)))
            if self._publisher.is_requested(messages.explain_topic(name)):
                self._publisher.send(stream.explain(window, self._settings.publish.top, self._model))
            stream.sent(window, now_ns())

    def _pictured(self, stream: StreamState, window: Window, events: list[Event]) -> list[Event]:
        """The same events; those that begin now name the picture that is being kept of them, where one is."""
        begun = [event for event in events if event.kind == "begin" and event.continues is None]
        keep = self._keeps.get(stream.name)
        if keep is None or not begun:
            return events
        middle_ns = (window.start_ns + window.end_ns) // 2
        # By the clock of the source, which knows nothing of what was added to it.
        ask = snapshots.ask(stream.name, begun, middle_ns - stream.av_offset_ns, utc(middle_ns))
        if not self._runner.request_snapshot(stream.name, ask):
            return events
        path = snapshots.path(keep, ask)
        stream.snapshots |= {event.id: path for event in begun}
        return [msgspec.structs.replace(event, snapshot=path) if event in begun else event for event in events]

    def _heartbeat(self) -> None:
        self._board.turned_ns = now = now_ns()
        # In every turn: a source that was down for less than a status's interval has been down all the same.
        for name, stream in self._streams.items():
            sources = self._runner.state(name)
            stream.note(state_of(sources), now)
            for source in sources:
                if stream.frozen_due(source.position, now):
                    self._runner.restart((name, source.position), "frozen", "its picture is frozen")
            self._publish(stream.events_over(sources, self._model))
        if not self._ready and (why := self._ready_for(now)):
            self._ready, self._next_status_ns = True, 0
            self._notifier.ready()
            logger.info("ready reason=%s", why)
        if now >= self._next_status_ns:
            # From now, not from when it was due: after a long inference one status is enough.
            self._next_status_ns = now + self._status_ns
            self._publish_status(now)
            if self._ready:
                self._notifier.status(self._summary())
            for stream in self._streams.values():
                stream.log_drops(now)
        if now >= self._next_snapshot_ns:
            self._next_snapshot_ns = now + SNAPSHOT_NS
            self._board.snapshot = self._snapshot(now)
        if self._watchdog_ns and now >= self._next_alive_ns and self._progressing(now):
            self._next_alive_ns = now + self._watchdog_ns // 4
            self._notifier.alive()

    def _all_flushed(self) -> bool:
        return all(stream.flushed and not stream.due for stream in self._streams.values())

    # What is asked and told.

    def _ready_for(self, now: int) -> str:
        """Why startup counts as over; empty while it does not.

        With the first window the whole way from a source to the socket has been gone. Where there is no hope of one
        it is over, too: a camera that is unplugged when the machine boots must not fail the unit. From then on the
        watchdog sees to it that windows come.
        """
        if any(stream.tagged for stream in self._streams.values()):
            return "first-window"
        if all(known_down(self._runner.state(name)) for name in self._streams):
            return "all-streams-down"
        return "time-out" if now >= self._ready_by_ns else ""

    def _progressing(self, now: int) -> bool:
        """Whether every stream that is up, and has shown that it can give windows, had one sent lately.

        A stream that is down has its own remedy, the runner's. One that is up and never gave a window (a camera slower
        than the model can use) would not be mended by a restart either, which would only hurt the others.
        """
        return all(stream.progressing(now, self._lately_ns) for stream in self._streams.values())

    @property
    def _lately_ns(self) -> int:
        """How long ago at most a stream that is well had a window sent."""
        window = self._settings.window
        return round((2 * window.hop_s + window.wait_s) * NS_PER_S) + self._window_ns + SLACK_NS

    def _summary(self) -> str:
        """One line for `systemctl status`."""
        states = {name: state_of(self._runner.state(name)) for name in self._streams}
        counts = Counter(map(str, states.values()))
        told = ", ".join(f"{count} {state}" for state, count in counts.most_common())
        lags = [s.lag_s for name, s in self._streams.items() if states[name] is RunState.UP and s.lag_s is not None]
        lag = f"lag {max(lags):.2f} s" if lags else "no lag known"
        tagged = sum(stream.tagged for stream in self._streams.values())
        dropped = sum(stream.dropped for stream in self._streams.values())
        return f"streams: {told}; {lag}; {tagged} windows tagged, {dropped} dropped{self._reload_note}"

    def _publish(self, said: Iterable[Message]) -> None:
        for message in said:
            self._publisher.send(message)

    def _publish_status(self, now: int) -> None:
        self._publish([self._status(stream, now) for stream in self._streams.values()])
        for name, off in reload.switched_off(self._settings).items():
            sources = [name_of(source) for source in off.sources]
            self._publisher.send(disabled(name, sources, now, self._up_since, self._model))

    def _status(self, stream: StreamState, now: int) -> Status:
        sources, subscriptions = self._runner.state(stream.name), self._publisher.subscriptions
        return stream.status(sources, now, subscriptions, self._up_since, self._model)

    def _snapshot(self, now: int) -> TelemetryFrame:
        """For whoever asks over HTTP, on another thread."""
        return TelemetryFrame(
            version=__version__,
            model=self._model.name,
            sha256=self._model.sha256,
            lately_ns=self._lately_ns,
            streams={name: stream.reading(self._runner.state(name), now) for name, stream in self._streams.items()},
            inference=self._inference.frozen(),
            subscriptions=self._publisher.subscriptions,
            subscribers=len(self._publisher.registry),
            missed=self._publisher.registry.missed,
            overflows=self._publisher.overflows,
            refused=self._publisher.refused,
            inference_cpu_s=self._inference_cpu_s,
            suspends=self._suspends,
        )

    def _hello(self) -> Hello:
        return Hello(
            version=__version__,
            streams=tuple(self._streams),
            model=self._model,
            hop_s=self._settings.window.hop_s,
            status_interval_s=self._settings.publish.status_interval_s,
            up_since=self._up_since,
            disabled=tuple(reload.switched_off(self._settings)),
        )

    def _stream(self, name: str, rules: Rules) -> StreamState:
        window = self._settings.window
        stream = StreamState(
            name, Windower(self._card.geometry, _ns(window.hop_s), window.tolerance), EventTracker(rules)
        )
        self._tune(name, stream)
        return stream

    def _tune(self, name: str, stream: StreamState) -> None:
        """Let the stream go by the options in force."""
        settings = self._settings
        options, window = settings.streams[name], settings.window
        offset_ns = round(options.av_offset_ms * 1e6)
        if offset_ns != stream.av_offset_ns:
            stream.av_offset_ns = offset_ns
            stream.windower.gap("video")
        stream.replayed = frozenset(i for i, source in enumerate(options.sources) if isinstance(source, File))
        stream.limits = settings.stalls.limits
        # What is stamped earlier or later by so much comes so much later or earlier by its stamp.
        patience = replace(window.tolerance, wait_ns=window.tolerance.wait_ns + abs(offset_ns))
        stream.windower.tune(_ns(window.hop_s), patience)

    def _load(self, card: Card) -> None:
        """Load the model and let it tag once: the first time is slow, and what is broken shows before "ready"."""
        began_s = time.monotonic()
        self._notifier.extend(LOADING_S)
        self._notifier.status(f"loading the model {card.name}")
        from perceiverd.pipeline.tagger import Tagger  # torch: nothing that only reads this module should wait for it

        model = self._settings.model
        self._model = messages.Model(card.name, card.sha256)
        self._card, self._labels = card, card.labels
        self._window_ns = card.geometry.window_ns
        self._tagger: Tagger = Tagger(card, model.device, model.threads)
        self._tagger.warm_up()
        # Torch's countless objects are here to stay. Looking through them for garbage would hold up the loop now and
        # then, and the exit by a second.
        gc.freeze()
        logger.info("model-loaded name=%s sha256=%s took_s=%.1f", card.name, card.sha256, time.monotonic() - began_s)

    @contextmanager
    def _left_at_once(self) -> Iterator[None]:
        """In here a signal ends all at once: a slow board loads for longer than systemd waits for an end."""
        self._loading = True
        try:
            if not self.should_exit:
                yield
            if self.should_exit:  # before the load, or where a library kept to itself what the handler raised
                raise _LeftEarly
        finally:
            self._loading = False

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT ask for the end; a second SIGINT is the kernel's, and immediate even amid an inference."""

        def stop(number: int, frame: FrameType | None) -> None:
            logger.info("signal name=%s", signal.Signals(number).name)
            self.should_exit = True
            if number == signal.SIGINT:
                signal.signal(signal.SIGINT, signal.SIG_DFL)
            if self._loading:
                raise _LeftEarly

        def reread(number: int, frame: FrameType | None) -> None:
            self.should_reload = True

        handlers = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: reread}
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _LeftEarly(BaseException):
    """A signal came while the model was loaded. No Exception, for libraries catch those while they are imported."""


def _ns(seconds: float) -> int:
    return round(seconds * NS_PER_S)


def _door(publish: config.PublishConfig) -> Authenticator | None:
    if publish.secret_key is None or publish.client_keys is None:
        return None
    return Authenticator(Path(publish.secret_key), Path(publish.client_keys))
