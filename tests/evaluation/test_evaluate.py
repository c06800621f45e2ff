"""A manifest through decoder, tagger and measures; the numbers equal those computed from `tag`'s own windows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from perceiverd.core.errors import ConfigError, MediaError
from perceiverd.core.labels import ontology
from perceiverd.core.media import NS_PER_S
from perceiverd.evaluation.evaluate import EvaluationOptions, NamedTagger, evaluate, read_manifest
from perceiverd.evaluation.results import EvaluationResult
from perceiverd.model.card import load_card
from perceiverd.offline import tag
from perceiverd.offline.decoding import Decoder
from perceiverd.pipeline.tagger import Tagger
from tests.support.clips import make_model, write_clip

HOP_NS = NS_PER_S // 2
NAMES = ("Dog", "Speech", "Siren")
INDEX = {label.name: label.index for label in ontology().labels}


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Tagger:
    return Tagger(load_card(make_model(tmp_path_factory.mktemp("model") / "tiny")), device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven clips of noise of 1.5 to 4.5 s; each differs, because its name does."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(7):
        write_clip(folder / f"{'x' * number}.wav", audio_s=1.5 + number / 2)
    return folder


def run(folder: Path, text: str, taggers: Sequence[Tagger], **options: object) -> EvaluationResult:
    path = folder / "manifest.csv"
    path.write_text(text, encoding="utf-8")
    chosen = EvaluationOptions(path, hop_ns=HOP_NS, rounds=20, **options)  # type: ignore[arg-type]
    found = read_manifest(chosen, [each.card.labels for each in taggers])
    named = [NamedTagger(f"model {number}", each) for number, each in enumerate(taggers)]
    return evaluate(found, named, chosen)


def windows(file: Path, tagger: Tagger) -> list[tuple[float, float, np.ndarray]]:
    """Start, end and scores of each window of a file, as `tag` gives them."""
    options = tag.TagOptions(top=1, hop_ns=HOP_NS, batch=3)
    with Decoder(tagger.card.geometry.media_format) as decoder:
        return [
            (window.start_ns / NS_PER_S, window.end_ns / NS_PER_S, scores)
            for window, scores in tag.scored(str(file), tagger, options, decoder)
        ]


def test_measures_of_clips_equal_those_of_scikit_learn(folder: Path, tagger: Tagger) -> None:
    """A clip's score is the mean over its windows; all measures are scikit-learn's on these scores."""
    own = [NAMES[number % 3 : number % 3 + 1 + number % 2] for number in range(7)]
    rows = "".join(f"{'x' * number}.wav,{'|'.join(names)}\n" for number, names in enumerate(own))
    result = run(folder, "file,labels\n" + rows, [tagger])
    scores = np.stack([np.mean([s for *_, s in windows(folder / f"{'x' * n}.wav", tagger)], axis=0) for n in range(7)])
    truth = np.array([[name in names for name in NAMES] for names in own])
    chosen = scores[:, [INDEX[name] for name in NAMES]]
    (model,) = result.models
    precision = [average_precision_score(truth[:, c], chosen[:, c]) for c in range(3)]
    area = [roc_auc_score(truth[:, c], chosen[:, c]) for c in range(3)]
    assert model.measures["mAP"].value == pytest.approx(np.mean(precision))
    assert model.measures["mAUC"].value == pytest.approx(np.mean(area))
    by_name = {label.name: label for label in model.labels}
    assert [by_name[name].average_precision.value for name in NAMES] == pytest.approx(precision)
    assert [by_name[name].auc.value for name in NAMES] == pytest.approx(area)
    brier = brier_score_loss(truth.ravel(), chosen.ravel())
    assert model.measures["brier"].value == pytest.approx(brier, rel=1e-5)
    assert result.recordings == 7 and result.units == (7,) and result.failures == ()
    low, high = model.measures["mAP"].low, model.measures["mAP"].high
    assert low < model.measures["mAP"].value < high


def test_windows_of_events_equal_those_of_scikit_learn(folder: Path, tagger: Tagger) -> None:
    """Read as events, each window is compared with what is there then; windows at an event's edge are left out."""
    longest = folder / f"{'x' * 6}.wav"
    result = run(folder, f"file,start_s,end_s,labels\n{longest.name},1.0,3.0,Dog\n", [tagger], truth="events")
    rows = [
        (scores[INDEX["Dog"]], min(end, 3) - max(start, 1) >= 0.5)
        for start, end, scores in windows(longest, tagger)
        if start >= 3 or end <= 1 or min(end, 3) - max(start, 1) >= 0.5
    ]
    truth, scores = [present for _, present in rows], [score for score, _ in rows]
    assert len(set(truth)) == 2
    (label,) = result.models[0].labels
    assert label.auc.value == pytest.approx(roc_auc_score(truth, scores))
    assert (label.present, label.absent) == (sum(truth), len(truth) - sum(truth))
    assert result.hours == pytest.approx(windows(longest, tagger)[-1][1] / 3600, rel=1e-6)


