"""The recipe: the shipped file is valid, rules apply in order, and mistakes are errors."""

from pathlib import Path

import pytest

from perceiverd.core.errors import ConfigError
from perceiverd.training.data import recipe
from perceiverd.training.data.recipe import CorpusSource

RECIPE = Path(__file__).parents[3] / "configs" / "train-small.toml"


def test_the_shipped_recipe_loads() -> None:
    """The shipped recipe has only known keys and labels, a licence for each source, and one main corpus."""
    plan = recipe.load(RECIPE)
    assert [source.name for source in plan.source if source.group == "environmental"] == ["environmental"]
    assert all(source.licence for source in plan.source)


def test_folds_of_the_main_corpus_are_divided() -> None:
    """Folds 1 and 2 are for training, fold 3 is for validation."""
    main = recipe.load(RECIPE).source[0]
    assert [main.split_of(f"{fold}/Dog/Dog/a.opus") for fold in (1, 2, 3)] == ["train", "train", "validation"]
    assert main.labels_of("1/Dog/Dog/a.opus") == ("Dog", "Bark")


def test_the_demo_clips_packages_are_never_trained_on() -> None:
    """No file of gcompris or scratch is in the training split."""
    held_out = [source for source in recipe.load(RECIPE).source if source.name in {"gcompris-qt-data", "scratch"}]
    assert [source.split for source in held_out] == ["test", "test"]


def test_whole_repositories_are_held_out() -> None:
    """Two repositories of labelled sounds are for the test; the ambience that counts false alarms is never used."""
    sources = {source.name: source for source in recipe.load(RECIPE).source}
    assert sources["sounds"].split_of("AntumMT/mod-sounds/a.ogg") == "test"
    assert sources["sounds"].split_of("openclonk/openclonk/a.ogg") == "test"
    assert sources["hours"].split_of("rafaelmardojai/blanket/ambience/a.opus") == "never"


def test_the_first_matching_rule_counts() -> None:
    """Rules apply in order and ignore case; a path without a matching rule is unlabelled."""
    source = CorpusSource(kind="deb", name="a", licence="x", labels=(("*/cat*", "Cat"), ("*/c*", "Crow")))
    assert source.labels_of("Sounds/CAT-1.wav") == ("Cat",)
    assert source.labels_of("sounds/caw.wav") == ("Crow",)
    assert source.labels_of("sounds/owl.wav") == ()


def test_a_rule_without_labels_is_an_exception() -> None:
    """A path that a glob alone matches is unlabelled; with `labelled`, unlabelled paths are not used."""
    rules = (("*/door3*",), ("*/door*", "Door"))
    every = CorpusSource(kind="deb", name="a", licence="x", labels=rules)
    named = CorpusSource(kind="deb", name="a", licence="x", labels=rules, labelled=True, only=("*.ogg",))
    paths = ["a/door1.ogg", "a/door3.ogg", "a/owl.ogg", "a/door1.wav"]
    assert [every.labels_of(path) for path in paths] == [("Door",), (), (), ("Door",)]
    assert [every.takes(path) for path in paths] == [True] * 4
    assert [named.takes(path) for path in paths] == [True, False, False, False]


def test_never_beats_test() -> None:
    """A path that is both never and test is never used."""
    source = CorpusSource(kind="deb", name="a", licence="x", test=("*",), never=("*bad*",))
    assert (source.split_of("good"), source.split_of("bad")) == ("test", "never")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('[[source]]\nkind = "deb"\nname = "a"\nlicence = "x"\nlabel = []', "label"),
        (
            '[[source]]\nkind = "deb"\nname = "a"\nlicence = "x"\nlabels = [["*", "Dogg"]]',
            "unknown AudioSet label 'Dogg'; did you mean 'Dog'?",
        ),
        ('[[source]]\nkind = "rpm"\nname = "a"\nlicence = "x"', "rpm"),
        ("[[source", "]]"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, word: str) -> None:
    """An unknown key, label or kind and broken TOML are errors of one line that name the mistake."""
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"recipe\.toml") as caught:
        recipe.load(path)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unreadable_recipe_is_refused(tmp_path: Path) -> None:
    """A missing recipe and a binary file are errors that start with the path."""
    path = tmp_path / "recipe.toml"
    with pytest.raises(ConfigError, match=r"recipe\.toml: cannot read the recipe: No such file"):
        recipe.load(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"recipe\.toml: .*utf-8"):
        recipe.load(path)


def test_credit_rules_come_before_the_path(tmp_path: Path) -> None:
    """Licence and author come from a matching rule, else from the path itself, else from neither."""
    source = CorpusSource(
        kind="deb",
        name="a",
        licence="x",
        credits=(("*/kit/*", "CC0", "Ann"),),
        credit=r"by (?P<author>\w+), (?P<licence>[\w-]+)\.wav",
    )
    assert source.credit_of("a/kit/by Bob, MIT.wav") == ("CC0", "Ann")
    assert source.credit_of("a/moo by Bob, MIT.wav") == ("MIT", "Bob")
    assert source.credit_of("a/moo.wav") is None


@pytest.mark.parametrize(("credit", "word"), [("(", "credit"), ("by (?P<author>.*)", "licence")])
def test_a_bad_credit_pattern_is_named(tmp_path: Path, credit: str, word: str) -> None:
    """A credit that is no regular expression or lacks a group is an error that names the source."""
    path = tmp_path / "recipe.toml"
    path.write_text(f'[[source]]\nkind = "deb"\nname = "cows"\nlicence = "x"\ncredit = \'{credit}\'\n')
    with pytest.raises(ConfigError, match=f"source cows: .*{word}"):
        recipe.load(path)


def test_rendered_sounds_are_never_counted_as_real() -> None:
    """Soundfonts, voices and tones have a group of their own, and their held-out sounds have a split of their own."""
    for source in recipe.load(RECIPE).source:
        rendered = source.kind in {"soundfont", "speech", "synthesis"}
        assert (source.group == "rendered") == rendered, source.name
        assert not rendered or source.split in {"train", "rendered"}, source.name
        assert rendered or source.split != "rendered", source.name
