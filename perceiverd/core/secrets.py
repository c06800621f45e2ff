"""Secrets: `${NAME}` in a URL stands for a value that must not be in a file that others read, or in a log.

The configuration keeps the references, so printing it shows no secret. The daemon looks them up once, when it loads its
configuration. The process of the source puts them into the URL, and removes them from everything that it reports. No
function here reads the environment by itself: the caller passes it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from perceiverd.core.errors import ConfigError

REFERENCE = re.compile(r"\$\{([A-Za-z_]\w*|credential:[\w.-]+)\}", re.ASCII)
CREDENTIAL = "credential:"
CREDENTIALS_DIRECTORY = "CREDENTIALS_DIRECTORY"
"""The environment variable with the folder of the unit's credentials (LoadCredential=)."""
LONGEST = 2048
"""Most characters of a secret. FFmpeg accepts URLs of 4096."""
HIDDEN = "***"
"""Replaces a password that is written out."""


def references(text: str) -> tuple[str, ...]:
    """The names that this text refers to. Raises ValueError for a `${` that begins no reference."""
    if "${" in REFERENCE.sub("", text):
        raise ValueError(
            "invalid `${`; write ${NAME} for an environment variable or ${credential:NAME} for a systemd credential"
        )
    return tuple(REFERENCE.findall(text))


def look_up(name: str, environment: Mapping[str, str]) -> str:
    """The value of this name. Raises ConfigError if it is missing, empty, or too long for a URL."""
    if name.startswith(CREDENTIAL):
        what, value = name.replace(":", " "), _credential(name.removeprefix(CREDENTIAL), environment)
    else:
        what = f"environment variable {name}"
        if name not in environment:
            raise ConfigError(f"the {what} is not set; set it, for the service in /etc/perceiverd/secrets.env")
        value = environment[name]
    if not 0 < len(value) <= LONGEST:
        raise ConfigError(f"the {what} " + (f"is longer than {LONGEST} characters" if value else "is empty"))
    return value


def _credential(name: str, environment: Mapping[str, str]) -> str:
    """The content of the credential's file."""
    directory = environment.get(CREDENTIALS_DIRECTORY)
    if not directory:
        raise ConfigError(f"the credential {name} exists only in a systemd unit with LoadCredential={name}:FILE")
    try:
        # Editors add a line break at the end, which is not part of a password.
        return (Path(directory) / name).read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise ConfigError(
            f"the credential {name}: {error.strerror}; add LoadCredential={name}:FILE to the unit"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"the credential {name} is not UTF-8; write it as UTF-8") from None


def filled(url: str, secrets: Mapping[str, str]) -> str:
    """The URL with values in place of references. Raises KeyError if one is missing.

    In the user name, the password and the query a value is percent-encoded, so that it may have any character (FFmpeg
    decodes it). As host, path or the whole URL it stays as it is.
    """
    bare = REFERENCE.sub(lambda found: "x" * len(found[0]), url)  # a reference may contain a colon
    begin = bare.find("://") + 3 if "://" in bare else len(bare)
    end = next((i for i, sign in enumerate(bare) if i >= begin and sign in "/?#"), len(bare))
    at, query = bare.rfind("@", begin, end), bare.find("?", end)

    def value(found: re.Match[str]) -> str:
        within = begin <= found.start() < at or 0 <= query < found.start()
        return quote(secrets[found[1]], safe="") if within else secrets[found[1]]

    return REFERENCE.sub(value, url)


def redacted(text: str, secrets: Mapping[str, str]) -> str:
    """The text with each secret replaced by its reference, also where it is percent-encoded."""
    spelt = {form: name for name, value in secrets.items() for form in (value, quote(value, safe=""))}
    for form in sorted(spelt, key=len, reverse=True):  # the longest first, because one secret may be part of another
        text = text.replace(form, f"${{{spelt[form]}}}")
    return text


def has_stray_at(url: str) -> bool:
    """Whether there is an @ after the host: in the path, or at the end of a password that has / ? or # in it.

    The two cannot be distinguished if the password begins with digits, because those look like a port.
    """
    return re.search("://[^/?#]*[/?#].*@", url) is not None


def masked(url: str) -> str:
    """The URL with `***` for each password and each value in its query. References stay.

    If the end of a password is unclear, only the scheme is left.
    """
    if has_stray_at(url):
        return f"{url.partition('://')[0]}://..."
    hidden: list[str] = []

    def hide(found: re.Match[str]) -> str:
        hidden.append(found[0])
        return f"\0{len(hidden) - 1}\0"

    bare = REFERENCE.sub(hide, url)
    scheme, sep, rest = bare.partition("://")
    if sep:
        end = next((i for i, sign in enumerate(rest) if sign in "/?#"), len(rest))
        user, at, host = rest[:end].rpartition("@")
        name, colon, password = user.partition(":")
        if at:  # a user name without a colon is a token
            user = f"{name}:{_mask(password)}" if colon else _mask(name)
        path, mark, query = rest[end:].partition("?")
        pairs = [pair.partition("=") for pair in query.split("&")]
        query = "&".join(f"{key}={_mask(value)}" if equals else _mask(key) for key, equals, value in pairs)
        bare = f"{scheme}://{user}{at}{host}{path}{mark}{query}"
    return re.sub("\0(\\d+)\0", lambda found: hidden[int(found[1])], bare)


def _mask(value: str) -> str:
    return value if not value or re.fullmatch("(\0\\d+\0)+", value) else HIDDEN
