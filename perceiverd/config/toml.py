"""Reads a TOML file as a plain table. Knows no option."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from perceiverd.core.errors import ConfigError


def read_table(path: Path, what: str) -> dict[str, Any]:
    """The table in this file. Raises ConfigError, one line that begins with the file; `what` names what cannot be read.

    Python's parser has limits that TOML has not: for nested lists, and for the digits of an integer.
    """
    try:
        # Editors on Windows put a byte order mark first, which TOML does not know.
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        hint = "check the path and the permissions"
        raise ConfigError(f"{path}: cannot read {what}: {error.strerror}; {hint}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}; correct this place") from error
    except RecursionError:
        raise ConfigError(f"{path}: lists or tables are nested too deeply; write fewer brackets") from None
    except ValueError:
        raise ConfigError(f"{path}: an integer has too many digits; shorten it") from None
