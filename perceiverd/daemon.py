"""The daemon: sources in, labels out, for months. One loop on one thread, no locks.

Each turn takes what has arrived, cuts windows, tags the newest of every stream as one batch and publishes the scores.
A window that a newer one has overtaken is dropped here, and only here, and counted: live labels that come late are
worth less than none. The parts do the work; this module holds the order in which they do it.
"""

from __future__ import annotations

import gc
import logging
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from perceiverd import __version__, config, messages
from perceiverd.card import Card, load_card
from perceiverd.clock import now_ns, utc_ns
from perceiverd.config import Config
from perceiverd.errors import ConfigError, ModelError
from perceiverd.media import NS_PER_S, Chunk, Frame
from perceiverd.messages import Hello, Scores, SourceStatus, Status, best
from perceiverd.notify import Notifier, watchdog_ns
from perceiverd.publisher import Publisher
from perceiverd.sources import Wanted
from perceiverd.sources.runner import Arrival, Gap, Modality, Runner, SourceState
from perceiverd.sources.supervision import State
from perceiverd.window import Patience, Window, Windower

if TYPE_CHECKING:
    from perceiverd.tagger import Tagger

logger = logging.getLogger(__name__)

IDLE_MS = 50
"""The longest wait for media; a signal is answered and a subscriber greeted after it at the latest."""
POLLS_A_TURN = 16
"""How often the sources are asked before tagging gets its turn, even where they flood."""
SLACK_NS = 10 * NS_PER_S
"""How much later than due a stream's window may be before its stream counts as stuck."""
DROPS_LOGGED_EVERY_NS = 60 * NS_PER_S


def run(path: Path) -> int:
    """Run the configuration in this file until a signal, or until all its streams have ended; returns 0.

    Raises ConfigError where the configuration or its model can't be used, WireError where the endpoint can't be bound.
    """
    _log_to_stdout()
    settings = config.load(path)
    try:
        Daemon(settings).run()
    except (ConfigError, ModelError) as error:
        # A model that is missing or broken is a fault of the configuration too: starting again would not mend it.
        raise ConfigError(f"{path}: {error}") from error
    return 0


@dataclass(slots=True)
class Stream:
    """What the daemon knows of one stream."""

    windower: Windower
    givers: dict[Modality, set[int]] = field(default_factory=dict)
    """The sources that give each modality, by their positions; the first is heeded."""
    due: list[Window] = field(default_factory=list)
    """Cut and not yet tagged, oldest first."""
    begin_ns: int | None = None
    """Where stream time begins: the start of the first window."""
    flushed: bool = False
    tagged: int = 0
    dropped: int = 0
    untold: int = 0
    """Windows dropped since the last scores."""
    logged_dropped: int = 0
    logged_ns: int = -DROPS_LOGGED_EVERY_NS
    up_ns: int | None = None
    """Since when all its sources are up."""
    sent_ns: int | None = None
    """When its last scores were sent."""

    def heeds(self, modality: Modality, arrival: Arrival) -> bool:
        """Whether this source's sound or pictures count: two cameras' pictures would make no window."""
        givers = self.givers.setdefault(modality, set())
        if arrival.position not in givers:
            if givers and arrival.position < min(givers):
                self.windower.gap(modality)
            givers.add(arrival.position)
            if len(givers) > 1:
                told = ",".join(map(str, sorted(givers)))
                logger.warning(
                    "given-twice stream=%s modality=%s sources=%s heeded=%d",
                    *(arrival.stream, modality, told, min(givers)),
                )
        return arrival.position == min(givers)

    def take(self, windows: list[Window]) -> None:
        if windows and self.begin_ns is None:
            self.begin_ns = windows[0].start_ns
        self.due += windows

    def drop_overtaken(self) -> None:
        """Keep only the newest window that is due; all of them, once nothing new can come."""
        if not self.flushed and len(self.due) > 1:
            self.dropped += len(self.due) - 1
            self.untold += len(self.due) - 1
            del self.due[:-1]


