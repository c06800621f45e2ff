"""Which events are wanted: by stream, label with those below it in the ontology, time and score. Knows no SQL."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from perceiverd.core.errors import ConfigError, nearest
from perceiverd.core.labels import Label, ontology


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Conditions that must all hold. Each one is left out by its default."""

    streams: Collection[str] = ()
    """`machine/stream`, or `stream` for that stream of every machine."""
    mids: Collection[str] | None = None
    """The labels, see `find_labels`; None for all."""
    after: datetime | None = None
    """The event began at this time or later."""
    before: datetime | None = None
    """The event began before this time."""
    least_peak: float = 0.0
    """Its highest score was at least this, 0..1."""
    state: Literal["open", "ended", "end not received"] | None = None


def find_labels(wanted: Iterable[str], stored: Sequence[Label] = ()) -> frozenset[str]:
    """The mids of these labels, given by name or mid in any case, and of all labels below them in the ontology.

    `stored` are the labels of the history, which may have names of the operator's own. Raises ConfigError for an
    unknown label, with a suggestion.
    """
    known = [*ontology().labels, *stored]
    keys = {key: label.mid for label in known for key in (label.mid.casefold(), label.name.casefold())}
    found: set[str] = set()
    for name in wanted:
        if (mid := keys.get(name.casefold())) is None:
            near = nearest(name, (label.name for label in known))
            hint = f"did you mean '{near}'?" if near else "`perceiverd history stats` lists those with events"
            raise ConfigError(f"unknown label '{name}'; {hint}")
        found |= {mid, *descendants(mid)}
    return frozenset(found)


def descendants(mid: str) -> frozenset[str]:
    """The mids of all classes below this one in AudioSet's ontology, without itself."""
    known = ontology()
    return frozenset(label.mid for label in known.labels if mid in known.ancestors(label.mid))
