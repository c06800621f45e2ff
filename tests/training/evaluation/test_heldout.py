"""Held-out recordings: what is known about each, and the files that hold them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perceiverd.core.errors import MediaError
from perceiverd.core.labels import ontology
from perceiverd.training.evaluation.heldout import facts, read
from tests.support.heldout_set import WINDOWS, write

AT = {label.name: label.index for label in ontology().labels}


def known(clips: list[list[str]], *, parents: bool) -> list[dict[str, int]]:
    """Facts by label name."""
    return [{name: int(row[c]) for name, c in AT.items()} for row in facts(clips, parents=parents)]


def test_a_label_implies_those_above_it_and_excludes_the_vocabulary() -> None:
    """A dog is an animal, not a cat and not a chainsaw; it may bark; nothing is known about violins."""
    dog, cat, saw = known([["Dog"], ["Cat"], ["Chainsaw"]], parents=False)
    assert [dog[name] for name in ("Dog", "Animal", "Cat", "Chainsaw", "Bark", "Violin, fiddle")] == [
        1,
        1,
        0,
        0,
        -1,
        -1,
    ]
    assert cat["Bark"] == 0, "without a dog there is no bark"
    assert saw["Animal"] == -1, "another animal may be present"


def test_with_parents_a_label_above_the_vocabulary_can_be_absent() -> None:
    """If all animals of the vocabulary are absent, so is Animal; with a dog it is present."""
    dog, saw = known([["Dog"], ["Chainsaw"]], parents=True)
    assert (dog["Animal"], saw["Animal"]) == (1, 0)


def test_labels_that_often_occur_together_are_unknown() -> None:
    """Thunder often occurs with rain, so for a clip of rain thunder and the labels above it are unknown."""
    rain, _, _ = known([["Rain"], ["Thunder"], ["Dog"]], parents=True)
    assert (rain["Thunder"], rain["Thunderstorm"], rain["Dog"]) == (-1, -1, 0)


def test_a_clip_without_labels_is_unknown() -> None:
    """A clip without labels counts neither for nor against any class."""
    assert set(facts([[], ["Dog"]], parents=True)[0]) == {-1}


def test_a_set_is_read_back(tmp_path: Path) -> None:
    """Clips, windows and the teacher's logits are as written; in silent windows no label is present."""
    write(tmp_path, "validation")
    held = read(tmp_path, "validation")
    assert held.mel.shape == (WINDOWS, 128, 64)
    assert held.by_clip(held.teacher).shape == (len(held.labels), 527)
    silent = held.below_db > 25
    assert silent.any()
    assert not (held.window_facts[silent] == 1).any()
    assert (held.window_facts[silent] == 0).any()
    assert [ontology().labels[c].name for c in held.vocabulary] == ["Dog", "Rain", "Chainsaw"]
    assert AT["Animal"] in held.measurable


def test_a_folder_without_a_set_is_an_error(tmp_path: Path) -> None:
    """The error names the command that makes the set."""
    with pytest.raises(MediaError, match="train held-out"):
        read(tmp_path, "validation")


def test_a_clips_mean_is_over_its_windows(tmp_path: Path) -> None:
    """Windows of other clips do not count."""
    write(tmp_path, "validation")
    held = read(tmp_path, "validation")
    values = np.arange(WINDOWS, dtype=np.float32)[:, None]
    for clip, mean in enumerate(held.by_clip(values)[:, 0]):
        assert mean == values[held.clip == clip].mean()
