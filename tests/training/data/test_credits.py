"""Credits: every source of the training split with its licence, and with its authors if the licence demands them."""

from pathlib import Path

import pytest

from perceiverd.core.errors import MediaError
from perceiverd.training.data import corpus
from perceiverd.training.data.credits import credits_of, licence
from perceiverd.training.data.recipe import CorpusSource, Recipe
from tests.support.sounds import noise, wav


def test_table_of_a_corpus(tmp_path: Path) -> None:
    """Seconds of each source and licence, authors whose licence demands attribution, and the held-out sources."""
    for name, count in {"mine": 2, "theirs": 1}.items():
        (tmp_path / name).mkdir()
        for at in range(count):
            (tmp_path / name / f"{at}.wav").write_bytes(wav(noise(16_000 * (3 + at), seed_of(name) + at)))
    listed = tmp_path / "listed"
    listed.mkdir()
    (listed / "a.wav").write_bytes(wav(noise(32_000, 77)))
    (listed / "clips.csv").write_text(
        "file,class,audioset_name,fold,freesound_id,licence,author,title,url\n"
        "a.wav,Dog,Dog,1,5,CC-BY,ann,woof.wav,http://example.org/5\n"
    )
    plan = Recipe(
        source=(
            CorpusSource(kind="folder", name="mine", licence="CC0", credits=(("0.wav", "CC-BY-SA-3.0", "Bob"),)),
            CorpusSource(kind="folder", name="listed", licence="x", group="environmental"),
            CorpusSource(kind="folder", name="theirs", licence="GPL-2", split="test"),
        )
    )
    corpus.build(plan, cache=tmp_path, root=tmp_path, out=tmp_path / "out", processes=1)
    assert credits_of(tmp_path / "out").splitlines() == [
        "| source | version | licence | seconds |",
        "|---|---|---|--:|",
        "| mine (folder) |  | CC0 (4 s), CC-BY-SA-3.0 (3 s) | 7 |",
        "| listed (folder) |  | CC-BY | 2 |",
        "| all | | | 9 |",
        "",
        "Held out for the test: theirs (GPL-2; 3 s).",
        "",
        "listed, CC-BY:",
        "",
        "* ann: [woof.wav](http://example.org/5)",
        "",
        "mine, CC-BY-SA-3.0:",
        "",
        "* Bob",
    ]


def seed_of(name: str) -> int:
    return sum(name.encode())


def test_a_folder_without_corpus_is_refused(tmp_path: Path) -> None:
    """The error names the missing file."""
    with pytest.raises(MediaError, match=r"has no corpus with its recipe: No such file.*recipe\.json"):
        credits_of(tmp_path)


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("Creative Commons Attribution 3.0 Unported", "CC-BY-3.0"),
        ("Creative Commons Attribution-ShareAlike 3.0 Unported", "CC-BY-SA-3.0"),
        ("Creative Commons Zero 1.0", "CC0-1.0"),
        ("GPL-2+", "GPL-2+"),
    ],
)
def test_licences_get_their_short_name(name: str, short: str) -> None:
    """The long name of a licence becomes its short name."""
    assert licence(name) == short
