"""Programs that render sounds: run, bounded in time, their absence and failure told in one line."""

import logging
import subprocess
from functools import cache

from perceiverd.core.errors import PerceiverdError

log = logging.getLogger(__name__)

QUERY_S = 60


class FetchError(PerceiverdError):
    """A package or program that can't be had or used; the message is one line."""


def output(command: list[str], *, text: bytes = b"", timeout_s: float, env: dict[str, str] | None = None) -> bytes:
    """What the program wrote to its standard output; raises FetchError."""
    try:
        done = subprocess.run(command, input=text, capture_output=True, timeout=timeout_s, check=False, env=env)
    except FileNotFoundError as error:
        raise FetchError(f"needs the program {command[0]}; it comes with the Debian package of its name") from error
    except subprocess.TimeoutExpired as error:
        raise FetchError(f"{command[0]}: did not end within {timeout_s:.0f} s") from error
    if done.returncode:
        reason = (done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"])[-1]
        raise FetchError(f"{command[0]}: {reason}")
    return done.stdout


@cache
def check(package: str) -> None:
    """Warn where the Debian package "NAME VERSION" isn't installed in this version: another may sound otherwise."""
    name, _, version = package.partition(" ")
    try:
        command = ["dpkg-query", "--show", "--showformat=${Version}", name]
        done = subprocess.run(command, capture_output=True, text=True, timeout=QUERY_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise FetchError(f"dpkg-query: did not end within {QUERY_S} s") from error
    except FileNotFoundError as error:
        raise FetchError(
            "needs the program dpkg-query: what renders sounds is checked by its Debian package"
        ) from error
    if done.returncode or not done.stdout:
        raise FetchError(f"needs the Debian package {name}; install it with: apt-get install {name}")
    if done.stdout != version:
        log.warning("package=%s version=%s recipe=%s the sounds may differ", name, done.stdout, version)
