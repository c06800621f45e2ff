"""Changes to audio: crops report their level, and speed changes the pitch."""

from pathlib import Path

import numpy as np
import pytest

from perceiverd.training.data.augment import WINDOW, crop
from perceiverd.training.data.corpus import HOP, RATE_HZ, Clip, Corpus
from perceiverd.training.data.mixtures import SILENT_DB
from tests.support.small_corpus import CLIPS, small_corpus


def test_a_crop_reports_its_level(tmp_path: Path) -> None:
    """A crop of the silent part reports a level below SILENT_DB, a crop of the loud part does not."""
    corpus, rng = small_corpus(tmp_path), np.random.default_rng(1)
    crops = [crop(corpus, CLIPS[0], rng, 1.0) for _ in range(300)]
    for wave, below_db in crops:
        assert (below_db > SILENT_DB) == (np.abs(wave).max() < 1e-6) or below_db < SILENT_DB
    assert sum(below_db > SILENT_DB for _, below_db in crops) < 60
    assert min(below_db for _, below_db in crops) == 0


@pytest.mark.parametrize("speed", [0.85, 1.0, 1.175])
def test_speed_changes_the_pitch(tmp_path: Path, speed: float) -> None:
    """A tone of 1 kHz played at another speed comes out at that many times 1 kHz, as loud as before."""
    pcm = (8192 * np.sin(2 * np.pi * 1000 * np.arange(20 * HOP) / RATE_HZ)).astype(np.int16)
    pcm.tofile(tmp_path / "pcm.i16")
    np.full(20, -15, np.int8).tofile(tmp_path / "level.i8")
    (tmp_path / "index.tsv").write_text("\t".join(Clip.__dataclass_fields__) + "\n")
    tone = Clip(**{**vars(CLIPS[6]), "offset": 0, "samples": len(pcm)})
    wave, _ = crop(Corpus(tmp_path), tone, np.random.default_rng(2), speed)
    peak_hz = np.abs(np.fft.rfft(wave)).argmax() * RATE_HZ / WINDOW
    assert peak_hz == pytest.approx(1000 * speed, rel=0.003)
    assert np.sqrt(np.mean(wave**2)) == pytest.approx(1, rel=0.05)
