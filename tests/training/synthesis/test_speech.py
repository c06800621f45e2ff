"""Synthetic speech: every sentence once, and the same bytes each time."""

import shutil

import numpy as np
import pytest

from perceiverd.training.data.corpus import samples_of
from perceiverd.training.synthesis import speech
from perceiverd.training.synthesis.sentences import SENTENCES
from tests.support.soundfonts import arguments


@pytest.mark.parametrize("engine", sorted(speech.AT_ONCE))
def test_every_sentence_is_spoken(engine: str) -> None:
    """A voice speaks all sentences of its language, each sound at its own speed and with its own path."""
    found = list(speech.sounds(engine, ["de:one", "en:two"]))
    texts = [arguments(render)[2] for _, render, _ in found]
    assert " ".join(texts) == " ".join(SENTENCES["de"] + SENTENCES["en"])
    assert len({path for path, _, _ in found}) == len(found)
    assert found[0][0] == "one/de-00.wav"
    assert {labels for _, _, labels in found} == {("Speech", "Speech synthesizer")}
    speeds = [arguments(render)[3] for _, render, _ in found]
    assert all(0.75 < speed < 1.3 for speed in speeds)
    assert len(set(speeds)) > 1


@pytest.mark.parametrize(("engine", "voice"), [("espeak-ng", "en:en-gb+f2"), ("flite", "en:kal")])
def test_speech_is_the_same_each_time(engine: str, voice: str) -> None:
    """A program renders some seconds of sound, and the same bytes again."""
    if shutil.which(engine) is None:
        pytest.skip(f"needs {engine}")
    _, render, _ = next(iter(speech.sounds(engine, [voice])))
    one = render()
    assert one == render()
    pcm = samples_of(one)
    assert 2 < len(pcm) / 16_000 < 12
    assert np.abs(pcm).max() > 1_000
