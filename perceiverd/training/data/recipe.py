"""What a model was trained on: packages, folders, and the rules that label their sounds.

A recipe is data (TOML). It knows names, versions, licences and globs; it opens no sound.
"""

import fnmatch
import re
from pathlib import Path
from typing import Literal

import msgspec

from perceiverd.core.errors import ConfigError
from perceiverd.core.labels import ontology

Split = Literal["train", "validation", "test", "rendered", "never"]
"""Rendered sounds that are held out are a split of their own, so that they are never counted as real."""


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """One package or folder of sounds, and what its file names tell."""

    kind: Literal["deb", "pypi", "folder", "synthesis", "soundfont", "speech"]
    name: str
    licence: str
    version: str = ""
    """The package's version, which alone is taken; empty for folders."""
    sha256: str = ""
    """Of the package's file; any, if empty."""
    program: str = ""
    """What renders it, "NAME VERSION" of its Debian package: a soundfont's player, a voice's speaker."""
    voices: tuple[str, ...] = ()
    """Of synthetic speech: "language:voice", by the names of its program."""
    split: Split = "train"
    recording: Literal["stem", "folder", "source"] = "stem"
    """What counts as one source recording, the unit that is never divided between splits."""
    author: str = ""
    """Who made the sounds, where neither a rule nor the package's own copyright file tells."""
    credits: tuple[tuple[str, str, str], ...] = ()
    """Rules (glob, licence, author) for what the copyright file doesn't tell file by file."""
    credit: str = ""
    """Regular expression with the groups licence and author, for paths that tell."""
    group: Literal["environmental", "extra", "rendered"] = "extra"
    """Of environmental and rendered sounds the labels tell all that is heard; rendered ones are not real."""
    only: tuple[str, ...] = ()
    """Globs of the paths to take; all if empty."""
    labels: tuple[tuple[str, ...], ...] = ()
    """Rules (glob, label, ...), first match wins; a sound without a match is unlabelled."""
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    """Globs of paths whose split differs from the source's."""

    def takes(self, path: str) -> bool:
        return not self.only or _matches(path, self.only)

    def split_of(self, path: str) -> Split:
        if _matches(path, self.never):
            return "never"
        if _matches(path, self.test):
            return "test"
        if _matches(path, self.validation):
            return "validation"
        return self.split

    def labels_of(self, path: str) -> tuple[str, ...]:
        """AudioSet names that the path vouches for; empty if it vouches for none."""
        for glob, *names in self.labels:
            if _matches(path, (glob,)):
                return tuple(names)
        return ()

    def credit_of(self, path: str) -> tuple[str, str] | None:
        """(licence, author) by the recipe's own rules, None where they don't tell."""
        for glob, licence, author in self.credits:
            if _matches(path, (glob,)):
                return licence, author
        if self.credit and (match := re.search(self.credit, path)):
            return match["licence"], match["author"]
        return None

    def recording_of(self, path: str) -> str:
        parts = {"stem": Path(path).stem, "folder": str(Path(path).parent), "source": ""}
        return f"{self.name}:{parts[self.recording]}"


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """All sources of one corpus."""

    source: tuple[Source, ...]
    exclude: tuple[str, ...] = ()
    """SHA-256 of files that must never be trained on (what the bundled demonstration clip was made of)."""


def load(path: Path) -> Recipe:
    """Read a recipe and check every label against the ontology; raises ConfigError."""
    try:
        recipe = msgspec.toml.decode(path.read_bytes(), type=Recipe)
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the recipe: {error.strerror}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    known = {label.name for label in ontology().labels}
    for source in recipe.source:
        _check_credit(path, source)
        for glob, *names in source.labels:
            for name in names:
                if name not in known:
                    raise ConfigError(f"{path}: source {source.name}: {glob!r}: no AudioSet label {name!r}")
    return recipe


def _check_credit(path: Path, source: Source) -> None:
    try:
        groups = re.compile(source.credit).groupindex
    except re.error as error:
        raise ConfigError(f"{path}: source {source.name}: credit: {error}") from error
    if source.credit and set(groups) != {"licence", "author"}:
        raise ConfigError(f"{path}: source {source.name}: credit: needs the groups licence and author")


def _matches(path: str, globs: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(path.lower(), glob.lower()) for glob in globs)
