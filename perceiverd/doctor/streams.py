"""Checks of FFmpeg's protocols and of each stream's sources, which run for a moment as the daemon would run them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from perceiverd.config import StreamConfig
from perceiverd.core.errors import ConfigError, MediaError, PerceiverdError
from perceiverd.core.media import Chunk, Frame, MediaFormat
from perceiverd.core.secrets import CREDENTIAL, look_up
from perceiverd.doctor.checks import Finding
from perceiverd.sources.decode.files import check_pipe
from perceiverd.sources.process.arrivals import StateChange
from perceiverd.sources.process.restart import RunState
from perceiverd.sources.process.supervisor import Supervisor
from perceiverd.sources.specs import SCHEMES, Pipe, Source, name_of, secrets_of

OTHER_MODALITY_S = 1.5
"""How long to wait for the other modality after the first data."""
POLL_MS = 100
# systemd reads that file as it does for the service; a shell would execute what is in it.
WITH_SECRETS = "systemd-run --pipe --wait -p EnvironmentFile=/etc/perceiverd/secrets.env perceiverd doctor"


def protocols(streams: Mapping[str, StreamConfig]) -> Iterator[Finding]:
    """Whether FFmpeg can open the URL schemes that a configuration may use."""
    from perceiverd.sources.decode.diagnosis import unsupported  # loads FFmpeg

    lacking = unsupported(SCHEMES)
    urls = [getattr(source, "url", "") for stream in streams.values() for source in stream.sources]
    needed = sorted({url.partition("://")[0].lower() for url in urls} & set(lacking))
    if needed:
        what = f"this FFmpeg cannot open {', '.join(needed)}, which a stream needs"
        yield Finding("protocols", "fault", what, "install PyAV's own wheel: pip install --force-reinstall av")
    else:
        opened = ", ".join(scheme for scheme in SCHEMES if scheme not in lacking)
        yield Finding("protocols", "ok", f"FFmpeg opens {opened}" + (f", not {', '.join(lacking)}" if lacking else ""))


def try_sources(
    name: str, sources: tuple[Source, ...], wanted: MediaFormat, environment: Mapping[str, str], timeout_s: float
) -> Iterator[Finding]:
    """Run each source of a stream for a moment, in its own process, as the daemon runs it."""
    for position, source in enumerate(sources):
        check = f"stream {name}" if len(sources) == 1 else f"stream {name} {position + 1}"
        if isinstance(source, Pipe):
            yield _look_at_pipe(check, source)
            continue
        secrets = _secrets(check, source, environment)
        if isinstance(secrets, Finding):
            yield secrets
            continue
        try:
            yield _try_source(check, source, wanted, secrets, timeout_s / len(sources))
        except PerceiverdError as error:
            yield Finding(check, "fault", str(error), "correct what the message names")


def _look_at_pipe(check: str, source: Pipe) -> Finding:
    """Whether there is a FIFO. Reading it would take its data from the daemon, and end its writer."""
    if source.is_standard_input:
        return Finding(check, "ok", "standard input: not tried; it is what you pipe into perceiverd run")
    try:
        check_pipe(Path(source.path))
    except MediaError as error:
        return Finding(check, "fault", str(error))
    return Finding(check, "ok", f"{source.path}: is a FIFO; not tried, because that would take data from the daemon")


def _secrets(check: str, source: Source, environment: Mapping[str, str]) -> dict[str, str] | Finding:
    """The secrets that the source refers to, or a finding about the first one that this process does not have."""
    secrets: dict[str, str] = {}
    for name in secrets_of(source):
        try:
            secrets[name] = look_up(name, environment)
        except ConfigError as error:
            do = "" if name.startswith(CREDENTIAL) else f"as root: {WITH_SECRETS}"
            return Finding(check, "warning", f"{name_of(source)}: not tried: {error}", do)
    return secrets


def _try_source(
    check: str, source: Source, wanted: MediaFormat, secrets: Mapping[str, str], timeout_s: float
) -> Finding:
    """Whether the source delivers data, and which, or why not."""
    began_s = time.monotonic()
    until_s, first_s = began_s + timeout_s, 0.0
    received: set[str] = set()
    with Supervisor({("doctor", 0): source}, wanted, secrets=secrets) as supervisor:
        while len(received) < 2 and time.monotonic() < until_s:
            for arrival in supervisor.poll(POLL_MS):
                match arrival.what:
                    case Frame():
                        received.add("video")
                    case Chunk():
                        received.add("audio")
                    case StateChange(state=RunState.BACKING_OFF | RunState.STALLED, detail=detail) if not received:
                        return _lost(check, name_of(source), detail)
                    case StateChange(state=RunState.ENDED):
                        until_s = 0.0
                    case _:
                        pass
            if received and not first_s:
                first_s = time.monotonic() - began_s
                until_s = min(until_s, time.monotonic() + OTHER_MODALITY_S)
    if received:
        what = f"{name_of(source)}: {' and '.join(sorted(received))}, the first data after {first_s:.1f} s"
        return Finding(check, "ok", what)
    what = f"{name_of(source)}: no data within {timeout_s:.0f} s"
    return Finding(check, "fault", what, "check that it is switched on and sends audio or video that the model can use")


def _lost(check: str, name: str, detail: str) -> Finding:
    """Why a source failed, with its name once; and advice, unless the reason after `; ` already gives some."""
    reason = detail.removeprefix(f"{name}: ")
    named = reason.startswith(("camera ", "microphone"))
    do = "check that it is there and switched on, and that address, user name and password are correct"
    return Finding(check, "fault", reason if named else f"{name}: {reason}", "" if "; " in reason else do)
