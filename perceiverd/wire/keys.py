"""CURVE keys in files: new pairs, a client's keys, and the list of clients that may connect.

The files have ZeroMQ's usual form: `NAME.key` holds the public key, `NAME.key_secret` both keys.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import zmq

from perceiverd.core.errors import ConfigError
from perceiverd.core.logs import log_event

logger = logging.getLogger("perceiverd.wire")

PUBLIC, SECRET = ".key", ".key_secret"
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
KEY = re.compile(rb"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
"""A key in Z85."""
LARGEST_FILE_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A public and a secret key, both in Z85, as ZeroMQ expects them."""

    public: bytes
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Curve:
    """A client's keys for a daemon that encrypts, all in Z85."""

    server: bytes
    """The daemon's public key."""
    public: bytes
    """The client's own public key."""
    secret: bytes = field(repr=False)
    """The client's own secret key."""

    @classmethod
    def read(cls, server_key: Path, secret_key: Path) -> Self:
        """From the daemon's public key file and the client's own secret key file. Raises ConfigError."""
        pair = read_pair(secret_key)
        return cls(read_public(server_key), pair.public, pair.secret)


def read_curve(server_key: Path | None, secret_key: Path | None) -> Curve | None:
    """The keys from both files; None if no file is given. Raises ConfigError if only one is given."""
    if server_key and secret_key:
        return Curve.read(server_key, secret_key)
    if server_key or secret_key:
        raise ConfigError(
            "a daemon that encrypts needs two files: give --server-key (its public key) and --secret-key (your own)"
        )
    return None


def create_pair(name: str, folder: Path) -> tuple[Path, Path]:
    """Write a new pair of keys; returns the files of the public and of the secret key.

    Raises ConfigError if the name is invalid, or if a file exists already: it is never replaced.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"invalid key name {name!r}; use up to 64 letters, digits, '_', '.' and '-'")
    public, secret = (byte.decode() for byte in zmq.curve_keypair())
    public_file, secret_file = folder / f"{name}{PUBLIC}", folder / f"{name}{SECRET}"
    for path in (public_file, secret_file):
        if path.exists():
            raise ConfigError(f"{path}: the file exists already; choose another name, or delete it if it is unused")
    text = f'curve\n    public-key = "{public}"\n'
    _write(public_file, f"# Public key of {name}. Copy it to the programs that {name} talks to.\n{text}", 0o644)
    text += f'    secret-key = "{secret}"\n'
    _write(secret_file, f"# Secret key of {name}. Give it to nobody and copy it nowhere.\n{text}", 0o600)
    return public_file, secret_file


def read_pair(path: Path) -> KeyPair:
    """The keys in a secret key file. Raises ConfigError, also if every user of the machine can read the file."""
    text = _read(path)
    pair = KeyPair(_key(path, text, "public"), _key(path, text, "secret"))
    if path.stat().st_mode & 0o007:
        raise ConfigError(f"{path}: every user can read this secret key; run: chmod 600 {path}")
    return pair


def read_public(path: Path) -> bytes:
    """The public key in a file, in Z85. Raises ConfigError."""
    return _key(path, _read(path), "public")


class AllowList:
    """The public keys in a folder, one `NAME.key` for each client. Files may be added and removed at any time."""

    def __init__(self, folder: Path) -> None:
        """Raises ConfigError if the folder or a key in it cannot be read."""
        self._folder = folder
        self._last_error = ""
        self._stamps = self._scan()
        self._keys = {name: read_public(folder / name) for name in self._stamps}
        self._names = self._by_key()
        self._log_read()

    def name_of(self, key: bytes) -> str | None:
        """The client that has this public key, given in Z85; None if it is not on the list."""
        return self._names.get(key)

    def refresh(self) -> bool:
        """Read new and changed files again. Returns whether a key is no longer on the list.

        An unreadable folder or file is logged, and its clients stay on the list.
        """
        stamps = self._scan_or_keep()
        if stamps == self._stamps:
            return False
        before = set(self._names)
        self._keys = {name: key for name, key in self._keys.items() if name in stamps}
        for name, stamp in stamps.items():
            if stamp != self._stamps.get(name):
                self._read_again(name)
        self._stamps, self._names = stamps, self._by_key()
        self._log_read()
        return not before <= set(self._names)

    def _scan_or_keep(self) -> dict[str, tuple[int, int, int]]:
        try:
            return self._scan()
        except ConfigError as error:
            if str(error) != self._last_error:
                log_event(logger, logging.ERROR, "client-keys-unread", reason=error)
            self._last_error = str(error)
            return self._stamps

    def _read_again(self, name: str) -> None:
        try:
            self._keys[name] = read_public(self._folder / name)
        except ConfigError as error:
            log_event(logger, logging.ERROR, "client-key-unread", reason=error)

    def _log_read(self) -> None:
        clients = list(self._names.values())
        log_event(logger, logging.INFO, "client-keys-read", folder=str(self._folder), clients=clients)

    def _by_key(self) -> dict[bytes, str]:
        return {key: name.removesuffix(PUBLIC) for name, key in sorted(self._keys.items())}

    def _scan(self) -> dict[str, tuple[int, int, int]]:
        """For each key file its change time, size and inode, which reveal a change. Raises ConfigError."""
        try:
            with os.scandir(self._folder) as entries:
                names = [each.name for each in entries if each.name.endswith(PUBLIC)]
        except OSError as error:
            raise ConfigError(
                f"{self._folder}: cannot read the folder of client keys: {error.strerror}; "
                "create the folder, or set publish.client_keys"
            ) from error
        found = {}
        for name in names:
            with contextlib.suppress(OSError):  # a dangling link must not keep other clients from the list
                found[name] = (self._folder / name).stat()
        # The change time covers the contents, and permissions that were repaired.
        return {name: (stat.st_ctime_ns, stat.st_size, stat.st_ino) for name, stat in found.items()}


def _write(path: Path, text: str, mode: int) -> None:
    try:
        # The file is created with these permissions, so that nobody else can read it at any moment.
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="ascii") as file:  # noqa: PTH123 - a descriptor
            file.write(text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot write the key: {error.strerror}") from error


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(LARGEST_FILE_BYTES)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot read the key: {error.strerror}; create it with `perceiverd keys new`"
        ) from error


def _key(path: Path, text: bytes, which: str) -> bytes:
    found = re.search(rb'^\s*%b-key\s*=\s*"([^"]*)"' % which.encode(), text, re.MULTILINE)
    if not found or not KEY.fullmatch(found[1]):
        raise ConfigError(f"{path}: no {which} key in this file; expected a file from `perceiverd keys new`")
    return found[1]
