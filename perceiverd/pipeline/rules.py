"""What makes an event: the options that the operator writes, and the same as arrays, one entry a label.

Options are written for all labels, for a stream, for a label, or for a label of a stream; the more particular one
holds: what is said of a label counts for more than what is said of a stream. A label's threshold is the model's own
(calibrated with it) until the operator writes another.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from perceiverd.core.errors import ConfigError
from perceiverd.core.labels import Label, ontology
from perceiverd.core.media import NS_PER_S
from perceiverd.model.card import Calibration

YEAR_S = 31_536_000
Share = Annotated[float, Meta(gt=0, lt=1)]
"""A threshold of 0 would let everything pass, one of 1 nothing."""
Seconds = Annotated[float, Meta(ge=0, le=YEAR_S)]
Length = Annotated[float, Meta(gt=0, le=YEAR_S)]
Logits = Annotated[float, Meta(gt=0, le=20)]

DENIED = (
    "Silence",
    "Inside, small room",
    "Inside, large room or hall",
    "Inside, public space",
    "Outside, urban or manmade",
    "Outside, rural or natural",
)
"""What holds all day wherever a microphone stands is no event. Everything else that a microphone may hear is one."""


class LabelOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[events.labels.NAME]` and `[streams.STREAM.events.labels.NAME]`: what is special about one label."""

    on: Share | None = None
    off: Share | None = None
    min_duration_s: Seconds | None = None
    merge_gap_s: Seconds | None = None
    cooldown_s: Seconds | None = None
    max_duration_s: Length | None = None
    subsume: bool | None = None


class StreamOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[streams.STREAM.events]`: what is special about one stream. A list takes the place of the general one."""

    on: Share | None = None
    off: Share | None = None
    hysteresis: Logits | None = None
    smoothing_s: Seconds | None = None
    min_duration_s: Seconds | None = None
    merge_gap_s: Seconds | None = None
    cooldown_s: Seconds | None = None
    max_duration_s: Length | None = None
    update_s: Length | None = None
    max_gap_s: Seconds | None = None
    subsume: bool | None = None
    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] | None = None
    labels: dict[str, LabelOptions] = {}


class EventOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[events]`: when a label has an event."""

    on: Share | None = None
    """An event may begin if the smoothed score reaches this threshold, between 0 and 1. Without it, each label has its
    own threshold from the model."""
    off: Share | None = None
    """An event fades if the smoothed score falls below this threshold, which must be below on. Without it, the
    threshold follows from on and hysteresis."""
    hysteresis: Logits = 1.0
    """Distance of off below on, in logits. With 1.0, on = 0.5 gives off = 0.27, and on = 0.9 gives off = 0.77."""
    smoothing_s: Seconds = 0.5
    """Time constant of the smoothing, in seconds: after this time a window has lost 63 % of its weight in the smoothed
    score. 0 switches smoothing off."""
    min_duration_s: Seconds = 0.5
    """An event begins if the smoothed score stays at or above on for this many seconds. With 0 a single window is
    enough."""
    merge_gap_s: Seconds = 2.0
    """If the label comes back within this many seconds after it faded, the same event continues. The end of an event is
    published only after this time."""
    cooldown_s: Seconds = 0.0
    """After an event has ended, its label has no other event for this many seconds."""
    max_duration_s: Length = 3600.0
    """Longest event, in seconds. A longer one is split: it ends, and a new event begins that names it in continues."""
    update_s: Length = 10.0
    """Time between two update messages of an open event, in seconds."""
    max_gap_s: Seconds = 5.0
    """An event ends if no window comes for this many seconds."""
    subsume: bool = True
    """Whether an event of a more specific label replaces the event of a general one, as Bark replaces Dog."""
    allow: tuple[str, ...] = ()
    """The only labels that have events, by name or mid. If the list is empty, all labels have events. A label includes
    the labels below it: with Dog alone in the list, every bark gives an event of Dog."""
    deny: tuple[str, ...] = DENIED
    """Labels that have no events. They do not raise the score of a more general label either. The default labels hold
    all day at most places."""
    labels: dict[str, LabelOptions] = {}
    """Options that differ for one label, by its name or mid."""


@dataclass(frozen=True, eq=False)
class Rules:
    """The options of one stream, resolved for a model; arrays have an entry a label, in the order of the model."""

    labels: tuple[Label, ...]
    smoothing_s: float
    update_ns: int
    max_gap_ns: int
    on: NDArray[np.float64]
    off: NDArray[np.float64]
    min_duration_ns: NDArray[np.int64]
    merge_gap_ns: NDArray[np.int64]
    cooldown_ns: NDArray[np.int64]
    max_duration_ns: NDArray[np.int64]
    subsume: NDArray[np.bool_]
    allowed: NDArray[np.bool_]
    denied: NDArray[np.bool_]
    above: NDArray[np.intp]
    """With `below`: every pair of a label and one below it in the ontology that isn't denied, however far below."""
    below: NDArray[np.intp]

    def rolled_up(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """The scores, each label at least as sure as the surest below it."""
        rolled = scores.copy()
        np.maximum.at(rolled, self.above, scores[self.below])
        return rolled

    def any_below(self, which: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """For each label whether one below it is among these."""
        found = np.zeros(len(self.labels), np.bool_)
        found[self.above[which[self.below]]] = True
        return found

    def those_below(self, index: int) -> NDArray[np.intp]:
        found: NDArray[np.intp] = self.below[self.above == index]
        return found


def resolve(
    labels: tuple[Label, ...],
    calibration: Sequence[Calibration],
    general: EventOptions,
    stream: StreamOptions | None = None,
    name: str = "",
) -> Rules:
    """The rules of the stream of this name. Raises ConfigError where an option names no label, or contradicts another.

    A label may be denied that AudioSet knows and the model lacks: the general list is for any model.
    """
    stream = stream or StreamOptions()
    places = ("$.events", f"$.streams.{name}.events")
    known = _Names(labels)
    common = {field: value for field, value in _fields(general) if field not in ("allow", "deny", "labels")}
    common |= {field: value for field, value in _fields(stream) if field not in ("allow", "deny", "labels")}
    own: dict[int, dict[str, Any]] = {}
    for place, options in zip(places, (general.labels, stream.labels), strict=True):
        for label, option in options.items():
            own.setdefault(known.index(label, f"{place}.labels.{label}"), {}).update(_own(option, common["hysteresis"]))
    shared = _own(general, common["hysteresis"]) | _own(stream, common["hysteresis"])
    each = [
        {"on": sure.threshold, "off": lower(sure.threshold, common["hysteresis"])} | shared | own.get(i, {})
        for i, sure in enumerate(calibration)
    ]
    for one, rule in zip(labels, each, strict=True):
        if rule["off"] >= rule["on"]:
            where = places[1] if name and stream != StreamOptions() else places[0]
            raise ConfigError(f"{where}: off, {rule['off']:g}, is not below on, {rule['on']:g}, for {one.name}")
    allow, deny = ("allow", general.allow, stream.allow), ("deny", general.deny, stream.deny)
    allowed, denied = (
        known.mask(given if given is not None else usual, f"{places[given is not None]}.{option}", option == "deny")
        for option, usual, given in (allow, deny)
    )
    above, below = lineage(labels)
    counted = ~denied[below]
    return Rules(
        labels=labels,
        smoothing_s=common["smoothing_s"],
        update_ns=_ns(common["update_s"]),
        max_gap_ns=_ns(common["max_gap_s"]),
        on=np.array([rule["on"] for rule in each]),
        off=np.array([rule["off"] for rule in each]),
        min_duration_ns=np.array([_ns(rule["min_duration_s"]) for rule in each]),
        merge_gap_ns=np.array([_ns(rule["merge_gap_s"]) for rule in each]),
        cooldown_ns=np.array([_ns(rule["cooldown_s"]) for rule in each]),
        max_duration_ns=np.array([_ns(rule["max_duration_s"]) for rule in each]),
        subsume=np.array([bool(rule["subsume"]) for rule in each]),
        allowed=allowed if allowed.any() else ~allowed,
        denied=denied,
        above=above[counted],
        below=below[counted],
    )


OF_A_LABEL = LabelOptions.__struct_fields__


def _fields(options: EventOptions | StreamOptions | LabelOptions) -> Iterable[tuple[str, Any]]:
    """The options that are set."""
    return ((field, value) for field, value in msgspec.structs.asdict(options).items() if value is not None)


def _own(options: EventOptions | StreamOptions | LabelOptions, hysteresis: float) -> dict[str, Any]:
    """The options that a label can have and that are set; whoever says `on` says `off` too, if only by `hysteresis`."""
    found = {field: value for field, value in _fields(options) if field in OF_A_LABEL}
    return {"off": lower(found["on"], hysteresis), **found} if "on" in found else found


def lower(threshold: float, logits: float) -> float:
    """The threshold so many logits below this one: the odds at it are e to the `logits` times smaller."""
    return 1 / (1 + math.exp(logits) * (1 / threshold - 1))


def _ns(seconds: float) -> int:
    return round(seconds * NS_PER_S)


class _Names:
    """Finds labels by name or mid."""

    def __init__(self, labels: Sequence[Label]) -> None:
        self._indices: Mapping[str, int] = {
            **{label.name: label.index for label in labels},
            **{label.mid: label.index for label in labels},
        }
        self._count = len(labels)

    def index(self, label: str, where: str) -> int:
        if (index := self._indices.get(label)) is not None:
            return index
        same = {known.casefold(): known for known in self._indices}
        near = get_close_matches(label.casefold(), same, n=1)
        hint = f"did you mean `{same[near[0]]}`?" if near else "see the model's labels.tsv for their names"
        raise ConfigError(f"{where}: the model has no label {label!r}; {hint}")

    def mask(self, labels: Iterable[str], where: str, lenient: bool) -> NDArray[np.bool_]:
        """Which labels these are; a lenient list may name some of AudioSet's that the model lacks."""
        mask = np.zeros(self._count, np.bool_)
        for label in labels:
            if lenient and label not in self._indices and label in _audioset():
                continue
            mask[self.index(label, where)] = True
        return mask


@cache
def _audioset() -> frozenset[str]:
    return frozenset(name for label in ontology().labels for name in (label.name, label.mid))


@cache
def lineage(labels: tuple[Label, ...]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Every pair (label above, label below), by index. Labels that AudioSet doesn't know stand alone."""
    indices, parents = {label.mid: label.index for label in labels}, ontology().parents
    pairs = sorted(
        (indices[above], label.index)
        for label in labels
        if label.mid in parents
        for above in ontology().ancestors(label.mid)
        if above in indices
    )
    above, below = np.array(pairs, np.intp).reshape(-1, 2).T
    return above, below


@cache
def related(labels: tuple[Label, ...]) -> NDArray[np.bool_]:
    """(labels, labels): true if two labels are the same, or one is above the other in AudioSet's hierarchy."""
    above, below = lineage(labels)
    pairs = np.eye(len(labels), dtype=np.bool_)
    pairs[above, below] = pairs[below, above] = True
    return pairs
