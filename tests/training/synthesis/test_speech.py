"""Synthetic speech: every phrase once, and the same bytes each time."""

import shutil
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from perceiverd.training.data.corpus import samples_of
from perceiverd.training.synthesis import speech
from perceiverd.training.synthesis.sentences import PHRASES


def arguments(render: Callable[[], bytes]) -> tuple[Any, ...]:
    """What a sound will be rendered from."""
    assert isinstance(render, partial)
    return render.args


@pytest.mark.parametrize("engine", sorted(speech.AT_ONCE))
def test_every_phrase_is_said(engine: str) -> None:
    """A voice says all phrases of its language, at other speeds each, under paths of its own."""
    found = list(speech.sounds(engine, ["de:one", "en:two"]))
    said = [arguments(render)[2] for _, render, _ in found]
    assert " ".join(said) == " ".join(PHRASES["de"] + PHRASES["en"])
    assert len({path for path, _, _ in found}) == len(found)
    assert found[0][0] == "one/de-00.wav"
    assert {labels for _, _, labels in found} == {("Speech", "Speech synthesizer")}
    speeds = [arguments(render)[3] for _, render, _ in found]
    assert all(0.75 < speed < 1.3 for speed in speeds)
    assert len(set(speeds)) > 1


@pytest.mark.parametrize(("engine", "voice"), [("espeak-ng", "en:en-gb+f2"), ("flite", "en:kal")])
def test_speech_is_the_same_each_time(engine: str, voice: str) -> None:
    """What a program says is sound of some seconds, twice the same."""
    if shutil.which(engine) is None:
        pytest.skip(f"needs {engine}")
    _, say, _ = next(iter(speech.sounds(engine, [voice])))
    one = say()
    assert one == say()
    pcm = samples_of(one)
    assert 2 < len(pcm) / 16_000 < 12
    assert np.abs(pcm).max() > 1_000