class Daemon:
    """Runs one configuration, once."""

    def __init__(self, settings: Config, notifier: Notifier | None = None) -> None:
        """Opens nothing yet. Raises ConfigError where no stream is enabled."""
        self.should_exit = False
        self._settings = settings
        self._sources = {
            (name, position): source
            for name, stream in settings.streams.items()
            if stream.enabled
            for position, source in enumerate(stream.sources)
        }
        if not self._sources:
            raise ConfigError("$.streams: no stream is enabled; add a table [streams.NAME]")
        self._notifier = notifier or Notifier.from_environment()
        self._watchdog_ns = watchdog_ns()
        self._status_ns = round(settings.publish.status_interval_s * NS_PER_S)
        self._next_status_ns = self._next_alive_ns = 0
        self._up_since = datetime.now(UTC)

    def run(self) -> None:
        with self._signals(), ExitStack() as opened:
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
        publish = settings.publish
        self._publisher = opened.enter_context(Publisher(publish.endpoint, publish.high_water_mark))
        logger.info("listening endpoint=%s boot_id=%s", self._publisher.endpoint, self._publisher.boot_id)
        self._load(card)
        self._streams = {name: Stream(_windower(card, settings)) for name, _ in self._sources}
        self._runner = opened.enter_context(Runner(self._sources, Wanted.of(card.geometry)))
        self._publisher.send(self._hello())
        # Ready before the first window: a camera that is unplugged when the machine boots must not fail the unit.
        # From here on the watchdog sees to it that windows come.
        self._notifier.ready()
        logger.info("started version=%s model=%s streams=%s", __version__, card.name, ",".join(self._streams))

    def main_loop(self) -> None:
        """Turn until told to stop, or until every stream has ended and its last window is out."""
        while not self.should_exit:
            self._take_arrivals()
            self._tag_due()
            self._publisher.attend()
            self._heartbeat()
            if self._all_flushed():
                logger.info("all-streams-ended")
                return

    def shutdown(self) -> None:
        """Say that it ends; what was opened is closed by its context, last opened first."""
        self._notifier.stopping()
        self._publisher.attend()
        self._publish_status(now_ns())
        windows = {name: stream.tagged for name, stream in self._streams.items()}
        dropped = sum(stream.dropped for stream in self._streams.values())
        logger.info("stopping windows=%d dropped=%d", sum(windows.values()), dropped)

    # What a turn does.

    def _take_arrivals(self) -> None:
        timeout_ms = IDLE_MS
        for _ in range(POLLS_A_TURN):
            arrivals = self._runner.poll(timeout_ms)
            for arrival in arrivals:
                self._take(arrival)
            if not arrivals:
                break
            timeout_ms = 0
        for name, stream in self._streams.items():
            if not stream.flushed and _state(self._runner.state(name)) is State.ENDED:
                stream.take(stream.windower.flush())
                stream.flushed = True

    def _take(self, arrival: Arrival) -> None:
        stream = self._streams[arrival.stream]
        match arrival.what:
            case Frame() | Chunk() as item:
                modality: Modality = "video" if isinstance(item, Frame) else "audio"
                if stream.heeds(modality, arrival):
                    stream.take(stream.windower.push(item))
            case Gap(modalities=modalities):
                for modality in modalities:
                    if stream.heeds(modality, arrival):
                        stream.windower.gap(modality)
            case _:
                pass  # a change of state is logged by the runner, and told with the next status

    def _tag_due(self) -> None:
        """Tag one window of every stream that has one, and publish."""
        for stream in self._streams.values():
            stream.drop_overtaken()
        batch = [(name, stream.due.pop(0)) for name, stream in self._streams.items() if stream.due]
        if not batch:
            return
        scores = self._tagger.tag([window for _, window in batch])
        for (name, window), row in zip(batch, scores, strict=True):
            stream = self._streams[name]
            self._publisher.send(self._scores(name, window, row))
            stream.tagged, stream.untold, stream.sent_ns = stream.tagged + 1, 0, now_ns()

    def _heartbeat(self) -> None:
        now = now_ns()
        # In every turn: a source that was down for less than a status's interval has been down all the same.
        self._note_states(now)
        if now >= self._next_status_ns:
            # From now, not from when it was due: after a long inference one status is enough.
            self._next_status_ns = now + self._status_ns
            self._publish_status(now)
            self._notifier.status(self._summary())
            for name, stream in self._streams.items():
                self._log_drops(name, stream, now)
        if self._watchdog_ns and now >= self._next_alive_ns and self._progressing(now):
            self._next_alive_ns = now + self._watchdog_ns // 4
            self._notifier.alive()

    def _all_flushed(self) -> bool:
        return all(stream.flushed and not stream.due for stream in self._streams.values())

    # What is asked and told.

    def _progressing(self, now: int) -> bool:
        """Whether every stream that is up, and has shown that it can give windows, had one sent lately.

        A stream that is down has its own remedy, the runner's. One that is up and never gave a window (a camera slower
        than the model can use) would not be mended by a restart either, which would only hurt the others.
        """
        window = self._settings.window
        lately_ns = round((2 * window.hop_s + window.wait_s) * NS_PER_S) + self._window_ns + SLACK_NS
        return all(
            stream.up_ns is None or stream.sent_ns is None or now - max(stream.up_ns, stream.sent_ns) < lately_ns
            for stream in self._streams.values()
        )

    def _note_states(self, now: int) -> None:
        for name, stream in self._streams.items():
            if _state(self._runner.state(name)) is not State.UP:
                stream.up_ns = None
            elif stream.up_ns is None:
                stream.up_ns = now

    def _log_drops(self, name: str, stream: Stream, now: int) -> None:
        new = stream.dropped - stream.logged_dropped
        if new and now - stream.logged_ns >= DROPS_LOGGED_EVERY_NS:
            logger.warning("windows-dropped stream=%s count=%d tagged=%d", name, new, stream.tagged)
            stream.logged_dropped, stream.logged_ns = stream.dropped, now

    def _summary(self) -> str:
        """One line for `systemctl status`."""
        states = Counter(str(_state(self._runner.state(name))) for name in self._streams)
        told = ", ".join(f"{count} {state}" for state, count in states.most_common())
        tagged = sum(stream.tagged for stream in self._streams.values())
        dropped = sum(stream.dropped for stream in self._streams.values())
        return f"streams: {told}; {tagged} windows tagged, {dropped} dropped"

    def _publish_status(self, now: int) -> None:
        for name, stream in self._streams.items():
            self._publisher.send(self._status(name, stream, now))

    def _hello(self) -> Hello:
        return Hello(
            version=__version__,
            streams=tuple(self._streams),
            model=self._model,
            hop_s=self._settings.window.hop_s,
            status_interval_s=self._settings.publish.status_interval_s,
            up_since=self._up_since,
        )

    def _scores(self, name: str, window: Window, row: NDArray[np.float32]) -> Scores:
        stream = self._streams[name]
        begin_ns = stream.begin_ns or 0
        return Scores(
            stream=name,
            start=_utc(window.start_ns),
            end=_utc(window.end_ns),
            start_s=(window.start_ns - begin_ns) / NS_PER_S,
            end_s=(window.end_ns - begin_ns) / NS_PER_S,
            latency_ms=round((now_ns() - window.end_ns) / 1e6, 1),
            modalities=window.modalities,
            model=self._model,
            labels=best(row, self._labels, self._settings.publish.top),
            dropped=stream.untold,
        )

    def _status(self, name: str, stream: Stream, now: int) -> Status:
        sources = self._runner.state(name)
        counts = stream.windower.counts
        return Status(
            stream=name,
            time=_utc(now),
            state=_state(sources),
            sources=tuple(
                SourceStatus(
                    each.source,
                    each.state,
                    each.data_age_s,
                    {str(reason): count for reason, count in each.losses.items()},
                    each.dropped,
                )
                for each in sources
            ),
            data_age_s=min((each.data_age_s for each in sources if each.data_age_s is not None), default=None),
            windows=stream.tagged,
            dropped=stream.dropped,
            late=counts.late,
            gaps=counts.gaps,
            subscriptions=self._publisher.subscriptions,
            up_since=self._up_since,
            model=self._model,
        )

    def _load(self, card: Card) -> None:
        """Load the model and let it tag once: the first time is slow, and what is broken shows before "ready"."""
        began_s = time.monotonic()
        from perceiverd.tagger import Tagger  # torch: nothing that only reads this module should wait for it

        model = self._settings.model
        self._model = messages.Model(card.name, card.sha256)
        self._labels = card.labels
        self._window_ns = card.geometry.window_ns
        self._tagger: Tagger = Tagger(card, model.device, model.threads)
        self._tagger.tag([_nothing_to_see(card)])
        # Torch's countless objects are here to stay. Looking through them for garbage would hold up the loop now and
        # then, and the exit by a second.
        gc.freeze()
        logger.info("model-loaded name=%s sha256=%s took_s=%.1f", card.name, card.sha256, time.monotonic() - began_s)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT ask for the end; a second SIGINT is the kernel's, and immediate even amid an inference."""

        def stop(number: int, frame: FrameType | None) -> None:
            logger.info("signal name=%s", signal.Signals(number).name)
            self.should_exit = True
            if number == signal.SIGINT:
                signal.signal(signal.SIGINT, signal.SIG_DFL)

        def reload(number: int, frame: FrameType | None) -> None:
            logger.warning("signal name=SIGHUP ignored=true reason='reloading is not supported yet'")

        handlers = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: reload}
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _windower(card: Card, settings: Config) -> Windower:
    window = settings.window
    patience = Patience(
        wait_ns=round(window.wait_s * NS_PER_S),
        chunk_gap_ns=round(window.chunk_gap_s * NS_PER_S),
        frame_gap_ns=round(window.frame_gap_s * NS_PER_S),
    )
    return Windower(card.geometry, round(window.hop_s * NS_PER_S), patience)


def _nothing_to_see(card: Card) -> Window:
    audio, video = card.geometry.audio, card.geometry.video
    return Window(
        0,
        card.geometry.window_ns,
        np.zeros(audio.samples, np.float32) if audio else None,
        np.zeros((video.frames, video.height, video.width, 3), np.uint8) if video else None,
    )


WORST_FIRST = (State.BACKING_OFF, State.STALLED, State.STARTING, State.UP)


def _state(sources: tuple[SourceState, ...]) -> State:
    """A stream's state: the worst of its sources'; those that have ended count only when all have."""
    there = {source.state for source in sources}
    return next((state for state in WORST_FIRST if state in there), State.ENDED)


def _utc(monotonic_ns: int) -> datetime:
    return datetime.fromtimestamp(utc_ns(monotonic_ns) / NS_PER_S, UTC)


def _log_to_stdout() -> None:
    """One line for each thing that happened, its time in UTC."""
    handler = logging.StreamHandler(sys.stdout)
    form = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s %(message)s", datefmt="%Y-%m-%dT%H:%M:%S")
    form.converter = time.gmtime
    handler.setFormatter(form)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
