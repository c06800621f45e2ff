"""Labels and the ontology that comes with the package."""

from pathlib import Path

import pytest

from perceiverd.core.errors import ModelError
from perceiverd.core.labels import Label, ontology
from perceiverd.model.card import Calibration, read_calibration, read_labels


def names(mids: frozenset[str]) -> set[str]:
    known = {label.mid: label.name for label in ontology().labels}
    return {known[mid] for mid in mids if mid in known}


def table(folder: Path, *lines: str) -> Path:
    path = folder / "labels.tsv"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_classes_are_audiosets() -> None:
    """The ontology has AudioSet's 527 classes in the order of their indices, and 632 nodes."""
    labels = ontology().labels
    assert [label.index for label in labels] == list(range(527))
    assert len({label.mid for label in labels}) == 527
    assert len(ontology().parents) == 632
    assert (labels[0].name, labels[74].name, labels[526].name) == ("Speech", "Dog", "Field recording")


def test_ancestors_reach_the_top() -> None:
    """A bark is a dog's, a pet's and an animal's sound, and none of its own ancestors."""
    bark = ontology().find("Bark")
    above = ontology().ancestors(bark.mid)
    assert {"Dog", "Domestic animals, pets", "Animal"} == names(above)
    assert bark.mid not in above


def test_a_label_may_have_several_parents() -> None:
    """The hierarchy is no tree: some labels hang below two others, and all parents are nodes."""
    parents = ontology().parents
    assert any(len(above) > 1 for above in parents.values())
    assert {mid for above in parents.values() for mid in above} <= parents.keys()


def test_an_unknown_name_is_an_error() -> None:
    """A name that no class has raises KeyError, whatever its case."""
    with pytest.raises(KeyError):
        ontology().find("dog")


def test_labels_are_read_in_order(tmp_path: Path) -> None:
    """A model's table gives its labels in the order of the logits, quotes and all."""
    path = table(tmp_path, "index\tmid\tname", '0\t/m/0a\tHowl, "long"', "1\t/m/0b\tBow-wow")
    assert read_labels(path) == (Label(0, "/m/0a", 'Howl, "long"'), Label(1, "/m/0b", "Bow-wow"))


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["index\tmid\tname", "0\ta\tA", "2\tb\tB"], "indices are not 0 to 1"),
        (["index\tmid\tname", "x\ta\tA"], "not a table of labels"),
        (["index\tmid", "0\ta"], "not a table of labels"),
    ],
)
def test_a_broken_table_is_told(tmp_path: Path, lines: list[str], words: str) -> None:
    """A table with a hole, a word for a number or a missing column is a ModelError in one line."""
    with pytest.raises(ModelError, match=words) as raised:
        read_labels(table(tmp_path, *lines))
    assert "\n" not in str(raised.value)


def test_a_missing_table_is_told(tmp_path: Path) -> None:
    """A model folder without its labels is a ModelError that names the file."""
    with pytest.raises(ModelError, match=r"labels\.tsv: cannot read"):
        read_labels(tmp_path / "labels.tsv")


DOG = Label(0, "/m/0bt9lr", "Dog")


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    return tmp_path / "calibration.tsv"


def test_a_model_without_calibration_has_the_default(calibration: Path) -> None:
    """Without a table a score is the logit's sigmoid, and one half the threshold."""
    assert read_calibration(calibration, (DOG,)) == (Calibration(1.0, 0.0, 0.5),)


def test_calibration_is_read_by_mid(calibration: Path) -> None:
    """A row belongs to the label of its mid; further columns are left alone."""
    calibration.write_text("mid\tname\tscale\tshift\tthreshold\n/m/0bt9lr\tDog\t0.8\t-1\t0.4\n")
    cat = Label(1, "/m/01yrx", "Cat")
    assert read_calibration(calibration, (cat, DOG)) == (Calibration(), Calibration(0.8, -1.0, 0.4))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("/m/0bt9lr\t0\t0\t0.5", "scale is above 0"),
        ("/m/0bt9lr\t1\tnan\t0.5", "all are finite"),
        ("/m/0bt9lr\t1\t0\t0", "threshold between 0 and 1"),
        ("/m/0bt9lr\t1\t0\t1", "threshold between 0 and 1"),
        ("/m/0bt9lr\t1\t0", "not a table with columns"),
        ("/m/01yrx\t1\t0\t0.5", "no label of this model"),
    ],
)
def test_a_calibration_that_cannot_be_is_refused(calibration: Path, row: str, said: str) -> None:
    """Scales, shifts and thresholds that make no probability, and labels of another model, are errors of one line."""
    calibration.write_text(f"mid\tscale\tshift\tthreshold\n{row}\n")
    with pytest.raises(ModelError, match=said):
        read_calibration(calibration, (DOG,))
