"""What makes an event: which option wins, which label a name means, and which label is above which."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiverd.core.errors import ConfigError
from perceiverd.core.labels import Label, ontology
from perceiverd.model.card import Calibration
from perceiverd.pipeline.rules import DENIED, EventOptions, LabelOptions, Rules, StreamOptions, lower, resolve

LABELS = ontology().labels
PLAIN = (Calibration(),) * len(LABELS)
DOG, BARK, ANIMAL = (ontology().find(name).index for name in ("Dog", "Bark", "Animal"))


def rules(general: EventOptions | None = None, stream: StreamOptions | None = None) -> Rules:
    return resolve(LABELS, PLAIN, general or EventOptions(), stream, "door")


def test_thresholds_come_from_the_model() -> None:
    """Without options each label has its calibrated threshold, and off is one logit lower."""
    calibration = tuple(Calibration(threshold=0.2 + label.index / 1000) for label in LABELS)
    found = resolve(LABELS, calibration, EventOptions())
    assert found.on.tolist() == [one.threshold for one in calibration]
    assert np.log(found.on / (1 - found.on)) - np.log(found.off / (1 - found.off)) == pytest.approx(1)


@given(st.floats(1e-6, 1 - 1e-6), st.floats(0.01, 20))
def test_lower_is_lower(threshold: float, logits: float) -> None:
    """The lower threshold is between 0 and the given one."""
    assert 0 < lower(threshold, logits) < threshold


def test_the_examples_of_hysteresis_are_true() -> None:
    """The examples of `hysteresis` in the configuration, 0.5 and 0.9, are right."""
    assert (round(lower(0.5, 1), 2), round(lower(0.9, 1), 2)) == (0.27, 0.77)


def test_the_more_specific_option_wins() -> None:
    """All labels, then a stream, then a label, then a label of a stream; `on` moves `off` with it."""
    general = EventOptions(
        on=0.4, off=0.3, cooldown_s=1, labels={"Dog": LabelOptions(on=0.6), "Bark": LabelOptions(on=0.6)}
    )
    stream = StreamOptions(on=0.5, cooldown_s=2, labels={"/m/05tny_": LabelOptions(on=0.7, off=0.1, cooldown_s=3)})
    found = rules(general, stream)
    assert (found.on[ANIMAL], found.on[DOG], found.on[BARK]) == (0.5, 0.6, 0.7)
    assert (found.off[ANIMAL], found.off[DOG], found.off[BARK]) == (lower(0.5, 1), lower(0.6, 1), 0.1)
    assert (found.cooldown_ns[ANIMAL], found.cooldown_ns[DOG], found.cooldown_ns[BARK]) == (2e9, 2e9, 3e9)
    assert rules(general).on[ANIMAL] == 0.4


def test_a_stream_can_replace_every_option() -> None:
    """A stream's table has every option of the general one, and each of them is used."""
    assert StreamOptions.__struct_fields__ == EventOptions.__struct_fields__
    stream = StreamOptions(smoothing_s=3, update_s=4, max_gap_s=6, hysteresis=2, subsume=False, min_duration_s=7)
    found = rules(stream=stream)
    assert (found.smoothing_s, found.update_ns, found.max_gap_ns) == (3, 4e9, 6e9)
    assert found.off[0] == lower(0.5, 2)
    assert not found.subsume.any()
    assert set(found.min_duration_ns) == {7_000_000_000}


def test_the_defaults_deny_labels_that_hold_all_day() -> None:
    """Scenes and silence are denied, all other labels allowed; a list of a stream replaces the general one."""
    assert [label.name for label in LABELS if rules().denied[label.index]] == list(DENIED)
    assert rules().allowed.all()
    mine = rules(stream=StreamOptions(allow=("Dog", "/m/05tny_"), deny=("Bark",)))
    assert np.flatnonzero(mine.allowed).tolist() == [DOG, BARK]
    assert np.flatnonzero(mine.denied).tolist() == [BARK]
    assert rules(stream=StreamOptions(deny=())).denied.sum() == 0


