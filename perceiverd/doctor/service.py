"""Checks of the installed service: rights, snapshots, secrets, state and systemd units. They change nothing."""

from __future__ import annotations

import grp
import os
import pwd
import stat
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from perceiverd.config import Config
from perceiverd.core.errors import ConfigError, ModelError
from perceiverd.daemon import snapshots
from perceiverd.doctor.checks import Finding
from perceiverd.model.card import load_card
from perceiverd.sources.specs import File, Pipe, Url

UNIT, STREAM_UNITS = "perceiverd.service", "perceiverd@*.service"
"""The unit of the service, and the pattern of the units that run one stream each."""
OPTIONAL_UNITS = ("perceiverd-history.service", "perceiverd-web.service")
"""Units that are reported if they are enabled or run."""
USER, LABELS_GROUP = "perceiverd", "perceiverd-labels"
SECRETS = Path("/etc/perceiverd/secrets.env")
STATE, RUN = Path("/var/lib/perceiverd"), Path("/run/perceiverd")
PYTHON = Path("/opt/perceiverd/bin/python")
SYSTEMD = Path("/run/systemd/system")
"""Exists if systemd runs (sd_booted(3))."""
HIDDEN = ("/home/", "/root/", "/tmp/")
"""Folders that the unit's hardening hides from the service."""
MIN_FREE_MB = 100
SYSTEMCTL_TIMEOUT_S = 5.0
CONFIG_STATUS = "78"
"""Exit status of a daemon whose configuration is invalid."""


def rights(settings: Config, path: Path | None) -> Iterator[Finding]:
    """Whether the service's user may read what it needs; if that user does not exist, whether this user may."""
    user = f"the service's user {USER}" if _become_service_user() else f"user {_user_name(os.geteuid())}"
    closed = [str(each) for each in dict.fromkeys(_needed_files(settings, path)) if not _readable(each)]
    if closed:
        do = f"chgrp {USER}, then chmod g+r for files and g+rx for folders, also for the folders above"
        yield Finding("rights", "fault", f"{user} may not read {', '.join(closed)}", do)
    else:
        yield Finding("rights", "ok", f"{user} may read the configuration, the model and all files that they name")


def _needed_files(settings: Config, path: Path | None) -> Iterator[Path]:
    if path:
        yield path
    try:
        folder = load_card(settings.model.name).folder
        yield from (folder, *folder.iterdir())
    except (ModelError, OSError):
        pass  # the check of the model reports it
    yield from (Path(each) for each in (settings.publish.secret_key, settings.publish.client_keys) if each)
    for source in (source for stream in settings.streams.values() if stream.enabled for source in stream.sources):
        if isinstance(source, File):
            yield Path(source.path)
        if isinstance(source, Pipe) and not source.is_standard_input:
            yield Path(source.path)
        if isinstance(source, Url) and source.ca_file:
            yield Path(source.ca_file)


