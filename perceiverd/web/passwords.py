"""The password: a file with its scrypt hash. Knows no session.

scrypt is in Python's standard library; the parameters are those that OWASP recommends (Password Storage Cheat Sheet,
2024: N = 2^17, r = 8, p = 1), which take 128 MB and some tenths of a second.
"""

from __future__ import annotations

import contextlib
import grp
import hashlib
import hmac
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from perceiverd.core.errors import ConfigError

COST, BLOCK, PARALLEL = 1 << 17, 8, 1
MEMORY_BYTES = 256 * COST * BLOCK
SALT_BYTES = 16
LEAST, LONGEST = 8, 1024
"""Characters of a password."""
LINE = re.compile(r"scrypt\$(\d{1,9})\$(\d{1,3})\$(\d{1,3})\$([0-9a-f]{32,128})\$([0-9a-f]{64,256})\n?")
SERVICE_GROUP = "perceiverd-web"


@dataclass(frozen=True, slots=True)
class PasswordHash:
    """What is kept of a password."""

    salt: bytes
    digest: bytes
    cost: int = COST
    block: int = BLOCK
    parallel: int = PARALLEL

    @classmethod
    def of(cls, password: str) -> PasswordHash:
        """With a new salt. Raises ConfigError if the password is too short or too long."""
        if not LEAST <= len(password) <= LONGEST:
            raise ConfigError(f"a password has {LEAST} to {LONGEST} characters, not {len(password)}")
        salt = secrets.token_bytes(SALT_BYTES)
        return cls(salt, _scrypt(password, salt, COST, BLOCK, PARALLEL))

    @classmethod
    def read(cls, path: Path) -> PasswordHash:
        """From a file. Raises ConfigError, one line."""
        advice = f"run `perceiverd web password {path}`"
        try:
            text = path.read_text(encoding="ascii")
        except OSError as error:
            raise ConfigError(f"{path}: cannot read the password: {error.strerror}; {advice}") from error
        except UnicodeDecodeError:
            text = ""
        if not (found := LINE.fullmatch(text)):
            raise ConfigError(f"{path}: has no password hash; {advice}")
        cost, block, parallel = (int(found[i]) for i in (1, 2, 3))
        if 128 * cost * block > MEMORY_BYTES or not 1 <= parallel <= 16 or cost < 2 or cost & (cost - 1) or not block:
            raise ConfigError(f"{path}: the hash has parameters that are not ours; {advice}")
        return cls(bytes.fromhex(found[4]), bytes.fromhex(found[5]), cost, block, parallel)

    def write(self, path: Path) -> None:
        """Into a file that only its owner may read, and the service's group if root writes it. Raises ConfigError."""
        line = f"scrypt${self.cost}${self.block}${self.parallel}${self.salt.hex()}${self.digest.hex()}\n"
        new = path.with_name(f"{path.name}.new")
        try:
            new.unlink(missing_ok=True)
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                with contextlib.suppress(KeyError, PermissionError):
                    os.fchown(descriptor, -1, grp.getgrnam(SERVICE_GROUP).gr_gid)
                    os.fchmod(descriptor, 0o640)
                file.write(line)
                file.flush()
                os.fsync(descriptor)
            os.replace(new, path)
        except OSError as error:
            raise ConfigError(f"{path}: cannot write: {error.strerror}; give another file") from error

    def matches(self, password: str) -> bool:
        """Whether this is the password. Takes some tenths of a second, and other threads run meanwhile."""
        if len(password) > LONGEST:
            return False
        return hmac.compare_digest(
            self.digest, _scrypt(password, self.salt, self.cost, self.block, self.parallel, len(self.digest))
        )


def _scrypt(password: str, salt: bytes, cost: int, block: int, parallel: int, length: int = 64) -> bytes:
    # "surrogatepass": JSON may hold half a surrogate pair, which must be a wrong password and no fault.
    data = password.encode("utf-8", "surrogatepass")
    return hashlib.scrypt(data, salt=salt, n=cost, r=block, p=parallel, maxmem=MEMORY_BYTES, dklen=length)
