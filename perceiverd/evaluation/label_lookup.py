"""Labels by mid or by name, as a person writes them in a manifest. An unknown name becomes a new class."""

from __future__ import annotations

import re
from collections.abc import Sequence

from perceiverd.core.errors import nearest
from perceiverd.core.labels import Label

OWN = "user/"
"""Prefix of the mid of a class that AudioSet lacks."""
NEAR = 0.8
"""From this likeness on (difflib's ratio, 0..1) to a known name, an unknown name counts as a spelling mistake."""
LONGEST_NAME = 100


class LabelLookup:
    """Finds labels by mid and by name, and adds new classes."""

    def __init__(self, known: Sequence[Label]) -> None:
        self._count = len(known)
        self._mids = {label.mid: label for label in known}
        self._names = {label.name.casefold(): label for label in known}
        self._new: dict[str, Label] = {}

    @property
    def new(self) -> tuple[Label, ...]:
        """The added classes, with indices after those of the known labels."""
        return tuple(self._new.values())

    def mid_of(self, word: str, *, may_add: bool) -> str:
        """The mid of a label given by mid or name. `may_add`: an unknown name becomes a new class.

        Raises ValueError with a message for the user.
        """
        word = " ".join(word.split())
        found = self._mids.get(word) or self._names.get(word.casefold())
        if found:
            return found.mid
        if not may_add or word.startswith("/"):
            raise ValueError(f"unknown label {word!r}; {self._hint(word)}")
        if word.startswith(OWN):
            return self._add(word, word.removeprefix(OWN).replace("-", " "))
        if near := nearest(word, self._names, NEAR):
            meant = self._names[near].name
            raise ValueError(
                f"unknown label {word!r}; did you mean {meant!r}? For a class of your own write {_own_mid(word)}"
            )
        return self._add(_own_mid(word), word)

    def _hint(self, word: str) -> str:
        near = None if word.startswith("/") else nearest(word, self._names)
        return f"did you mean {self._names[near].name!r}?" if near else "it is not one of AudioSet's 527"

    def _add(self, mid: str, name: str) -> str:
        if not name or len(name) > LONGEST_NAME or '"' in name or not name.isprintable() or mid == OWN:
            raise ValueError(f"label {name!r}: a name has 1 to {LONGEST_NAME} printable characters and no quotes")
        if mid in self._mids:  # a class that an earlier fit added, in another spelling
            return mid
        self._new.setdefault(mid, Label(self._count + len(self._new), mid, name))
        return mid


def _own_mid(name: str) -> str:
    return OWN + re.sub(r"\W+", "-", name.casefold()).strip("-")
