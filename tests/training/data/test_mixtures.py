"""Mixtures: the same for the same seed, within bounds, and with the right truth."""

import numpy as np
import pytest

from perceiverd.training.data.augment import WINDOW
from perceiverd.training.data.corpus import Corpus
from perceiverd.training.data.mixtures import Mixture, Mixtures
from perceiverd.training.data.truth import CLASSES
from tests.support.small_corpus import small_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return small_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def endless(corpus: Corpus) -> Mixtures:
    return Mixtures(corpus, seed=7, splits=frozenset({"train"}))


@pytest.fixture(scope="module")
def many(endless: Mixtures) -> list[Mixture]:
    return [endless[index] for index in range(120)]


def test_same_seed_and_index_give_the_same_mixture(corpus: Corpus, endless: Mixtures) -> None:
    """A mixture depends on seed and index only, not on the mixtures that were made before."""
    again = Mixtures(corpus, seed=7, splits=frozenset({"train"}))
    other = Mixtures(corpus, seed=8, splits=frozenset({"train"}))
    np.testing.assert_array_equal(endless[41].pcm, again[41].pcm)
    np.testing.assert_array_equal(endless[41].truth, again[41].truth)
    assert not np.array_equal(endless[41].pcm, other[41].pcm)


def test_every_mixture_is_within_bounds(many: list[Mixture]) -> None:
    """All mixtures are finite, within full scale and of the window's length, and each label's truth is -2 to 1."""
    for one in many:
        assert one.pcm.shape == (WINDOW,)
        assert one.pcm.dtype == np.float32
        assert np.abs(one.pcm).max() <= 1
        assert one.truth.shape == (CLASSES,)
        assert set(np.unique(one.truth)) <= {-2, -1, 0, 1}
        assert one.main == -1 or one.truth[one.main] == 1


def test_ancestors_are_present_too(many: list[Mixture], endless: Mixtures) -> None:
    """If Dog is present, Animal is present."""
    index = endless.truth.index
    dogs = [one for one in many if one.truth[index["Dog"]] == 1]
    assert dogs
    assert all(one.truth[index["Animal"]] == 1 for one in dogs)


def test_silence_excludes_all_else(many: list[Mixture], endless: Mixtures) -> None:
    """Some mixtures are silent: Silence is 1, all else is 0, and the audio is below -60 dB, apart from an offset."""
    index = endless.truth.index["Silence"]
    silent = [one for one in many if one.truth[index] == 1]
    assert silent
    for one in silent:
        assert (one.truth == 0).sum() == CLASSES - 1
        assert np.std(one.pcm) < 2e-3
