"""Copyright files: the right stanza for an installed path, and clean names of holders."""

import pytest

from perceiverd.training.data.copyright import LONGEST, Copyright, holders

TEXT = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: game

Files: *
Copyright: 2001-2005, 2008 The Team <team@example.org>
License: GPL-2+
 Text that goes on.

Files: data/sounds/cow.ogg
 data/sounds/two\\ dogs*.ogg
Copyright:
 (C) 2010 A. Person <a@example.org>
 2011 B. Person
License: CC-BY-3.0

Files: base/music/*
Copyright: © 1999 by C. Person. All rights reserved.
License: CC0-1.0

License: CC-BY-3.0
 Long text.
"""


@pytest.mark.parametrize(
    ("path", "licence", "whose"),
    [
        ("usr/share/game/readme.wav", "GPL-2+", "The Team"),
        ("usr/share/games/game/data/sounds/cow.ogg", "CC-BY-3.0", "A. Person; B. Person"),
        ("usr/share/game/sounds/cow.ogg", "CC-BY-3.0", "A. Person; B. Person"),
        ("usr/share/game/sounds/two dogs 2.ogg", "CC-BY-3.0", "A. Person; B. Person"),
        ("usr/share/game/other/cow.ogg", "GPL-2+", "The Team"),
        ("usr/share/game/base/0snd.pk3/music/song.ogg", "CC0-1.0", "C. Person"),
        ("usr/share/game/music/song.ogg", "GPL-2+", "The Team"),
    ],
)
def test_the_last_matching_stanza_counts(path: str, licence: str, whose: str) -> None:
    """A glob of the source tree matches an installed path, also inside archives; an unspecific tail of it does not."""
    stanza = Copyright(TEXT).of(path)
    assert stanza is not None
    assert (stanza.licence, stanza.holders) == (licence, whose)


def test_other_texts_have_no_stanza() -> None:
    """A copyright file in prose, and an empty one, have no stanzas."""
    assert Copyright("This package was debianized by hand.\n\nFiles: *\nLicense: GPL\n").of("a") is None
    assert Copyright("").of("a") is None


def test_many_holders_are_cut() -> None:
    """A long list of names ends with a whole name and "et al."."""
    names = holders([f"20{number:02d} Holder Number {number}" for number in range(40)])
    assert names.startswith("Holder Number 0; Holder Number 1; ")
    assert names.endswith(" et al.")
    assert len(names) <= LONGEST + 8
