"""The quiet set and the alarms in it."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from perceiverd.core.labels import ontology
from perceiverd.model.card import load_card
from perceiverd.model.geometry import Audio, Geometry, Trunk
from perceiverd.pipeline.tagger import Tagger
from perceiverd.training.data import ambient
from perceiverd.training.data.ambient import SIGHTS, SOUNDS, Stream, cut, listen, look, streams
from perceiverd.training.evaluation.false_alarms import event_levels, events, report, smoothed, stream_levels

AT = {label.name: label.index for label in ontology().labels}
EAR = Geometry(
    classes=527,
    trunk=Trunk(latents=4, width=16, cross_attends=1, layers=1, heads=2),
    audio=Audio(rate_hz=16_000, samples=8_000, form="raw", patch=(160,), bands=2),
)


@pytest.mark.parametrize("kind", SOUNDS)
def test_quiet_sounds_are_quiet(kind: str) -> None:
    """Each is finite, of 16 bits, seldom above -20 dB, and a function of its seed."""
    wave = listen(kind, np.random.default_rng(3), 10)
    assert wave.dtype == np.float32 and wave.shape == (160_000,)
    assert np.array_equal(wave, np.round(wave * 32768) / 32768)
    assert np.sqrt(np.mean((wave - wave.mean()) ** 2)) < 0.1
    assert np.array_equal(wave, listen(kind, np.random.default_rng(3), 10))
    assert kind == "digital silence" or not np.array_equal(wave, listen(kind, np.random.default_rng(4), 10))


@pytest.mark.parametrize("kind", SIGHTS)
def test_pictures_of_nothing_hardly_move(kind: str) -> None:
    """Frames are alike, but for noise and light, and a frozen scene is the same to the bit."""
    scene = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    frames = np.stack(list(look(kind, np.random.default_rng(1), 10, [scene], 16, 24)))
    assert frames.shape == (125, 16, 24, 3)
    assert np.abs(np.diff(frames.astype(float), axis=0)).mean() < 40
    assert (kind == "frozen scene") == bool((frames == frames[0]).all()) or kind == "black"


def test_streams_are_a_function_of_seed_and_number(tiny_model: Path) -> None:
    """The same seed gives the same streams, and a model of both senses gets sound, pictures and both."""
    geometry = load_card(tiny_model).geometry
    one, other = (list(streams(geometry, [], 5, 36 / 3600, 6)) for _ in range(2))
    assert len(one) == 6
    assert {stream.sense for stream in one} == {"sound alone", "pictures alone", "sound and pictures"}
    for a, b in zip(one, other, strict=True):
        assert a.kind == b.kind
        assert a.sound is None or b.sound is None or np.array_equal(a.sound, b.sound)
        assert a.sight is None or b.sight is None or np.array_equal(next(a.sight), next(b.sight))
    assert all(stream.sight is None for stream in streams(EAR, [], 5, 36 / 3600, 6))


def test_windows_are_cut_as_the_daemon_cuts_them(tiny_model: Path) -> None:
    """A window every half second, with both senses where the stream has both."""
    both = next(
        stream for stream in streams(load_card(tiny_model).geometry, [], 1, 1, 10) if stream.sense.endswith("pictures")
    )
    windows = list(cut(load_card(tiny_model).geometry, both))
    assert np.diff([window.start_ns for window in windows[:-1]]).tolist() == [500_000_000] * (len(windows) - 2)
    assert len(windows) >= 19
    assert all(window.modalities == ("audio", "video") for window in windows[:-1])


def rows(name: str, values: list[float]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Scores (T, classes) with these values for one label."""
    scores = np.zeros((len(values), 527))
    scores[:, AT[name]] = values
    return scores


THRESHOLDS = np.full(527, 0.5)


def test_one_window_is_no_event() -> None:
    """A single high window, even among low ones, makes no event; a few in a row make one, that goes on."""
    assert events(rows("Dog", [0.0] * 5 + [0.95] + [0.0] * 5), THRESHOLDS, 0.5) == []
    (event,) = events(rows("Dog", [0.0] * 5 + [0.95] * 20), THRESHOLDS, 0.5)
    assert event.label == AT["Dog"] and event.window == 6


def test_what_comes_back_soon_is_the_same_event() -> None:
    """A gap of a second is bridged, one of five seconds is not."""
    on, off = [0.9] * 6, [0.0] * 2
    assert len(events(rows("Dog", on + off + on), THRESHOLDS, 0.5)) == 1
    assert len(events(rows("Dog", on + off * 5 + on), THRESHOLDS, 0.5)) == 2


def test_the_label_below_stands_for_those_above() -> None:
    """Who barks is a dog, but that makes one event, not two; a parent with a lower threshold fires by its child."""
    found = events(rows("Bark", [0.9] * 6), THRESHOLDS, 0.5)
    assert [event.label for event in found] == [AT["Bark"]]
    low = THRESHOLDS.copy()
    low[AT["Dog"]] = 0.3
    assert [event.label for event in events(rows("Bark", [0.4] * 6), low, 0.5)] == [AT["Dog"]]


@pytest.mark.parametrize("name", ["Dog", "Bark"])
def test_what_is_reached_is_where_events_begin(name: str) -> None:
    """Just below the level that was reached there is an event, just above it there is none."""
    rng = np.random.default_rng(4)
    scores = rows(name, rng.random(40).tolist())
    level = event_levels(scores, 0.5)[AT[name]]
    assert 0 < level < scores.max()
    for shift, wanted in ((-1e-6, True), (1e-6, False)):
        thresholds = np.full(527, 0.999)
        thresholds[AT[name]] = level + shift
        assert bool(events(scores, thresholds, 0.5)) == wanted


def test_smoothing_forgets_by_time() -> None:
    """After its time constant a step is 63 % done, whatever the hop."""
    for hop in (0.1, 0.25, 0.5):
        steps = round(0.5 / hop)
        level = smoothed(rows("Dog", [0.0] + [1.0] * steps), hop)[-1, AT["Dog"]]
        assert level == pytest.approx(1 - np.exp(-1))


def test_false_alarms_are_counted_by_kind_and_label(tiny_model: Path) -> None:
    """At thresholds that everything passes each kind has alarms, those that are right aside; at high ones none has."""
    tagger = Tagger(load_card(tiny_model))
    text = "\n".join(report(tagger, itertools.islice(streams(tagger.card.geometry, [], 2, 1, 10), 3)))
    assert "| all | 0.01 |" in text
    assert "| digital silence | 0.00 |" in text
    grid = stream_levels(tagger, itertools.islice(streams(tagger.card.geometry, [], 2, 1, 10), 3))
    assert grid.shape == (3, 527)
    assert (grid[:, AT["Silence"]] == 0).all() and (grid[:, AT["Dog"]] > 0).all()


def test_a_fan_may_be_called_a_fan() -> None:
    """What a stream is, is right in that stream and wrong in others."""
    fan, hiss = (Stream(kind, np.zeros(1, np.float32), None, 1) for kind in ("fan + black", "hiss"))
    assert "Mechanical fan" in ambient.right(fan) and "Mechanical fan" not in ambient.right(hiss)
    assert "Silence" in ambient.right(hiss)
