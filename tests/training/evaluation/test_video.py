"""Video alone, and with audio: windows with known labels, and the tables of the report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perceiverd.core.labels import ontology
from perceiverd.evaluation import metrics
from perceiverd.model.card import load_card
from perceiverd.model.checkpoint import save_model
from perceiverd.model.geometry import Audio, Geometry, Trunk, Video
from perceiverd.model.perceiver import Perceiver
from perceiverd.training.evaluation.heldout import HeldOut, facts, read
from perceiverd.training.evaluation.scores import ScoringModel
from perceiverd.training.evaluation.video import (
    HeldOutPictures,
    audio_video_rows,
    hits,
    make_pairs,
    mapped_classes,
    own_labels,
    picture_rows,
)
from tests.support.heldout_set import write

AT = {label.name: label.index for label in ontology().labels}
MAPPING = Path(__file__).parents[3] / "models" / "imagenet-to-audioset.tsv"


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bootstraps of few draws, so that tests are fast."""
    monkeypatch.setattr(metrics, "ROUNDS", 20)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ScoringModel:
    """An untrained model of saved spectrograms and of video with four frames of 16 by 16."""
    geometry = Geometry(
        classes=527,
        trunk=Trunk(latents=4, width=16, cross_attends=1, layers=1, heads=2),
        audio=Audio(rate_hz=16_000, samples=20_480, form="mel", patch=(16, 16), bands=2),
        video=Video(frames=4, fps=3.125, height=16, width=16, patch=(1, 8, 8), bands=2),
    )
    folder = tmp_path_factory.mktemp("models") / "small"
    network = Perceiver(geometry.modalities, geometry.trunk, geometry.classes)
    save_model(folder, network, geometry, ontology().labels, name="small", licence="CC0-1.0")
    return ScoringModel(load_card(folder))


@pytest.fixture
def held(tmp_path: Path) -> HeldOut:
    """Recordings of dogs, rain and chainsaws."""
    write(tmp_path, "test")
    return read(tmp_path, "test")


@pytest.fixture
def shown() -> HeldOutPictures:
    """Five pictures, two windows of each: dogs, chainsaws and a cat."""
    known = facts([["Dog"], ["Chainsaw"], ["Dog"], ["Cat"], ["Chainsaw"]], parents=False).repeat(2, axis=0)
    frames = np.random.default_rng(0).integers(0, 256, (10, 4, 16, 16, 3)).astype(np.uint8)
    return HeldOutPictures(frames, known, [own_labels(row) for row in known], np.arange(10) // 2)


def test_ancestors_do_not_count_as_a_pictures_own_label() -> None:
    """Of Bark, Dog, Domestic animals and Animal, only Bark is the picture's own label."""
    assert own_labels(facts([["Bark"]], parents=False)[0]) == {AT["Bark"]}


def test_mapped_classes_are_what_the_table_names() -> None:
    """Dog is a mapped class; a label that is only above Dog is not."""
    found = mapped_classes(MAPPING)
    assert AT["Dog"] in found and AT["Domestic animals, pets"] not in found and 40 < len(found) < 120


def test_a_hit_is_a_label_among_the_best_of_the_mapped() -> None:
    """Unmapped classes take no place among the five best."""
    scores = np.zeros((2, 527), np.float32)
    scores[:, 300:320] = 1
    scores[0, AT["Dog"]] = 0.5
    classes = [AT["Dog"], *range(100, 110)]
    scores[1, 100:110] = 0.6
    assert hits(scores, [{AT["Dog"]}] * 2, classes).tolist() == [True, False]


def test_pictures_are_counted_by_picture(shown: HeldOutPictures) -> None:
    """Each model has a row with the number of pictures and windows of the mapped classes."""
    right = np.zeros((10, 527), np.float32)
    for row, own in zip(right, shown.own, strict=True):
        row[list(own)] = 1
    (line,) = picture_rows(shown, {"small": right}, [AT["Dog"], AT["Cat"], *range(200, 210)], "of another package")
    assert line == "| small | of another package | 3 | 6 | 1.000 [1.000, 1.000] |"


def test_pairs_match_or_have_no_label_in_common(held: HeldOut, shown: HeldOutPictures) -> None:
    """Matching pairs have a common label, others have none. Both kinds have the loudest window of the same sounds."""
    pairs = make_pairs(held, shown)
    audible = [own_labels(held.wide_facts[held.clip[window]]) for window in pairs.sound]
    assert {AT["Rain"]} not in audible, "there is no picture of rain"
    for own, picture, matching in zip(audible, pairs.picture, pairs.matching, strict=True):
        assert bool(own & shown.own[picture]) == matching
    cats = [own for own, picture in zip(audible, pairs.picture, strict=True) if shown.own[picture] == {AT["Cat"]}]
    assert {AT["Dog"]} in cats, "another animal is another class"
    assert set(pairs.sound[pairs.matching]) == set(pairs.sound[~pairs.matching])
    assert (held.below_db[pairs.sound] == 0).all()


def test_each_input_has_a_row(model: ScoringModel, held: HeldOut, shown: HeldOutPictures) -> None:
    """The table of each kind of pair has a row for sound, for picture and for both."""
    text = list(audio_video_rows(model, held, shown, make_pairs(held, shown)))
    assert [line.split(" | ")[0] for line in text if line.startswith("| ")] == [
        "| given",
        "| sound alone",
        "| picture alone",
        "| both",
    ] * 2
    assert "Of the same class: 8 pairs of 8 recordings and 4 pictures" in text
