"""What a configuration needs outside its file: `config check` reports before a start what `run` would report.

It calls the functions of the daemon, so both report the same faults in the same words.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from perceiverd import config
from perceiverd.core.errors import PerceiverdError
from perceiverd.core.media import MediaFormat
from perceiverd.core.paths import SERVICE_ENDPOINT
from perceiverd.daemon import reload, snapshots
from perceiverd.sources.decode.files import check_pipe
from perceiverd.sources.process.arrivals import Key, SourceState
from perceiverd.sources.process.restart import RunState
from perceiverd.sources.process.supervisor import Supervisor
from perceiverd.sources.specs import File, Pipe, Source
from perceiverd.wire import endpoint, keys

OPEN_S = 20.0
"""How long files may take to open, all together: their processes start at once."""
POLL_MS = 50


class Fault(NamedTuple):
    """Something that is missing or wrong outside the file."""

    message: str
    """One line."""
    ends_run: bool
    """Whether `run` would end with it here: no other user and no other environment changes it."""


def faults(settings: config.Config, wanted: MediaFormat, environment: Mapping[str, str]) -> Iterator[Fault]:
    """All faults. Starts each file for a moment in a process of its own, and reads no pipe.

    Keys, folders and secrets may be there for the service, which has another user and another environment.
    """
    publish = settings.publish
    if publish.endpoint != SERVICE_ENDPOINT:  # systemd makes its folder when the service starts
        yield from _of_endpoint(publish.endpoint)
    looks: list[Callable[[], object]] = [
        partial(config.secrets_of, settings, environment),
        partial(snapshots.check, settings, environment),
    ]
    if publish.secret_key and publish.client_keys:
        looks.append(partial(keys.read_pair, Path(publish.secret_key)))
        looks.append(partial(keys.AllowList, Path(publish.client_keys)))
    sources = reload.sources_of(reload.enabled(settings))
    pipes = [source for source in sources.values() if isinstance(source, Pipe) and not source.is_standard_input]
    looks += [partial(check_pipe, Path(each.path)) for each in pipes]
    for look in looks:
        if fault := _fault(look):
            yield Fault(fault, ends_run=False)
    yield from _of_files({key: source for key, source in sources.items() if isinstance(source, File)}, wanted)


def _fault(look: Callable[[], object]) -> str:
    try:
        look()
    except PerceiverdError as error:
        return str(error)
    return ""


def _of_endpoint(address: str) -> Iterator[Fault]:
    try:
        endpoint.check(address)
    except endpoint.EndpointInUseError as error:  # by the daemon that is to be reloaded, perhaps
        yield Fault(str(error), ends_run=False)
    except PerceiverdError as error:
        yield Fault(str(error), ends_run=True)


def _of_files(files: Mapping[Key, Source], wanted: MediaFormat) -> Iterator[Fault]:
    """Why files cannot be read. The daemon starts without them, and tries them again and again."""
    if not files:
        return
    until_s = time.monotonic() + OPEN_S
    with Supervisor(files, wanted) as supervisor:
        while time.monotonic() < until_s:
            supervisor.poll(POLL_MS)
            states = [_state(supervisor, key) for key in files]
            if all(each.state in (RunState.UP, RunState.ENDED) or each.losses for each in states):
                break
    for each in states:
        if each.losses:
            yield Fault(each.detail, ends_run=False)


def _state(supervisor: Supervisor, key: Key) -> SourceState:
    return next(each for each in supervisor.state(key[0]) if each.position == key[1])
