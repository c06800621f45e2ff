"""Errors in one line, and suggestions for unknown words."""

from perceiverd.core.errors import PerceiverdError, did_you_mean, nearest, nearest_few


def test_a_message_is_one_line() -> None:
    """Line breaks of quoted messages become spaces."""
    assert str(PerceiverdError("broken:\n  no such\tfile")) == "broken: no such file"


def test_control_characters_are_escaped() -> None:
    """A quoted name cannot change the terminal's colours or title."""
    assert str(PerceiverdError("unknown '\x1b[31mé\0'")) == r"unknown '\x1b[31mé\x00'"


def test_a_slip_is_corrected() -> None:
    """The most similar word is suggested, ignoring case."""
    assert did_you_mean("camra", ["camera", "microphone"]) == "did you mean 'camera'?"
    assert nearest("DOG", ["Dog", "Cat"]) == "Dog"


def test_several_words_can_be_suggested() -> None:
    """The most similar word comes first; `count` and `cutoff` limit the list."""
    known = ["Dog", "Gong", "Goat", "Siren"]
    assert nearest_few("dgo", known, 3) == ["Dog", "Gong", "Goat"]
    assert nearest_few("dgo", known, 2) == ["Dog", "Gong"]
    assert nearest_few("dgo", known, 3, cutoff=0.65) == ["Dog"]


def test_a_word_like_no_other_gets_the_whole_list() -> None:
    """Without a similar word the message names all of them."""
    assert did_you_mean("xyzzy", ["camera", "file"]) == "choose from camera, file"
    assert nearest("xyzzy", ["camera", "file"]) is None
