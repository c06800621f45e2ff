"""Truth: what labels imply, what they exclude, and what stays unknown."""

from perceiverd.training.data.truth import UNTAUGHT, TruthBuilder


def test_room_noise_is_unknown_and_all_else_absent() -> None:
    """In an empty room's noise the labels of such noise are unknown, every other label is absent, none is present."""
    truth = TruthBuilder(frozenset())
    room = truth.room_noise()
    assert [int(room[truth.index[name]]) for name in ("Hum", "White noise", "Silence", "Noise")] == [-1] * 4
    assert [int(room[truth.index[name]]) for name in ("Speech", "Music", "Rain", "Dog", "Engine")] == [0] * 5
    assert (room == 1).sum() == 0


def test_exclusive_sounds_have_no_voice() -> None:
    """A dog excludes men and women, a woman's voice excludes a man's; speech and laughter leave both unknown."""
    truth = TruthBuilder(frozenset({"Dog", "Cat"}))
    man, woman, funny = (truth.index[name] for name in (*UNTAUGHT[:2], "Funny music"))
    assert [int(truth.of({"Dog"}, (), exclusive=True)[at]) for at in (man, woman, funny)] == [0, 0, 0]
    assert [int(truth.of({"Piano"}, (), exclusive=True)[at]) for at in (man, woman, funny)] == [0, 0, -1]
    assert [int(truth.of({UNTAUGHT[1]}, (), exclusive=True)[at]) for at in (man, woman)] == [0, 1]
    assert [int(truth.of({"Speech"}, (), exclusive=True)[at]) for at in (man, woman)] == [-1, -1]
    assert [int(truth.of({"Laughter"}, (), exclusive=True)[at]) for at in (man, woman)] == [-1, -1]
    assert [int(truth.of({"Dog"}, (), exclusive=False)[at]) for at in (man, woman)] == [-1, -1]


def test_exclusive_truth() -> None:
    """A dog alone excludes cats and chainsaws, but not what it implies; rain does not exclude what often comes too."""
    truth = TruthBuilder(frozenset({"Dog", "Cat", "Chainsaw", "Rain", "Thunder", "Wind"}))
    dog = truth.of({"Dog"}, (), exclusive=True)
    assert [int(dog[truth.index[name]]) for name in ("Dog", "Animal", "Cat", "Chainsaw", "Bark")] == [1, 1, 0, 0, -1]
    rain = truth.of({"Rain"}, (), exclusive=True)
    assert [int(rain[truth.index[name]]) for name in ("Thunder", "Wind", "Cat")] == [-1, -1, 0]


def test_possible_labels_are_unknown() -> None:
    """A possible label is neither 1 nor 0, unless a present label implies it."""
    truth = TruthBuilder(frozenset({"Dog", "Cat"}))
    found = truth.of({"Dog"}, {"Cat"}, exclusive=True)
    assert [int(found[truth.index[name]]) for name in ("Dog", "Animal", "Cat")] == [1, 1, -1]
