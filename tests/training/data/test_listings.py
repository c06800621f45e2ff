"""Lists of sounds: labels, recordings and splits of each kind of list."""

from __future__ import annotations

from pathlib import Path

from perceiverd.training.data.listings import HOLD_OUT_EVERY, held_out, listed
from perceiverd.training.data.recipe import CorpusSource

SOUNDS = "file\tlabels\tmids\tseconds\tlicence\tsource\trecording\trepo\tpath\n"


def test_every_fourth_recording_of_a_class_is_held_out() -> None:
    """Of nine recordings three are held out, whatever the order and however many clips; of seven none."""
    pairs = [(f"nine/{n}", "Dog") for n in range(9)] + [(f"seven/{n}", "Cat") for n in range(7)]
    found = held_out(pairs)
    assert len(found) == 3 == -(-9 // HOLD_OUT_EVERY) and all(name.startswith("nine") for name in found)
    assert held_out([*pairs[::-1], *pairs]) == found


def test_labelled_sounds_are_split_by_recording_and_repository(tmp_path: Path) -> None:
    """All clips of a recording are on one side; the recipe's rules hold out whole repositories."""
    lines = [f"{n}.opus\tDog\t/m/0bt9lr\t1\tCC0\tAnn\trec/{n // 2}\tann/dogs\t{n}.wav\n" for n in range(20)]
    lines.append("x.opus\tBark|Dog\t/m/05tny_|/m/0bt9lr\t1\tCC BY\tBob\trec/x\tbob/barks\tx.wav\n")
    (tmp_path / "sounds.tsv").write_text(SOUNDS + "".join(lines))
    source = CorpusSource(kind="folder", name="sounds", licence="x", listed=True, test=("bob/*",))
    found = list(listed(source, tmp_path) or ())
    splits = {one.recording: {other.split for other in found if other.recording == one.recording} for one in found}
    assert all(len(split) == 1 for split in splits.values())
    assert sum(split == {"validation"} for split in splits.values()) == 3
    assert (found[-1].split, found[-1].labels, found[-1].author) == ("test", ("Bark", "Dog"), "Bob")
    assert found[0].labels == ("Dog",) and found[0].file == tmp_path / "0.opus"


def test_unlabelled_hours_have_one_recording_a_repository(tmp_path: Path) -> None:
    """Pieces of one repository are one recording, and none has a label."""
    text = "file\trepository\tpaths\tseconds\tkind\tlicence\n"
    text += "".join(f"{n}.opus\tann/talk\ta{n}|b{n}\t9\tspeech\tCC0\n" for n in range(3))
    (tmp_path / "hours.tsv").write_text(text)
    source = CorpusSource(kind="folder", name="hours", licence="x", never=("ann/talk/speech/2.opus",))
    found = list(listed(source, tmp_path) or ())
    assert {one.recording for one in found} == {"hours:ann/talk"} and not any(one.labels for one in found)
    assert [one.split for one in found] == ["train", "train", "never"]
    assert found[1].author == "ann/talk: a1, b1"


def test_a_folder_without_a_list_is_read_by_its_files(tmp_path: Path) -> None:
    """None says that there is no list."""
    assert listed(CorpusSource(kind="folder", name="a", licence="x"), tmp_path) is None