@pytest.mark.parametrize(
    ("general", "stream", "line"),
    [
        (EventOptions(deny=("Dgo",)), None, "$.events.deny: unknown label 'Dgo'; did you mean 'Dog'?"),
        (EventOptions(allow=("dog",)), None, "$.events.allow: unknown label 'dog'; did you mean 'Dog'?"),
        (
            EventOptions(labels={"Brak": LabelOptions()}),
            None,
            "$.events.labels.Brak: unknown label 'Brak'; did",
        ),
        (EventOptions(), StreamOptions(deny=("qqq",)), "$.streams.door.events.deny: unknown label 'qqq'; the model's"),
        (
            EventOptions(),
            StreamOptions(labels={"X y z": LabelOptions()}),
            "$.streams.door.events.labels.X y z: unknown label",
        ),
        (EventOptions(off=0.5), None, "$.events: off = 0.5 is not below on = 0.5 for Speech"),
        (EventOptions(), StreamOptions(off=0.6), "$.streams.door.events: off = 0.6 is not below on = 0.5 for Speech"),
        (
            EventOptions(labels={"Dog": LabelOptions(on=0.2, off=0.3)}),
            None,
            "$.events: off = 0.3 is not below on = 0.2 for",
        ),
    ],
)
def test_an_invalid_option_is_one_line(general: EventOptions, stream: StreamOptions | None, line: str) -> None:
    """The error has the place, the label and a suggestion."""
    with pytest.raises(ConfigError) as caught:
        rules(general, stream)
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize("on", [0, 1, -0.1, 1.5])
def test_a_threshold_is_between_0_and_1(on: float) -> None:
    """A threshold at which everything or nothing would pass is refused."""
    for section in (EventOptions, StreamOptions, LabelOptions):
        for option in ("on", "off"):
            with pytest.raises(msgspec.ValidationError, match="float"):
                msgspec.convert({option: on}, section)


def test_a_small_model_may_lack_denied_labels() -> None:
    """A denied label that AudioSet has and the model lacks is no error; an allowed one is."""
    labels = (Label(0, "/m/0bt9lr", "Dog"), Label(1, "mine:doorbell", "My doorbell"))
    found = resolve(labels, PLAIN[:2], EventOptions())
    assert not found.denied.any()
    assert found.above.size == 0
    with pytest.raises(ConfigError, match="unknown label 'Cat'"):
        resolve(labels, PLAIN[:2], EventOptions(allow=("Cat",)))


def test_a_label_has_the_score_of_the_best_below_it() -> None:
    """A bark raises dog, pet and animal to its score, and not cat."""
    scores = np.zeros(len(LABELS))
    scores[BARK], scores[ANIMAL] = 0.8, 0.9
    rolled = rules().rolled_up(scores)
    raised = {LABELS[i].name: rolled[i] for i in np.flatnonzero(rolled)}
    assert raised == {"Bark": 0.8, "Dog": 0.8, "Domestic animals, pets": 0.8, "Animal": 0.9}


def test_a_denied_label_raises_no_other() -> None:
    """If Bark is denied, a bark does not count as a dog either."""
    scores = np.zeros(len(LABELS))
    scores[BARK] = 0.8
    denied = rules(EventOptions(deny=("Bark",)))
    assert np.flatnonzero(denied.rolled_up(scores)).tolist() == [BARK]
    assert BARK not in denied.those_below(DOG)


def test_pairs_are_those_of_the_ontology() -> None:
    """`above` and `below` have each class with each of its descendants, once."""
    found = rules(EventOptions(deny=()))
    pairs = {(LABELS[a].mid, LABELS[b].mid) for a, b in zip(found.above, found.below, strict=True)}
    mids = {label.mid for label in LABELS}
    assert pairs == {(a, mid) for mid in mids for a in ontology().ancestors(mid) & mids}
    assert len(pairs) == len(found.above)
    assert math.isclose(found.rolled_up(np.full(len(LABELS), 0.3)).max(), 0.3)
