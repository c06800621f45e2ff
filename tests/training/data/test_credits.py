"""Credits: every source that is trained on is listed, with its licence, and with authors where they must be."""

from pathlib import Path

import pytest

from perceiverd.core.errors import MediaError
from perceiverd.training.data import corpus
from perceiverd.training.data.credits import credits_of, licence
from perceiverd.training.data.recipe import Recipe, Source
from tests.training.data.test_corpus import noise, wav


def test_table_of_a_corpus(tmp_path: Path) -> None:
    """Seconds by source and licence, authors of what asks for attribution alone, and what is held out."""
    for name, count in {"mine": 2, "theirs": 1}.items():
        (tmp_path / name).mkdir()
        for at in range(count):
            (tmp_path / name / f"{at}.wav").write_bytes(wav(noise(16_000 * (3 + at), hash_of(name) + at)))
    listed = tmp_path / "listed"
    listed.mkdir()
    (listed / "a.wav").write_bytes(wav(noise(32_000, 77)))
    (listed / "clips.csv").write_text(
        "file,class,audioset_name,fold,freesound_id,licence,author,title,url\n"
        "a.wav,Dog,Dog,1,5,CC-BY,ann,woof.wav,http://example.org/5\n"
    )
    plan = Recipe(
        source=(
            Source(kind="folder", name="mine", licence="CC0", credits=(("0.wav", "CC-BY-SA-3.0", "Bob"),)),
            Source(kind="folder", name="listed", licence="x", group="environmental"),
            Source(kind="folder", name="theirs", licence="GPL-2", split="test"),
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
        "Held out, to test on: theirs (GPL-2; 3 s).",
        "",
        "listed, CC-BY:",
        "",
        "* ann: [woof.wav](http://example.org/5)",
        "",
        "mine, CC-BY-SA-3.0:",
        "",
        "* Bob",
    ]


def hash_of(name: str) -> int:
    return sum(name.encode())


def test_no_corpus_is_told(tmp_path: Path) -> None:
    """A folder without a corpus is an error of one line that names the file that is missing."""
    with pytest.raises(MediaError, match=r"no corpus with its recipe here: No such file.*recipe\.json"):
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
def test_licences_have_one_name(name: str, short: str) -> None:
    """A licence's long name is its short one."""
    assert licence(name) == short
