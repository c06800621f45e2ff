"""What makes an event: the options of the configuration, and the same as arrays with one entry per label.

Options can be set for all labels, for a stream, for a label, or for a label of a stream. The more specific one wins:
an option of a label wins over one of a stream. Without an option a label has the model's own calibrated threshold.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from perceiverd.core.errors import ConfigError, nearest
from perceiverd.core.labels import Label, ontology
from perceiverd.core.media import NS_PER_S
from perceiverd.model.card import Calibration

YEAR_S = 31_536_000
Share = Annotated[float, Meta(gt=0, lt=1)]
"""A threshold of 0 would let everything pass, a threshold of 1 nothing."""
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
"""Labels that hold all day at any place with a microphone, so they are no events."""


class LabelOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[events.labels.NAME]` and `[streams.STREAM.events.labels.NAME]`: options of one label."""

    on: Share | None = None
    off: Share | None = None
    min_duration_s: Seconds | None = None
    merge_gap_s: Seconds | None = None
    cooldown_s: Seconds | None = None
    max_duration_s: Length | None = None
    subsume: bool | None = None


class StreamOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[streams.STREAM.events]`: options of one stream. Its lists replace the general ones."""

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
    """The options of one stream, resolved for a model. Arrays have one entry per label, in the order of the model."""

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
    """With `below`: each pair of a label and one below it in the ontology, at any depth, unless that one is denied."""
    below: NDArray[np.intp]

    def rolled_up(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """The scores, each raised to the best score of the labels below it."""
        rolled = scores.copy()
        np.maximum.at(rolled, self.above, scores[self.below])
        return rolled

    def any_below(self, which: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """For each label: whether one below it is in the mask."""
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
    """The rules of the stream of this name. Raises ConfigError for an unknown label or if options contradict.

    `deny` may name a label of AudioSet that the model lacks, because the general list is for any model.
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
            off, on = rule["off"], rule["on"]
            raise ConfigError(f"{where}: off = {off:g} is not below on = {on:g} for {one.name}; lower off or raise on")
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
    """The options that are set, with their values."""
    return ((field, value) for field, value in msgspec.structs.asdict(options).items() if value is not None)


def _own(options: EventOptions | StreamOptions | LabelOptions, hysteresis: float) -> dict[str, Any]:
    """The label's options that are set. If `on` is set and `off` is not, `off` follows from it by `hysteresis`."""
    found = {field: value for field, value in _fields(options) if field in OF_A_LABEL}
    return {"off": lower(found["on"], hysteresis), **found} if "on" in found else found


def lower(threshold: float, logits: float) -> float:
    """The threshold this many logits lower: its odds are smaller by a factor of e to the `logits`."""
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
        near = nearest(label, self._indices)
        hint = f"did you mean '{near}'?" if near else "the model's labels.tsv lists all labels"
        raise ConfigError(f"{where}: unknown label {label!r}; {hint}")

    def mask(self, labels: Iterable[str], where: str, lenient: bool) -> NDArray[np.bool_]:
        """A mask of these labels. A lenient list may name labels of AudioSet that the model lacks."""
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
    """Every pair (label above, label below), by index. A label that AudioSet lacks is in no pair."""
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
