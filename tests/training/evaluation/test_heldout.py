"""Held-out recordings: what is known of each, and the files they are in."""

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
    """Facts by name."""
    return [{name: int(row[c]) for name, c in AT.items()} for row in facts(clips, parents=parents)]


def test_a_label_vouches_for_those_above_it_and_denies_its_sets_others() -> None:
    """A dog is an animal and no cat and no chainsaw, may bark, and nothing is known of violins."""
    dog, cat, saw = known([["Dog"], ["Cat"], ["Chainsaw"]], parents=False)
    assert [dog[name] for name in ("Dog", "Animal", "Cat", "Chainsaw", "Bark", "Violin, fiddle")] == [
        1,
        1,
        0,
        0,
        -1,
        -1,
    ]
    assert cat["Bark"] == 0, "no dog, no bark"
    assert saw["Animal"] == -1, "some other animal may be heard"


def test_a_label_above_the_vocabulary_is_absent_in_the_wide_sense() -> None:
    """Where all that a set names of the animals is absent, so is Animal; of a dog it never is."""
    dog, saw = known([["Dog"], ["Chainsaw"]], parents=True)
    assert (dog["Animal"], saw["Animal"]) == (1, 0)


def test_what_often_comes_along_is_unknown() -> None:
    """Thunder comes with rain, so rain denies neither thunder nor anything above it."""
    rain, _, _ = known([["Rain"], ["Thunder"], ["Dog"]], parents=True)
    assert (rain["Thunder"], rain["Thunderstorm"], rain["Dog"]) == (-1, -1, 0)


def test_nothing_is_known_of_a_clip_without_labels() -> None:
    """An unlabelled clip counts for no class and against none."""
    assert set(facts([[], ["Dog"]], parents=True)[0]) == {-1}


def test_a_set_is_read_back(tmp_path: Path) -> None:
    """Clips, windows and the teacher's logits are as written; silent windows vouch for nothing."""
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


def test_a_folder_without_a_set_is_told_in_one_line(tmp_path: Path) -> None:
    """What is missing, and what makes it."""
    with pytest.raises(MediaError, match="train held-out"):
        read(tmp_path, "validation")


def test_means_are_of_a_clips_own_windows(tmp_path: Path) -> None:
    """Each clip's mean is over its windows."""
    write(tmp_path, "validation")
    held = read(tmp_path, "validation")
    values = np.arange(WINDOWS, dtype=np.float32)[:, None]
    for clip, mean in enumerate(held.by_clip(values)[:, 0]):
        assert mean == values[held.clip == clip].mean()
