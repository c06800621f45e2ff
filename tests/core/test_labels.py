"""Labels and AudioSet's ontology."""

import pytest

from perceiverd.core.labels import ontology


def names(mids: frozenset[str]) -> set[str]:
    known = {label.mid: label.name for label in ontology().labels}
    return {known[mid] for mid in mids if mid in known}


def test_classes_are_audiosets() -> None:
    """The ontology has AudioSet's 527 classes in the order of their indices, and 632 nodes."""
    labels = ontology().labels
    assert [label.index for label in labels] == list(range(527))
    assert len({label.mid for label in labels}) == 527
    assert len(ontology().parents) == 632
    assert (labels[0].name, labels[74].name, labels[526].name) == ("Speech", "Dog", "Field recording")


def test_ancestors_reach_the_top() -> None:
    """The ancestors of Bark are Dog, Domestic animals and Animal, and not Bark itself."""
    bark = ontology().find("Bark")
    above = ontology().ancestors(bark.mid)
    assert {"Dog", "Domestic animals, pets", "Animal"} == names(above)
    assert bark.mid not in above


def test_a_label_may_have_several_parents() -> None:
    """Some labels are below two others, and every parent is a node."""
    parents = ontology().parents
    assert any(len(above) > 1 for above in parents.values())
    assert {mid for above in parents.values() for mid in above} <= parents.keys()


def test_an_unknown_name_is_an_error() -> None:
    """A name in another case raises KeyError."""
    with pytest.raises(KeyError):
        ontology().find("dog")
