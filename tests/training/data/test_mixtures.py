"""Mixtures: repeatable, bounded, and honest about what is in them."""

import csv
from pathlib import Path

import numpy as np
import pytest

from perceiverd.training.data import mixtures
from perceiverd.training.data.corpus import HOP, RATE_HZ, Clip, Corpus
from perceiverd.training.data.mixtures import CLASSES, WINDOW, Labels, Mixture, Mixtures


def clip(index: int, path: str, labels: tuple[str, ...], group: str) -> Clip:
    return Clip(
        offset=index * 5 * RATE_HZ // HOP * HOP,
        samples=3 * RATE_HZ,
        source=group,
        path=path,
        recording=f"{group}:{index}",
        split="train",
        group=group,
        labels=labels,
        licence="x",
        sha256="0",
    )


CLIPS = [
    clip(0, "1/Dog/Dog/a", ("Dog", "Bark"), "environmental"),
    clip(1, "1/Rain/Rain/b", ("Rain",), "environmental"),
    clip(2, "1/Cat/Cat/c", ("Cat",), "environmental"),
    clip(3, "drum.wav", ("Snare drum",), "extra"),
    clip(4, "talk.wav", ("Speech",), "extra"),
    clip(5, "song.wav", ("Music",), "extra"),
    clip(6, "noise.wav", (), "extra"),
]


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Seven clips of noise; the first is digital silence after its first second."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    length = (CLIPS[-1].offset + 5 * RATE_HZ) // HOP * HOP
    pcm = rng.integers(-3000, 3000, length).astype(np.int16)
    pcm[RATE_HZ // HOP * HOP : CLIPS[0].samples] = 0
    pcm.tofile(folder / "pcm.i16")
    power = np.mean((pcm.reshape(-1, HOP) / 32768.0) ** 2, axis=1)
    level = np.where(power > 0, 10 * np.log10(np.maximum(power, 1e-12)), -128)
    level.round().astype(np.int8).tofile(folder / "level.i8")
    with (folder / "index.tsv").open("w", newline="") as file:
        table = csv.writer(file, delimiter="\t")
        table.writerow(Clip.__dataclass_fields__)
        for one in CLIPS:
            table.writerow(["|".join(value) if name == "labels" else value for name, value in vars(one).items()])
    built = Corpus(folder)
    assert built.clips == CLIPS
    return built


@pytest.fixture(scope="module")
def endless(sounds: Corpus) -> Mixtures:
    return Mixtures(sounds, seed=7, splits=frozenset({"train"}))


def test_same_seed_and_index_give_the_same(sounds: Corpus, endless: Mixtures) -> None:
    """A mixture depends on seed and index only, not on what was asked before."""
    again = Mixtures(sounds, seed=7, splits=frozenset({"train"}))
    other = Mixtures(sounds, seed=8, splits=frozenset({"train"}))
    np.testing.assert_array_equal(endless[41].pcm, again[41].pcm)
    np.testing.assert_array_equal(endless[41].truth, again[41].truth)
    assert not np.array_equal(endless[41].pcm, other[41].pcm)


@pytest.fixture(scope="module")
def many(endless: Mixtures) -> list[Mixture]:
    return [endless[index] for index in range(120)]


def test_every_mixture_is_in_bounds(many: list[Mixture]) -> None:
    """All mixtures are finite, within full scale, of the window's length, and say -1, 0 or 1 of each label."""
    for one in many:
        assert one.pcm.shape == (WINDOW,)
        assert one.pcm.dtype == np.float32
        assert np.abs(one.pcm).max() <= 1
        assert one.truth.shape == (CLASSES,)
        assert set(np.unique(one.truth)) <= {-1, 0, 1}
        assert one.main == -1 or one.truth[one.main] == 1


def test_ancestors_are_heard_too(many: list[Mixture], endless: Mixtures) -> None:
    """Where Dog is heard, so is Animal."""
    index = endless.labels.index
    dogs = [one for one in many if one.truth[index["Dog"]] == 1]
    assert dogs
    assert all(one.truth[index["Animal"]] == 1 for one in dogs)


def test_silence_is_silence_alone(many: list[Mixture], endless: Mixtures) -> None:
    """Some mixtures are silence: Silence is 1, all else 0, and the sound is below -60 dB, but for an offset."""
    index = endless.labels.index["Silence"]
    silent = [one for one in many if one.truth[index] == 1]
    assert silent
    for one in silent:
        assert (one.truth == 0).sum() == CLASSES - 1
        assert np.std(one.pcm) < 2e-3


def test_quiet_places_hold_nothing_else() -> None:
    """Noise of an empty room is below its level's bound, and no label but those of such noise may be heard in it."""
    rng = np.random.default_rng(3)
    levels = []
    for _ in range(200):
        wave, level_db = mixtures.quiet(rng)
        levels.append(level_db)
        assert wave.shape == (WINDOW,)
        assert np.isfinite(wave).all()
        assert 20 * np.log10(max(float(np.std(wave)), 1e-6)) < max(level_db, mixtures.ROOM_DB) + 12
    assert 0.35 < np.mean(np.array(levels) > mixtures.ROOM_DB) < 0.65
    assert max(levels) <= mixtures.LOUDEST_ROOM_DB
    labels = Labels(frozenset())
    room = labels.room()
    assert [int(room[labels.index[name]]) for name in ("Hum", "White noise", "Silence", "Noise")] == [-1] * 4
    assert [int(room[labels.index[name]]) for name in ("Speech", "Music", "Rain", "Dog", "Engine")] == [0] * 5
    assert (room == 1).sum() == 0


def test_what_the_teacher_does_not_know() -> None:
    """Where labels tell all, voices are absent from what is none, a man's voice from a woman's, not from laughter."""
    labels = Labels(frozenset({"Dog", "Cat"}))
    man, woman, funny = (labels.index[name] for name in (*mixtures.VOICES[:2], "Funny music"))
    assert [int(labels.truth({"Dog"}, (), exclusive=True)[at]) for at in (man, woman, funny)] == [0, 0, 0]
    assert [int(labels.truth({"Piano"}, (), exclusive=True)[at]) for at in (man, woman, funny)] == [0, 0, -1]
    assert [int(labels.truth({mixtures.VOICES[1]}, (), exclusive=True)[at]) for at in (man, woman)] == [0, 1]
    assert [int(labels.truth({"Speech"}, (), exclusive=True)[at]) for at in (man, woman)] == [-1, -1]
    assert [int(labels.truth({"Laughter"}, (), exclusive=True)[at]) for at in (man, woman)] == [-1, -1]
    assert [int(labels.truth({"Dog"}, (), exclusive=False)[at]) for at in (man, woman)] == [-1, -1]


def test_exclusive_truth() -> None:
    """Alone, a dog rules out cats and chainsaws, but not what it implies, nor what rain often comes with."""
    labels = Labels(frozenset({"Dog", "Cat", "Chainsaw", "Rain", "Thunder", "Wind"}))
    dog = labels.truth({"Dog"}, (), exclusive=True)
    assert [int(dog[labels.index[name]]) for name in ("Dog", "Animal", "Cat", "Chainsaw", "Bark")] == [1, 1, 0, 0, -1]
    rain = labels.truth({"Rain"}, (), exclusive=True)
    assert [int(rain[labels.index[name]]) for name in ("Thunder", "Wind", "Cat")] == [-1, -1, 0]


def test_perhaps_is_unknown() -> None:
    """What may be heard is neither 1 nor 0, unless something else vouches for it."""
    labels = Labels(frozenset({"Dog", "Cat"}))
    truth = labels.truth({"Dog"}, {"Cat"}, exclusive=True)
    assert [int(truth[labels.index[name]]) for name in ("Dog", "Animal", "Cat")] == [1, 1, -1]


def test_crop_knows_how_quiet_it_is(sounds: Corpus) -> None:
    """A crop from the silent part says that it is silent, one from the loud part that it isn't."""
    rng = np.random.default_rng(1)
    crops = [mixtures.crop(sounds, CLIPS[0], rng, 1.0) for _ in range(300)]
    for wave, below_db in crops:
        assert (below_db > mixtures.SILENT_DB) == (np.abs(wave).max() < 1e-6) or below_db < mixtures.SILENT_DB
    assert sum(below_db > mixtures.SILENT_DB for _, below_db in crops) < 60
    assert min(below_db for _, below_db in crops) == 0


@pytest.mark.parametrize("speed", [0.85, 1.0, 1.175])
def test_speed_moves_pitch(tmp_path: Path, speed: float) -> None:
    """A tone of 1 kHz played at another speed comes out at that many times 1 kHz, as loud as before."""
    pcm = (8192 * np.sin(2 * np.pi * 1000 * np.arange(20 * HOP) / RATE_HZ)).astype(np.int16)
    pcm.tofile(tmp_path / "pcm.i16")
    np.full(20, -15, np.int8).tofile(tmp_path / "level.i8")
    (tmp_path / "index.tsv").write_text("\t".join(Clip.__dataclass_fields__) + "\n")
    tone = Clip(**{**vars(CLIPS[6]), "offset": 0, "samples": len(pcm)})
    wave, _ = mixtures.crop(Corpus(tmp_path), tone, np.random.default_rng(2), speed)
    peak_hz = np.abs(np.fft.rfft(wave)).argmax() * RATE_HZ / WINDOW
    assert peak_hz == pytest.approx(1000 * speed, rel=0.003)
    assert np.sqrt(np.mean(wave**2)) == pytest.approx(1, rel=0.05)
