"""Samples: their order, their random choices, and the targets of their labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from perceiverd.core.labels import Label, ontology
from perceiverd.evaluation import manifest
from perceiverd.training.finetune.sampling import ClipSampler, Vocabulary, shuffled_order
from perceiverd.training.finetune.settings import AugmentSettings
from tests.support.finetune import AUDIO, DOG


def test_an_epoch_has_every_clip_once() -> None:
    """Each epoch has its own order. The sequence does not depend on how many places are asked for at once."""
    whole = list(shuffled_order(3, 7, 0, 21))
    assert [sorted(index for index, epoch in whole if epoch == number) for number in range(3)] == [list(range(7))] * 3
    assert [index for index, _ in whole[:7]] != [index for index, _ in whole[7:14]]
    assert [*shuffled_order(3, 7, 0, 5), *shuffled_order(3, 7, 5, 16)] == whole


def test_a_sample_depends_on_its_number_alone(home: Path) -> None:
    """The same clip and number give the same window; another number gives another window."""

    def sampler() -> ClipSampler:
        found = manifest.read(home / "clips.csv", ontology().labels)
        vocabulary = Vocabulary([*ontology().labels, *found.new], found.mids, old=527)
        return ClipSampler(found.rows, None, AUDIO, vocabulary, AugmentSettings(), seed=4, skip=0)

    one, other = sampler().sample(3, 1), sampler().sample(3, 1)
    assert one.audio is not None and other.audio is not None
    np.testing.assert_array_equal(one.audio, other.audio)
    again = sampler().sample(3, 2).audio
    assert again is not None and not np.array_equal(one.audio, again)


def test_targets_follow_from_the_labels() -> None:
    """A clip's labels and those above are 1, the manifest's other labels are 0, all others are unknown."""
    labels = [*ontology().labels, Label(527, "user/rex", "Rex")]
    place = {label.name: label.index for label in labels}
    mids = [label.mid for label in labels if label.name in ("Dog", "Bark", "Rain", "Rex")]
    vocabulary = Vocabulary(labels, mids, old=527)
    targets, counts = vocabulary.targets([labels[place["Bark"]].mid])
    assert [targets[place[name]] for name in ("Bark", "Dog", "Rain", "Rex")] == [1, 1, 0, 0]
    assert np.isnan(targets[place["Animal"]]) and counts.all()
    targets, counts = vocabulary.targets([DOG])
    assert counts[place["Bark"]] == 0 and targets[place["Dog"]] == 1 and counts[place["Dog"]] == 1
    targets, _ = vocabulary.targets([])
    assert np.isnan(targets[:527]).all() and targets[527] == 0
