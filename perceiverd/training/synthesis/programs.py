"""Runs the programs that render sounds, with a time limit. If one is missing or fails, the error is one line."""

import logging
import subprocess
from functools import cache

from perceiverd.core.errors import PerceiverdError
from perceiverd.core.logs import log_event

logger = logging.getLogger("perceiverd.training")

QUERY_S = 60


class FetchError(PerceiverdError):
    """A package or program is missing or cannot be used."""


def output(command: list[str], *, text: bytes = b"", timeout_s: float, env: dict[str, str] | None = None) -> bytes:
    """Run a program and return its standard output. Raises FetchError if it is missing, fails or takes too long."""
    try:
        done = subprocess.run(command, input=text, capture_output=True, timeout=timeout_s, check=False, env=env)
    except FileNotFoundError as error:
        raise FetchError(f"needs the program {command[0]}; install the Debian package of that name") from error
    except subprocess.TimeoutExpired as error:
        raise FetchError(f"{command[0]}: did not end within {timeout_s:.0f} s") from error
    if done.returncode:
        reason = (done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"])[-1]
        raise FetchError(f"{command[0]}: {reason}")
    return done.stdout


@cache
def check(package: str) -> None:
    """Warn if the Debian package "NAME VERSION" is installed in another version, which may sound different.

    Raises FetchError if it is not installed.
    """
    name, _, version = package.partition(" ")
    try:
        command = ["dpkg-query", "--show", "--showformat=${Version}", name]
        done = subprocess.run(command, capture_output=True, text=True, timeout=QUERY_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise FetchError(f"dpkg-query: did not end within {QUERY_S} s") from error
    except FileNotFoundError as error:
        raise FetchError(
            "needs the program dpkg-query, which reports the versions of Debian packages; use Debian or Ubuntu"
        ) from error
    if done.returncode or not done.stdout:
        raise FetchError(f"needs the Debian package {name}; run apt-get install {name}")
    if done.stdout != version:
        log_event(logger, logging.WARNING, "renderer-differs", package=name, installed=done.stdout, recipe=version)