def test_rows_cut_stretches_out_of_a_file(folder: Path, tagger: Tagger) -> None:
    """Two clips of one file are measured on the windows that lie in them, and drawn as one recording."""
    longest = folder / f"{'x' * 6}.wav"
    result = run(folder, f"file,start_s,end_s,labels\n{longest.name},0,1,Dog\n{longest.name},3,4,Speech\n", [tagger])
    assert result.units == (2,) and result.recordings == 1 and result.files == 1
    # Windows of 1 s that start at 0 and 0.5 lie in the first clip by half; those from 2.5 to 3.5 in the second one.
    scores = np.stack([each for *_, each in windows(longest, tagger)])
    means = [scores[[0, 1]].mean(axis=0), scores[[5, 6, 7]].mean(axis=0)]
    expected = [float(means[0][INDEX["Dog"]] > means[1][INDEX["Dog"]])]
    assert [label.auc.value for label in result.models[0].labels if label.name == "Dog"] == expected


def test_files_that_fail_are_listed(folder: Path, tagger: Tagger) -> None:
    """Missing, broken and too short rows are listed with their lines; the others are measured."""
    (folder / "broken.wav").write_text("no media")
    rows = ("x.wav,,,Dog", "gone.wav,,,Dog", "broken.wav,,,Dog", "xx.wav,50,60,Dog", "xx.wav,0,2,Speech")
    result = run(folder, "\n".join(["file,start_s,end_s,labels", *rows]), [tagger])
    assert [each.line for each in result.failures] == [3, 4, 5]
    assert "no such file" in result.failures[0].error
    assert "neither audio nor video" in result.failures[1].error
    assert "has no media from 50 s to 60 s" in result.failures[2].error
    assert result.units == (2,)


def test_two_models_are_compared_on_the_same_draws(folder: Path, tagger: Tagger, tmp_path: Path) -> None:
    """A model compared with itself differs by exactly nothing in every draw."""
    rows = "".join(f"{'x' * number}.wav,{NAMES[number % 3]}\n" for number in range(7))
    result = run(folder, "file,labels\n" + rows, [tagger, tagger], thresholds=(0.4,))
    assert {each.measure for each in result.differences} >= {"mAP", "brier", "false_alarms_per_hour"}
    for each in result.differences:
        if not math.isnan(each.difference.value):
            assert (each.difference.low, each.difference.value, each.difference.high) == (0, 0, 0)


def test_without_labels_only_false_alarms_are_measured(folder: Path, tagger: Tagger) -> None:
    """A recording without any of the labels gives false alarms per hour, with the Poisson interval."""
    result = run(folder, f"file,labels\n{'x' * 6}.wav,\n", [tagger], truth="events", thresholds=(0.001,))
    (model,) = result.models
    assert model.measures == {}
    own, low = model.alerts
    assert low.threshold == 0.001 and low.false_alarms > own.false_alarms
    assert low.false_alarms_per_hour.value == pytest.approx(low.false_alarms / result.hours)
    assert low.false_alarms_per_hour.low < low.false_alarms_per_hour.value < low.false_alarms_per_hour.high
    assert "No label is present" in result.notes[0]


def test_a_segment_of_audioset_may_be_the_file_itself(folder: Path, tagger: Tagger) -> None:
    """A file named by the video alone is the clip if it is as short as the clip; a longer file is cut."""
    media = folder / "media"
    media.mkdir(exist_ok=True)
    write_clip(media / "abcdefghijk.wav", audio_s=2)
    write_clip(media / "abcdefghijl.wav", audio_s=5)
    text = 'abcdefghijk, 30.000, 32.000, "/m/0bt9lr"\nabcdefghijl, 3.000, 5.000, "/m/09x0r"\n'
    result = run(folder, text, [tagger], media=media)
    assert result.units == (2,) and result.failures == ()
    assert result.hours == pytest.approx(4 / 3600, rel=0.02)


def test_what_cannot_be_measured_is_refused(folder: Path, tagger: Tagger) -> None:
    """No readable file, no known label, and AudioSet's lists as events are one line each."""
    with pytest.raises(ConfigError, match="none of its 1 files exists; line 2"):
        run(folder, "file,labels\ngone.wav,Dog\n", [tagger])
    with pytest.raises(ConfigError, match=r"line 2: unknown label 'Dgo'; did you mean 'Dog'\?"):
        run(folder, "file,labels\nx.wav,Dgo\n", [tagger])
    with pytest.raises(ConfigError, match="say what a clip has, not when"):
        run(folder, 'abcdefghijk, 0.000, 2.000, "/m/0bt9lr"\n', [tagger], truth="events", media=folder / "media")
    (folder / "broken.wav").write_text("no media")
    with pytest.raises(MediaError, match="no file can be measured; the first: "):
        run(folder, "file,labels\nbroken.wav,Dog\n", [tagger])