def snapshots_folder(settings: Config, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Whether snapshots can be saved, if a stream saves any."""
    if SYSTEMD.is_dir():  # the unit gets this variable; this process does not
        environment = {"STATE_DIRECTORY": str(STATE), **environment}
    if settings.snapshots.directory is None and SYSTEMD.is_dir() and not STATE.exists():
        return  # systemd makes it when the service starts for the first time
    _become_service_user()
    try:
        folder = snapshots.check(settings, environment)
    except ConfigError as error:
        do = "set snapshots.directory to a folder of the service's user, with mode 700 or 2750; or disable them"
        yield Finding("snapshots", "fault", str(error), do)
    else:
        if folder is not None:
            yield Finding("snapshots", "ok", f"snapshots can be saved in {folder}")


def secrets_file(path: Path = SECRETS) -> Iterator[Finding]:
    """Whether only root can read the service's passwords."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if mode & 0o077:
        yield Finding("secrets", "fault", f"other users than its owner can read {path}", f"chmod 600 {path}")
    else:
        yield Finding("secrets", "ok", f"only its owner can read {path}")


def state_folder(path: Path = STATE) -> Iterator[Finding]:
    """Whether only its owner can open the state folder, and whether there is space left."""
    try:
        mode, disk = path.stat().st_mode, os.statvfs(path)
    except PermissionError:
        return
    except OSError:
        what = f"{path} does not exist yet; systemd makes it when the service starts for the first time"
        yield Finding("state", "ok", what)
        return
    free_mb = disk.f_bavail * disk.f_frsize >> 20
    if mode & 0o067:  # the group may pass through it, to the snapshots
        yield Finding("state", "fault", f"other users than its owner can open {path}", f"chmod 710 {path}")
    elif free_mb < MIN_FREE_MB:
        yield Finding("state", "warning", f"{path}: only {free_mb} MB are free on this disk", "free some space")
    else:
        yield Finding("state", "ok", f"only its owner can list {path}; {free_mb} MB are free")


def units(python: Path = PYTHON) -> Iterator[Finding]:
    """What systemd reports about the service: its unit, and the units of one stream that are loaded."""
    if not SYSTEMD.is_dir():
        yield Finding("service", "ok", "systemd does not run here")
        return
    properties = _systemctl("show", UNIT, "--property=LoadState,ActiveState,UnitFileState")
    if properties is None:
        what = f"systemctl did not answer within {SYSTEMCTL_TIMEOUT_S:g} s"
        yield Finding("service", "warning", what, "run systemctl status")
        return
    if (load_state := properties.get("LoadState", "unknown")) != "loaded":
        yield Finding("service", "ok", f"{UNIT} is not installed ({load_state}); `make install` as root installs it")
        return
    real_python = os.path.realpath(python)
    if real_python.startswith(HIDDEN):
        what = f"its Python is {real_python}, and the unit has no access to that folder"
        yield Finding("service", "fault", what, "make uninstall, then make install PYTHON=/usr/bin/python3")
    yield _unit(UNIT)
    for unit in OPTIONAL_UNITS:
        properties = _systemctl("show", unit, "--property=LoadState,ActiveState,UnitFileState") or {}
        wanted = properties.get("UnitFileState") == "enabled" or properties.get("ActiveState", "inactive") != "inactive"
        if properties.get("LoadState") == "loaded" and wanted:
            yield _unit(unit)
    for line in _systemctl("list-units", "--plain", "--no-legend", "--all", STREAM_UNITS) or {}:
        yield _unit(line.split()[0])


def _unit(unit: str) -> Finding:
    """The state of one unit."""
    names = "ActiveState,SubState,Result,ExecMainStatus,NRestarts,StatusText,UnitFileState"
    properties = _systemctl("show", unit, f"--property={names}") or {}
    active, sub, text = (properties.get(name, "") for name in ("ActiveState", "SubState", "StatusText"))
    log = f"journalctl -u {unit} -n 50"
    if active in ("active", "reloading"):
        return _running_unit(unit, text, properties.get("NRestarts", ""), log)
    if active == "activating" and sub != "auto-restart":
        return Finding("service", "ok", f"{unit} is starting: {text}")
    if active == "inactive":
        do = f"systemctl enable --now {unit}"
        return Finding("service", "warning", f"{unit} is installed but does not run", do)
    status = properties.get("ExecMainStatus")
    if status == CONFIG_STATUS:
        what = f"{unit} refused its configuration; it stays stopped until you correct the file and start it"
        return Finding("service", "fault", what, f"see the finding `config`, or {log}")
    what = f"{unit} fails ({properties.get('Result')}, exit status {status}; {active}, {sub})"
    return Finding("service", "fault", what, log)


def _running_unit(unit: str, text: str, restarts: str, log: str) -> Finding:
    if "refused" in text:
        do = "correct the file, then run systemctl reload"
        return Finding("service", "fault", f"{unit} runs, but: {text}", do)
    if restarts not in ("", "0"):
        return Finding("service", "warning", f"{unit} runs, but systemd restarted it {restarts} times: {text}", log)
    return Finding("service", "ok", f"{unit} runs: {text}")


def is_running() -> bool:
    """Whether the service, or one of its units of one stream, runs or is starting."""
    states = "--state=active,activating,reloading"
    return bool(_systemctl("list-units", "--plain", "--no-legend", states, UNIT, STREAM_UNITS))


def _systemctl(*arguments: str) -> dict[str, str] | None:
    """The properties that it prints, or the lines of a list as keys; None if it does not answer."""
    command = ["systemctl", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SYSTEMCTL_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return dict(line.partition("=")[::2] for line in done.stdout.splitlines() if line.strip())


def _readable(path: Path) -> bool:
    """Whether this process may read it. A missing file counts as readable: another check reports it."""
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except PermissionError:
        return False
    except OSError:
        return True
    return os.access(path, os.R_OK | (os.X_OK if is_folder else 0))


def _become_service_user() -> bool:
    """Switch this process to the service's user if it exists and root runs this process; whether it worked."""
    try:
        user = pwd.getpwnam(USER)
        os.setgroups([user.pw_gid, grp.getgrnam(LABELS_GROUP).gr_gid])
        os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
        os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    except (KeyError, PermissionError):
        return False
    return True


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
