"""The outputs of one file: all of them, complete, or none."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from perceiverd.core.errors import MediaError
from perceiverd.offline.folders.outputs import HIDDEN, OutputError, Outputs
from perceiverd.offline.writers.formats import FORMATS, chosen
from tests.support.file_records import pieces


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / HIDDEN).mkdir()
    return tmp_path


def outputs(out: Path, names: str = "jsonl,vtt") -> Outputs:
    return Outputs(out, chosen(names), frozenset(), "part-0")


def visible(out: Path) -> Sequence[str]:
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file() and HIDDEN not in path.parts)


def test_outputs_appear_when_they_are_complete(out: Path) -> None:
    """Until `commit` nothing has its name; then each format has its file, in the folders of the media."""
    each = outputs(out)
    for piece in pieces(3):
        each.write("a/b c.wav", piece)
        assert visible(out) == []
    each.commit("a/b c.wav")
    assert visible(out) == ["a/b c.wav.jsonl", "a/b c.wav.vtt"]
    assert list((out / HIDDEN).iterdir()) == []
    assert (out / "a/b c.wav.jsonl").read_text().count("\n") == 1 + 3 + 2 + 1


def test_the_next_file_gets_outputs_of_its_own(out: Path) -> None:
    """The same object writes one file after the other."""
    each = outputs(out, "jsonl")
    for name in ("a.wav", "b.wav"):
        for piece in pieces(2, name):
            each.write(name, piece)
        each.commit(name)
    assert [(out / f"{name}.jsonl").read_text().count("\n") for name in ("a.wav", "b.wav")] == [6, 6]


def test_discard_leaves_nothing(out: Path) -> None:
    """What was begun is removed, in every format; what was there before stays."""
    (out / "a.wav.jsonl").write_text("before")
    each = Outputs(out, list(FORMATS.values()), frozenset(), "part-0")
    for piece in pieces(2)[:2]:
        each.write("a.wav", piece)
    each.discard()
    assert visible(out) == ["a.wav.jsonl"]
    assert (out / "a.wav.jsonl").read_text() == "before"
    assert list((out / HIDDEN).iterdir()) == []


def test_an_output_replaces_that_of_an_earlier_run(out: Path) -> None:
    """Readers see the old output or the new one, never half of it."""
    (out / "a.wav.vtt").write_text("before")
    each = outputs(out, "vtt")
    for piece in pieces():
        each.write("a.wav", piece)
    assert (out / "a.wav.vtt").read_text() == "before"
    each.commit("a.wav")
    assert (out / "a.wav.vtt").read_text().startswith("WEBVTT")


def test_a_place_that_cannot_be_written_ends_the_run(tmp_path: Path) -> None:
    """Without the folder the error says what to do."""
    each = outputs(tmp_path / "gone")
    with pytest.raises(
        OutputError, match=r"cannot write the outputs: No such file.*it continues where this run stopped"
    ):
        each.write("a.wav", pieces()[0])


def test_a_name_that_is_too_long_costs_its_file(out: Path) -> None:
    """The name of the media still fits, that of its output does not."""
    name = "x" * 252 + ".wav"
    each = outputs(out)
    for piece in pieces(1):
        each.write(name, piece)
    with pytest.raises(MediaError, match="its name is too long"):
        each.commit(name)
    each.discard()
    assert visible(out) == []
