"""CURVE keys in files: pairs that are made, the list of clients that are let in.

Files are as other programs of ZeroMQ write them: `NAME.key` holds the public key, `NAME.key_secret` both.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import zmq

from perceiverd.core.errors import ConfigError

logger = logging.getLogger(__name__)

PUBLIC, SECRET = ".key", ".key_secret"
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
KEY = re.compile(rb"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
LARGEST_FILE = 65_536


@dataclass(frozen=True, slots=True)
class KeyPair:
    """Both in Z85, as ZeroMQ takes them."""

    public: bytes
    secret: bytes = field(repr=False)


def new(name: str, folder: Path) -> tuple[Path, Path]:
    """Make a pair; the files of the public and of the secret key. Never replaces a file. Raises ConfigError."""
    if not NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is no name for a key: up to 64 letters, digits, _, . and -")
    public, secret = (byte.decode() for byte in zmq.curve_keypair())
    public_file, secret_file = folder / f"{name}{PUBLIC}", folder / f"{name}{SECRET}"
    for path in (public_file, secret_file):
        if path.exists():
            raise ConfigError(f"{path}: is there already; whoever uses that key would be locked out")
    said = f'curve\n    public-key = "{public}"\n'
    _write(public_file, f"# Public key of {name}: for everybody it is to deal with.\n{said}", 0o644)
    said += f'    secret-key = "{secret}"\n'
    _write(secret_file, f"# Secret key of {name}: for nobody else, and for no other machine.\n{said}", 0o600)
    return public_file, secret_file


def read_pair(path: Path) -> KeyPair:
    """The keys in a secret file. Raises ConfigError, also where every user of the machine may read it."""
    text = _read(path)
    pair = KeyPair(_key(path, text, "public"), _key(path, text, "secret"))
    if path.stat().st_mode & 0o007:
        raise ConfigError(f"{path}: every user may read this secret key; chmod 600 {path}")
    return pair


def read_public(path: Path) -> bytes:
    """The public key in a file, in Z85. Raises ConfigError."""
    return _key(path, _read(path), "public")


class AllowList:
    """The public keys in a folder, `NAME.key` each; they may come and go while it is in use."""

    def __init__(self, folder: Path) -> None:
        """Raises ConfigError where the folder or a key in it can't be read."""
        self._folder = folder
        self._trouble = ""
        self._seen = self._stamps()
        self._keys = {name: read_public(folder / name) for name in self._seen}
        self._names = self._named()
        logger.info("client-keys-read folder=%s clients=%s", folder, ",".join(self._names.values()) or "-")

    def name_of(self, key: bytes) -> str | None:
        """Whose key, in Z85, this is; None where it is nobody's on the list."""
        return self._names.get(key)

    def refresh(self) -> bool:
        """Read again what has changed; whether a key is no longer on the list.

        What can't be read is told in the log, and stays as it was.
        """
        try:
            stamps = self._stamps()
        except ConfigError as error:
            stamps = self._seen  # as long as the folder is away, those who were on the list are
            if str(error) != self._trouble:
                logger.error("client-keys-unread reason='%s'", error)
            self._trouble = str(error)
        if stamps == self._seen:
            return False
        before = set(self._names)
        for name in [name for name in self._keys if name not in stamps]:
            del self._keys[name]
        for name in (name for name, stamp in stamps.items() if stamp != self._seen.get(name)):
            try:
                self._keys[name] = read_public(self._folder / name)
            except ConfigError as error:
                logger.error("client-key-unread reason='%s'", error)
        self._seen, self._names = stamps, self._named()
        logger.info("client-keys-read folder=%s clients=%s", self._folder, ",".join(self._names.values()) or "-")
        return not before <= set(self._names)

    def _named(self) -> dict[bytes, str]:
        return {key: name.removesuffix(PUBLIC) for name, key in sorted(self._keys.items())}

    def _stamps(self) -> dict[str, tuple[int, int, int]]:
        """By which a file that has changed is known."""
        try:
            with os.scandir(self._folder) as entries:
                names = [each.name for each in entries if each.name.endswith(PUBLIC)]
        except OSError as error:
            told = f"cannot read the folder of clients' keys: {error.strerror}"
            raise ConfigError(f"{self._folder}: {told}; make the folder, or set publish.client_keys") from error
        found = {}
        for name in names:
            with contextlib.suppress(OSError):  # a dangling link is no key, and must not keep others on the list
                found[name] = (self._folder / name).stat()
        # The change time moves with the contents, and with rights that are mended too.
        return {name: (stat.st_ctime_ns, stat.st_size, stat.st_ino) for name, stat in found.items()}


def _write(path: Path, text: str, mode: int) -> None:
    try:
        # Made with these rights: there is no moment at which others could read it.
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="ascii") as file:  # noqa: PTH123 - a descriptor
            file.write(text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot write the key: {error.strerror}") from error


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(LARGEST_FILE)
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the key: {error.strerror}; `perceiverd keys new` makes one") from error


def _key(path: Path, text: bytes, which: str) -> bytes:
    found = re.search(rb'^\s*%b-key\s*=\s*"([^"]*)"' % which.encode(), text, re.MULTILINE)
    if not found or not KEY.fullmatch(found[1]):
        raise ConfigError(f"{path}: holds no {which} key; expected a file that `perceiverd keys new` made")
    return found[1]
