"""Where the daemon is put: its configuration's places, sockets, rights, and the unit. Looks, and changes nothing."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import socket
import stat
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from perceiverd.config import Config
from perceiverd.core.errors import ConfigError, ModelError
from perceiverd.daemon import snapshots
from perceiverd.doctor.checks import Finding
from perceiverd.model.card import load_card
from perceiverd.sources.specs import File, Url
from perceiverd.wire.keys import AllowList, read_pair

UNIT, USER, LABELS_GROUP = "perceiverd.service", "perceiverd", "perceiverd-labels"
SECRETS = Path("/etc/perceiverd/secrets.env")
STATE, RUN = Path("/var/lib/perceiverd"), Path("/run/perceiverd")
PYTHON = Path("/opt/perceiverd/bin/python")
SYSTEMD = Path("/run/systemd/system")
"""There where systemd is at work."""
HIDDEN = ("/home/", "/root/", "/tmp/")
"""What a hardened unit does not see."""
SYSTEMCTL_S = 5.0
IPC_PATH_BYTES = 107
CONFIG_STATUS = "78"
LOG = f"journalctl -u {UNIT} -n 50"


def labels_endpoint(settings: Config) -> Iterator[Finding]:
    """Whether labels could go out where they should."""
    endpoint, check = settings.publish.endpoint, "labels"
    scheme, _, address = endpoint.partition("://")
    if scheme == "tcp":
        host, _, port = address.rpartition(":")
        yield _tcp(check, "" if host == "*" else host.strip("[]"), 0 if port == "*" else int(port), endpoint)
    elif address.startswith(("@", "*")):
        yield Finding(check, "ok", f"{endpoint} needs no file")
    else:
        yield _ipc(check, Path(address))
    if settings.publish.secret_key and settings.publish.client_keys:
        try:
            read_pair(Path(settings.publish.secret_key))
            AllowList(Path(settings.publish.client_keys))
        except ConfigError as error:
            yield Finding(
                "keys", "fault", str(error), "`perceiverd keys new` makes keys; the service's user reads them"
            )
        else:
            yield Finding("keys", "ok", "the daemon's key and those of its clients can be read")


def metrics_endpoint(settings: Config) -> Iterator[Finding]:
    """Whether metrics could be served where they should."""
    if address := settings.metrics.address:
        yield _tcp("metrics", *address, f"http://{settings.metrics.endpoint}")


def rights(settings: Config, path: Path | None) -> Iterator[Finding]:
    """Whether the service's user, or where there is none this one, may read what it has to."""
    who = _become_the_service() or f"user {_name_of(os.geteuid())}"
    wanted = [path] if path else []
    try:
        folder = load_card(settings.model.name).folder
        wanted += [folder, *folder.iterdir()]
    except (ModelError, OSError):
        pass  # the model's own check tells
    wanted += [Path(each) for each in (settings.publish.secret_key, settings.publish.client_keys) if each]
    sources = [source for stream in settings.streams.values() if stream.enabled for source in stream.sources]
    wanted += [Path(source.path) for source in sources if isinstance(source, File)]
    wanted += [Path(source.ca_file) for source in sources if isinstance(source, Url) and source.ca_file]
    closed = [str(each) for each in dict.fromkeys(wanted) if _closed(each)]
    if closed:
        do = f"chgrp {USER} and chmod g+r for files, g+rx for folders, on the way to them too"
        yield Finding("rights", "fault", f"{who} may not read {', '.join(closed)}", do)
    else:
        yield Finding("rights", "ok", f"{who} may read the configuration, the model and what else is named")


