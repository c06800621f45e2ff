"""Secrets: `${NAME}` in a URL stands for what belongs into no file that others read, and into no log.

The configuration keeps the references as they are written, so nothing that is printed of it can hold a secret. They are
looked up once, when the daemon loads its configuration, and put into the URL by the source's own process, which takes
them out of whatever it has to say. Nothing here reads the environment by itself: it is given.
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
"""Where systemd puts what a unit's LoadCredential= names."""
LONGEST = 2048
"""Characters; FFmpeg takes URLs of 4096."""
HIDDEN = "***"
"""What stands where a password was written out."""


def references(text: str) -> tuple[str, ...]:
    """The names that this text refers to. Raises ValueError where `${` begins no reference."""
    if "${" in REFERENCE.sub("", text):
        raise ValueError("`${` begins ${NAME}, an environment variable, or ${credential:NAME}, a systemd credential")
    return tuple(REFERENCE.findall(text))


def look_up(name: str, environment: Mapping[str, str]) -> str:
    """What the name stands for. Raises ConfigError where it is not set, set to nothing, or too long for a URL."""
    if name.startswith(CREDENTIAL):
        what, value = name.replace(":", " "), _credential(name.removeprefix(CREDENTIAL), environment)
    else:
        what = f"environment variable {name}"
        if name not in environment:
            raise ConfigError(f"the {what} is not set; set it, for a unit in a file that EnvironmentFile= names")
        value = environment[name]
    if not 0 < len(value) <= LONGEST:
        raise ConfigError(f"the {what} " + ("holds more than a URL can" if value else "is empty"))
    return value


def _credential(name: str, environment: Mapping[str, str]) -> str:
    """What systemd put into the file of this name."""
    directory = environment.get(CREDENTIALS_DIRECTORY)
    if not directory:
        raise ConfigError(f"the credential {name} is for a systemd unit with LoadCredential={name}:FILE")
    try:
        # An editor's line break at the end is no part of a password.
        return (Path(directory) / name).read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise ConfigError(f"the credential {name}: {error.strerror}; name it in LoadCredential={name}:FILE") from None
    except UnicodeDecodeError:
        raise ConfigError(f"the credential {name} is not UTF-8") from None


def filled(url: str, secrets: Mapping[str, str]) -> str:
    """The URL with its secrets in place. Raises KeyError where one is missing.

    As user name, password or part of the query a secret is percent-encoded, so that it may hold any character (FFmpeg
    decodes it); as host, path or the whole URL it is taken as it is.
    """
    bare = REFERENCE.sub(lambda found: "x" * len(found[0]), url)  # so that no mark within a reference misleads
    begin = bare.find("://") + 3 if "://" in bare else len(bare)
    end = next((i for i, sign in enumerate(bare) if i >= begin and sign in "/?#"), len(bare))
    at, query = bare.rfind("@", begin, end), bare.find("?", end)

    def value(found: re.Match[str]) -> str:
        within = begin <= found.start() < at or 0 <= query < found.start()
        return quote(secrets[found[1]], safe="") if within else secrets[found[1]]

    return REFERENCE.sub(value, url)


def redacted(text: str, secrets: Mapping[str, str]) -> str:
    """The text with every secret replaced by its reference, percent-encoded ones too."""
    spelt = {form: name for name, value in secrets.items() for form in (value, quote(value, safe=""))}
    for form in sorted(spelt, key=len, reverse=True):  # one may be part of another
        text = text.replace(form, f"${{{spelt[form]}}}")
    return text


def strays(url: str) -> bool:
    """Whether an @ stands after the host: in the path perhaps, perhaps at the end of a password with / ? or # in it.

    Where such a password begins with digits they are taken for a port, and nothing else tells it from a path.
    """
    return re.search("://[^/?#]*[/?#].*@", url) is not None


def masked(url: str) -> str:
    """The URL with `***` for every password and value of its query that is written out; references stay.

    Where it can't be told how far a password goes, nothing but the scheme is left.
    """
    if strays(url):
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
        if at:  # without a colon it is a token, not a name
            user = f"{name}:{_mask(password)}" if colon else _mask(name)
        path, mark, query = rest[end:].partition("?")
        pairs = [pair.partition("=") for pair in query.split("&")]
        query = "&".join(f"{key}={_mask(value)}" if equals else _mask(key) for key, equals, value in pairs)
        bare = f"{scheme}://{user}{at}{host}{path}{mark}{query}"
    return re.sub("\0(\\d+)\0", lambda found: hidden[int(found[1])], bare)


def _mask(value: str) -> str:
    return value if not value or re.fullmatch("(\0\\d+\0)+", value) else HIDDEN
