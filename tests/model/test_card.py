"""Model cards: finding a model, its labels and its calibration; broken files are one-line errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from perceiverd.core.errors import ModelError
from perceiverd.core.labels import Label
from perceiverd.model.card import DEFAULT, Calibration, bundled, load_card, read_calibration, read_labels


def table(folder: Path, *lines: str) -> Path:
    path = folder / "labels.tsv"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_labels_are_read_in_order(tmp_path: Path) -> None:
    """A model's table gives its labels in the order of the logits; quotes are part of a name."""
    path = table(tmp_path, "index\tmid\tname", '0\t/m/0a\tHowl, "long"', "1\t/m/0b\tBow-wow")
    assert read_labels(path) == (Label(0, "/m/0a", 'Howl, "long"'), Label(1, "/m/0b", "Bow-wow"))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["index\tmid\tname", "0\ta\tA", "2\tb\tB"], "indices are not 0 to 1"),
        (["index\tmid\tname", "x\ta\tA"], "not a table of labels"),
        (["index\tmid", "0\ta"], "not a table of labels"),
    ],
)
def test_a_broken_table_is_refused(tmp_path: Path, lines: list[str], message: str) -> None:
    """A missing index, a word instead of a number and a missing column are one-line errors."""
    with pytest.raises(ModelError, match=message) as raised:
        read_labels(table(tmp_path, *lines))
    assert "\n" not in str(raised.value)


def test_a_missing_table_is_an_error(tmp_path: Path) -> None:
    """The error for a model folder without labels names the file."""
    with pytest.raises(ModelError, match=r"labels\.tsv: cannot read"):
        read_labels(tmp_path / "labels.tsv")


DOG = Label(0, "/m/0bt9lr", "Dog")


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    return tmp_path / "calibration.tsv"


def test_a_model_without_calibration_has_the_default(calibration: Path) -> None:
    """Without a table, a score is the sigmoid of the logit, and the threshold is 0.5."""
    assert read_calibration(calibration, (DOG,)) == (Calibration(1.0, 0.0, 0.5),)


def test_calibration_is_read_by_mid(calibration: Path) -> None:
    """A row belongs to the label with its mid; other columns are ignored."""
    calibration.write_text("mid\tname\tscale\tshift\tthreshold\n/m/0bt9lr\tDog\t0.8\t-1\t0.4\n")
    cat = Label(1, "/m/01yrx", "Cat")
    assert read_calibration(calibration, (cat, DOG)) == (Calibration(), Calibration(0.8, -1.0, 0.4))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("/m/0bt9lr\t0\t0\t0.5", "scale must be above 0"),
        ("/m/0bt9lr\t1\tnan\t0.5", "shift finite"),
        ("/m/0bt9lr\t1\t0\t0", "threshold between 0 and 1"),
        ("/m/0bt9lr\t1\t0\t1", "threshold between 0 and 1"),
        ("/m/0bt9lr\t1\t0", "not a table with columns"),
        ("/m/01yrx\t1\t0\t0.5", "not a label of this model"),
    ],
)
def test_an_impossible_calibration_is_refused(calibration: Path, row: str, message: str) -> None:
    """Values out of range, missing columns and labels of another model are one-line errors."""
    calibration.write_text(f"mid\tscale\tshift\tthreshold\n{row}\n")
    with pytest.raises(ModelError, match=message):
        read_calibration(calibration, (DOG,))


def test_a_name_too_long_for_a_file_is_unknown() -> None:
    """A name that is too long for a file gets the same error as any unknown name."""
    with pytest.raises(ModelError, match=r"unknown model 'x+'; choose from"):
        load_card("x" * 300)


def test_an_unknown_model_gets_a_suggestion() -> None:
    """The error for an unknown name suggests the nearest bundled model, or lists the models."""
    with pytest.raises(ModelError, match="unknown model 'ear-and-eye-smal'; did you mean 'ear-and-eye-small'"):
        load_card("ear-and-eye-smal")
    with pytest.raises(ModelError, match=f"unknown model 'zzz'; choose from .*{DEFAULT}.*, or give a model's folder"):
        load_card("zzz")
    assert DEFAULT in bundled()


def test_a_folder_without_a_card_is_not_a_model(tmp_path: Path) -> None:
    """The error for a folder without `model.toml` names that file."""
    with pytest.raises(ModelError, match=r"not a model: it has no model\.toml"):
        load_card(tmp_path)