def snapshots_folder(settings: Config, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Whether pictures could be kept, where a stream wants it."""
    if SYSTEMD.is_dir():  # what the unit is given, and whoever looks is not
        environment = {"STATE_DIRECTORY": str(STATE), **environment}
    if settings.snapshots.directory is None and SYSTEMD.is_dir() and not STATE.exists():
        return  # systemd makes it with the service's first start
    _become_the_service()
    try:
        where = snapshots.check(settings, environment)
    except ConfigError as error:
        do = "write snapshots.directory, a folder for the service's user alone (chmod 700), or switch snapshots off"
        yield Finding("snapshots", "fault", str(error), do)
    else:
        if where is not None:
            yield Finding("snapshots", "ok", f"pictures of events can be kept in {where}")


def secrets_file(path: Path = SECRETS) -> Iterator[Finding]:
    """Whether the passwords that the service is given are root's alone."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if mode & 0o077:
        yield Finding("secrets", "fault", f"{path} can be read by others than its owner", f"chmod 600 {path}")
    else:
        yield Finding("secrets", "ok", f"{path} is its owner's alone")


def state(path: Path = STATE) -> Iterator[Finding]:
    """Whether what is stored is stored for nobody else, and fits."""
    try:
        there = path.stat()
        room = os.statvfs(path)
    except PermissionError:
        return
    except OSError:
        yield Finding("state", "ok", f"{path} is not there yet; systemd makes it with the service's first start")
        return
    free = room.f_bavail * room.f_frsize >> 20
    if there.st_mode & 0o077:
        yield Finding("state", "fault", f"{path} can be looked into by others", f"chmod 700 {path}")
    elif free < 100:
        yield Finding("state", "warning", f"{path}: only {free} MB are left on its disk", "make room there")
    else:
        yield Finding("state", "ok", f"{path} is its owner's alone, {free} MB are free")


def service(python: Path = PYTHON) -> Iterator[Finding]:
    """How systemd sees the service: the unit, and those of one stream that are loaded."""
    if not SYSTEMD.is_dir():
        yield Finding("service", "ok", "systemd is not at work here")
        return
    shown = _systemctl("show", UNIT, "--property=LoadState,ActiveState,UnitFileState")
    if shown is None:
        yield Finding("service", "warning", f"systemctl gives no answer within {SYSTEMCTL_S:g} s", "systemctl status")
        return
    if shown.get("LoadState") != "loaded":
        told = shown.get("LoadState", "unknown")
        yield Finding("service", "ok", f"{UNIT} is not installed ({told}); `make install` does, as root")
        return
    home = os.path.realpath(python)
    if home.startswith(HIDDEN):
        yield Finding(
            "service", "fault", f"its Python is {home}, which a unit without home folders can't run",
            "make install PYTHON=/usr/bin/python3, after make uninstall",
        )  # fmt: skip
    yield _unit(UNIT)
    listed = _systemctl("list-units", "--plain", "--no-legend", "--all", "perceiverd@*.service") or {}
    for line in listed:
        yield _unit(line.split()[0])


def _unit(unit: str) -> Finding:
    names = "ActiveState,SubState,Result,ExecMainStatus,NRestarts,StatusText,UnitFileState"
    shown = _systemctl("show", unit, f"--property={names}") or {}
    active, sub, restarts = (shown.get(name, "") for name in ("ActiveState", "SubState", "NRestarts"))
    text, log = shown.get("StatusText", ""), LOG.replace(UNIT, unit)
    if active in ("active", "reloading"):
        if "refused" in text:
            return Finding("service", "fault", f"{unit} runs, but: {text}", "mend the file, then systemctl reload")
        if restarts not in ("", "0"):
            return Finding("service", "warning", f"{unit} runs, and was started again {restarts} times: {text}", log)
        return Finding("service", "ok", f"{unit} runs: {text}")
    if active == "activating" and sub != "auto-restart":
        return Finding("service", "ok", f"{unit} is starting: {text}")
    if active == "inactive":
        do = f"systemctl enable --now {unit}"
        return Finding("service", "warning", f"{unit} is installed and does not run", do)
    if shown.get("ExecMainStatus") == CONFIG_STATUS:
        return Finding(
            "service", "fault", f"{unit} refused its configuration and waits for you", f"see above, or {log}"
        )
    told = f"{shown.get('Result')}, exit status {shown.get('ExecMainStatus')}"
    return Finding("service", "fault", f"{unit} fails ({told}; {active}, {sub})", log)


def _at_work() -> bool:
    """Whether the service, or one of its units of one stream, runs or is about to."""
    states = "--state=active,activating,reloading"
    return bool(_systemctl("list-units", "--plain", "--no-legend", states, UNIT, "perceiverd@*.service"))


def _systemctl(*arguments: str) -> dict[str, str] | None:
    """The properties it prints; of a list the lines as keys. None where it gives no answer."""
    try:
        done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, timeout=SYSTEMCTL_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return dict(line.partition("=")[::2] for line in done.stdout.splitlines() if line.strip())


def _ipc(check: str, path: Path) -> Finding:
    if len(os.fsencode(path)) > IPC_PATH_BYTES:
        return Finding(check, "fault", f"{path} is too long for a socket", "set publish.endpoint to a shorter path")
    try:
        mode = path.lstat().st_mode
    except PermissionError:
        do = f"usermod -aG {LABELS_GROUP} USER, and log in anew"
        return Finding(check, "warning", f"this user may not look into {path.parent}", do)
    except OSError:
        return _place(check, path)
    if not stat.S_ISSOCK(mode):
        do = "remove it, or set publish.endpoint"
        return Finding(check, "fault", f"{path} is a file and no socket: labels can't go out there", do)
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(2)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            what = f"{path} was left behind by a daemon that was killed; the next one removes it"
            return Finding(check, "ok", what)
        except PermissionError:
            do = f"usermod -aG {LABELS_GROUP} USER, and log in anew"
            return Finding(check, "warning", f"a daemon publishes at {path}, and this user may not listen", do)
        except OSError as error:
            return Finding(check, "fault", f"{path}: {error.strerror or error}", "end who holds it, or remove it")
    if _at_work():
        return Finding(check, "ok", f"a daemon publishes at {path}; a second one would need another publish.endpoint")
    do = "end it (ss -lxp tells which), or set publish.endpoint"
    return Finding(check, "fault", f"another daemon, which is not the service, publishes at {path} already", do)


def _place(check: str, path: Path) -> Finding:
    """Whether a socket could be made where there is none yet."""
    folder = path.parent
    if not folder.is_dir():
        if folder == RUN and SYSTEMD.is_dir():
            return Finding(check, "ok", f"{folder} is not there; systemd makes it when the service starts")
        if folder == RUN:
            what = f"{folder} is not there, nor is systemd at work here, which would make it"
            return Finding(check, "warning", what, f"mkdir {folder}, or set publish.endpoint")
        do = f"mkdir -p {folder}, or set publish.endpoint"
        return Finding(check, "fault", f"{folder}, where labels should go out, is missing", do)
    if not os.access(folder, os.W_OK | os.X_OK):
        do = "run as the service's user, or set publish.endpoint"
        return Finding(check, "warning", f"this user may not make {path}", do)
    return Finding(check, "ok", f"{path} can be made")


def _tcp(check: str, host: str, port: int, endpoint: str) -> Finding:
    try:
        addresses = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = addresses[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror as error:
        return Finding(check, "fault", f"{endpoint}: {error.strerror}", "name an address of this machine")
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            if _at_work():
                do = f"if it is not the service itself: ss -tlnp 'sport = :{port}' tells who has it"
                return Finding(check, "warning", f"{endpoint} is taken by a program that runs", do)
            option = "publish.endpoint" if check == "labels" else "metrics.endpoint"
            do = f"end it (ss -tlnp 'sport = :{port}' tells which), or set {option}"
            return Finding(check, "fault", f"{endpoint} is taken by another program than the service", do)
        do = "use an address of this machine and a port above 1023"
        return Finding(check, "fault", f"{endpoint} cannot be bound: {error.strerror}", do)
    return Finding(check, "ok", f"{endpoint} is free")


def _closed(path: Path) -> bool:
    """Whether it may not be read. What is not there may: that it is missing is another check's."""
    try:
        folder = stat.S_ISDIR(path.stat().st_mode)
    except PermissionError:
        return True
    except OSError:
        return False
    return not os.access(path, os.R_OK | (os.X_OK if folder else 0))


def _become_the_service() -> str:
    """Turn this process, where it is root's, into one of the service's user; empty where that can't be."""
    try:
        user = pwd.getpwnam(USER)
        os.setgroups([user.pw_gid, grp.getgrnam(LABELS_GROUP).gr_gid])
        os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
        os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    except (KeyError, PermissionError):
        return ""
    return f"the service's user {USER}"


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
