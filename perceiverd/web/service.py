"""`perceiverd web`: serves the page for months. One event loop, and a few threads that read the history."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import uvicorn

from perceiverd.core import logs
from perceiverd.core.errors import ConfigError, WireError
from perceiverd.core.http import Server
from perceiverd.core.logs import log_event
from perceiverd.core.signals import stopping
from perceiverd.core.systemd import Notifier, watchdog_ns
from perceiverd.history.opening import FILE
from perceiverd.web.api import Api
from perceiverd.web.application import application
from perceiverd.web.connections import KEEP_ALIVE_S, MOST_HEAD_BYTES, BoundedProtocol
from perceiverd.web.correcting import Correcting
from perceiverd.web.feed import Feed
from perceiverd.web.guard import GuardRules, RefusedRequests
from perceiverd.web.live_events import LiveEvents
from perceiverd.web.media import MediaFolders
from perceiverd.web.metrics import STUCK_S, pages
from perceiverd.web.passwords import PasswordHash
from perceiverd.web.pool import ReaderPool
from perceiverd.web.sessions import Sessions
from perceiverd.web.settings import ServerConfig, WebConfig, check_safe, corrections_of
from perceiverd.web.watching import Watcher

logger = logging.getLogger("perceiverd.web")

DAY_S = 86_400.0
STOP_S = 3
"""How long requests may go on after a signal to stop."""
BACKLOG = 128
STATUS_EVERY_S = 5.0


def run(config: WebConfig) -> int:
    """Serve the page until a signal arrives; returns 0. Raises ConfigError or WireError, one line each."""
    check_safe(config.server)
    logs.to_stdout()
    # uvicorn's lines about each wrong request would fill the log; what it refuses is counted.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    with ExitStack() as stack:
        api = api_of(config)
        stack.callback(api.pool.close)
        listening = stack.enter_context(bound(config.server))
        refused = RefusedRequests()
        rules = GuardRules(
            sessions=api.sessions,
            needs_password=api.password is not None,
            hosts=frozenset(host.lower() for host in config.server.hosts),
            prefix=config.server.prefix,
            proxies=config.server.proxies,
            is_unix=config.server.socket_path is not None,
        )
        if config.metrics.address is not None:
            metrics = stack.enter_context(Server(*config.metrics.address, pages(api, refused)))
            log_event(logger, logging.INFO, "metrics-listening", host=config.metrics.address[0], port=metrics.port)
        server = PageServer(
            uvicorn.Config(
                application(api, rules, refused),
                http=BoundedProtocol,
                ws="none",
                loop="asyncio",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=STOP_S,
                h11_max_incomplete_event_size=MOST_HEAD_BYTES,
                backlog=BACKLOG,
            ),
            api,
        )
        place = config.server.listen
        if config.server.socket_path is None:
            host = config.server.address[0]
            place = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}{config.server.prefix}/"
        names = list(config.daemons)
        log_event(logger, logging.INFO, "web-started", page=place, daemons=names, password=api.password is not None)
        if not config.server.is_local:
            log_event(logger, logging.WARNING, "web-unencrypted", page=place)
        with asyncio.Runner() as runner:
            runner.run(_serve(server, api, listening))
        log_event(logger, logging.INFO, "web-stopping")
    return 0


class PageServer(uvicorn.Server):
    """uvicorn's server with our signals, systemd's notifications, and an end for browsers that follow."""

    def __init__(self, config: uvicorn.Config, api: Api) -> None:
        super().__init__(config)
        self._api = api
        self._notifier = Notifier.from_environment()
        self._watchdog_s = (watchdog_ns() or 0) / 1e9
        self._next_alive_s = self._next_status_s = 0.0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._notifier.ready()

    async def on_tick(self, counter: int) -> bool:
        now_s = time.monotonic()
        if self._watchdog_s and now_s >= self._next_alive_s and now_s - self._api.watcher.ticked_s < STUCK_S:
            self._next_alive_s = now_s + self._watchdog_s / 4
            self._notifier.alive()
        if now_s >= self._next_status_s:
            self._next_status_s = now_s + STATUS_EVERY_S
            machines = self._api.watcher.machines.values()
            heard = sum(not machine.silent for machine in machines)
            followers = len(self._api.watcher.feed.followers)
            self._notifier.status(f"{heard} of {len(machines)} daemons reached; {followers} browsers follow")
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._notifier.stopping()
        self._api.watcher.feed.close()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT end the server, with status 0; uvicorn's own handlers would not log them."""
        with stopping(logger, self._stop):
            yield

    def _stop(self) -> None:
        self.should_exit = True


def api_of(config: WebConfig) -> Api:
    """Everything that handlers use; nothing is opened or connected yet. Raises ConfigError or WireError."""
    feed = Feed()
    pool = ReaderPool(Path(config.history.directory) / FILE)
    media = MediaFolders.of(config.daemons)
    watcher = Watcher(config.daemons, feed)
    folder = corrections_of(config)
    correcting = None if folder is None else Correcting.of(folder, config.daemons)
    judge = (lambda event: None) if correcting is None else correcting.verdict
    live_events = LiveEvents(feed, pool, media, judge)
    watcher.on_event = live_events.receive
    file = config.server.password_file
    return Api(
        watcher=watcher,
        pool=pool,
        media=media,
        sessions=Sessions(config.server.session_days * DAY_S),
        password=None if file is None else PasswordHash.read(Path(file)),
        prefix=config.server.prefix,
        correcting=correcting,
        live_events=live_events,
    )


async def _serve(server: PageServer, api: Api, listening: socket.socket) -> None:
    async with asyncio.TaskGroup() as tasks:
        others = [tasks.create_task(api.watcher.run()), tasks.create_task(api.live_events.run())]
        await server.serve([listening])
        for task in others:
            task.cancel()


@contextmanager
def bound(server: ServerConfig) -> Iterator[socket.socket]:
    """The socket at which the page is served. Raises WireError, one line, if it cannot be bound."""
    try:
        made = _bound_path(server.socket_path) if server.socket_path else _bound_address(*server.address)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)  # asyncio and socket add to `strerror`
        raise WireError(f"cannot serve the page at {server.listen}: {why}; choose another server.listen") from error
    with made:
        yield made
    if server.socket_path:
        with contextlib.suppress(OSError):
            server.socket_path.unlink()


def _bound_address(host: str, port: int) -> socket.socket:
    return socket.create_server(
        (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=BACKLOG
    )


def _bound_path(path: Path) -> socket.socket:
    """A Unix socket for the owner and the group. The socket of a server that no longer runs is replaced."""
    if path.is_socket():
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(path)) == 0:
                raise ConfigError(f"{path}: another program serves there; choose another server.listen")
        path.unlink()
    elif path.exists():
        raise ConfigError(f"{path}: there is a file that is no socket; choose another server.listen")
    made = socket.socket(socket.AF_UNIX)
    before = os.umask(stat.S_IXUSR | stat.S_IXGRP | stat.S_IRWXO)
    try:
        made.bind(str(path))
        made.listen(BACKLOG)
    except BaseException:
        made.close()
        raise
    finally:
        os.umask(before)
    return made
