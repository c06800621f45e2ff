"""The tagger: plain arrays in, scores out, with any modality missing."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from perceiverd.core.errors import ConfigError
from perceiverd.core.labels import Label
from perceiverd.model.card import Card, load_card
from perceiverd.model.checkpoint import save_model
from perceiverd.model.cuda.devices import device_of
from perceiverd.model.geometry import Audio, Geometry, StemGeometry, Trunk, Video
from perceiverd.model.perceiver import Perceiver
from perceiverd.pipeline.tagger import Tagger
from perceiverd.pipeline.windower import Window

TRUNK = Trunk(latents=3, width=8, cross_attends=1, layers=1, heads=2)
GEOMETRY = Geometry(
    classes=5,
    trunk=TRUNK,
    audio=Audio(rate_hz=16_000, samples=1_600, form="mel", patch=(5, 16), bands=2),
    video=Video(frames=3, fps=30, height=6, width=10, patch=(3, 3, 5), bands=2),
)


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Card:
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    network = Perceiver(GEOMETRY.modalities, GEOMETRY.trunk, GEOMETRY.classes)
    labels = [Label(i, f"/m/{i}", str(i)) for i in range(5)]
    save_model(folder, network, GEOMETRY, labels, name="tiny", licence="CC0-1.0")
    return load_card(folder)


def window(seed: int, *, audio: bool = True, video: bool = True) -> Window:
    rng = np.random.default_rng(seed)
    samples = rng.normal(0, 0.1, 1_600).astype(np.float32)
    frames = rng.integers(0, 256, (3, 6, 10, 3), dtype=np.uint8)
    return Window(0, 100_000_000, samples if audio else None, frames if video else None)


def test_scores_do_not_depend_on_the_batch(card: Card) -> None:
    """A window's scores are the same alone and in a batch whose other windows lack a modality."""
    tagger = Tagger(card, "cpu")
    windows = [window(1), window(2, audio=False), window(3, video=False), window(4)]
    together = tagger.tag(windows)
    assert together.shape == (4, 5) and together.dtype == np.float32
    assert ((together > 0) & (together < 1)).all()
    for row, one in enumerate(windows):
        np.testing.assert_allclose(tagger.tag([one])[0], together[row], atol=1e-6)


def test_both_modalities_count(card: Card) -> None:
    """Without audio, or without video, the scores are others."""
    tagger = Tagger(card, "cpu")
    both, video, audio = (tagger.tag([window(1, **kw)]) for kw in ({}, {"audio": False}, {"video": False}))
    assert np.abs(both - video).max() > 1e-4 and np.abs(both - audio).max() > 1e-4


def test_an_empty_window_is_refused(card: Card) -> None:
    """A window with neither modality is a mistake of the caller and raises ValueError."""
    with pytest.raises(ValueError, match="neither"):
        Tagger(card, "cpu").tag([window(1), window(2, audio=False, video=False)])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_missing_gpu_is_an_error(card: Card) -> None:
    """If CUDA is missing, the error names the devices to use instead."""
    with pytest.raises(ConfigError, match="use cpu or auto"):
        Tagger(card, "cuda")


@pytest.mark.parametrize("name", ["gpu", "mps", "cuda:x", "cuda:99", ""])
def test_an_unknown_device_is_an_error(card: Card, name: str) -> None:
    """An unknown name, or a number too high, is one line and not torch's traceback."""
    with pytest.raises(ConfigError, match="device"):
        Tagger(card, name)


def test_warming_up_tags_an_empty_window(card: Card) -> None:
    """The first inference happens before the first real window; zeros of every modality fit the model."""
    Tagger(card, "cpu").warm_up()
    empty = Window.empty(GEOMETRY)
    assert empty.audio is not None and empty.audio.shape == (1_600,)
    assert empty.video is not None and empty.video.shape == (3, 6, 10, 3)
    assert empty.end_ns - empty.start_ns == GEOMETRY.window_ns


def test_warming_up_takes_the_kinds_of_windows_that_will_come(card: Card) -> None:
    """For each kind there is one empty window with its modalities; what the model lacks is left out."""
    assert Window.empty(GEOMETRY, ["audio"]).modalities == ("audio",)
    assert Window.empty(GEOMETRY, ["video", "smell"]).modalities == ("video",)
    Tagger(card, "cpu").warm_up([["audio"], ["audio", "video"], []])


def test_each_process_can_have_its_own_gpu() -> None:
    """`index` is the GPU of `auto` and `cuda`; a name with a number keeps its own, and `cpu` has none."""
    assert device_of("cpu", 3) == torch.device("cpu")
    if not torch.cuda.is_available():
        assert device_of("auto", 3) == torch.device("cpu")
    else:
        assert device_of("auto", 0) == device_of("cuda", 0) == torch.device("cuda", 0)
        assert device_of("cuda:0", 5) == torch.device("cuda", 0)


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Card:
    """A model whose video has a stem."""
    stem = StemGeometry(("conv 3/2 6", "separable 3/2 8"))
    video = Video(frames=2, fps=20, height=12, width=20, patch=(1, 4, 4), bands=2, stem=stem)
    geometry = Geometry(classes=5, trunk=TRUNK, video=video)
    folder = tmp_path_factory.mktemp("seeing")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Perceiver(geometry.modalities, TRUNK, 5)
    labels = [Label(i, f"/m/{i}", str(i)) for i in range(5)]
    save_model(folder, network, geometry, labels, name="seeing", licence="CC0-1.0")
    return load_card(folder)


def test_a_frame_is_computed_once(seeing: Card) -> None:
    """A frame that an earlier window had is not computed again; the scores are those of a tagger without memory."""
    rng = np.random.default_rng(3)
    frames = [rng.integers(0, 256, (12, 20, 3), dtype=np.uint8) for _ in range(5)]
    windows = [Window(0, 1, None, pair) for pair in pairwise(frames)]
    tagger = Tagger(seeing, "cpu", engine="onnxruntime")
    reused: list[int] = []
    for each in windows:
        kept = tagger.tag([each])
        reused += tagger.reused_frames
        np.testing.assert_allclose(kept, Tagger(seeing, "cpu", engine="onnxruntime").tag([each]), atol=1e-6)
    assert reused == [0, 1, 1, 1]
    np.testing.assert_allclose(tagger.tag(windows), Tagger(seeing, "cpu", engine="torch").tag(windows), atol=1e-5)


def test_features_go_with_their_frame(seeing: Card) -> None:
    """Nothing is kept of a frame that nobody holds any more: memory does not grow with the stream."""
    tagger = Tagger(seeing, "cpu", engine="onnxruntime")
    rng = np.random.default_rng(4)
    for _ in range(20):
        frames = tuple(rng.integers(0, 256, (2, 12, 20, 3), dtype=np.uint8))
        tagger.tag([Window(0, 1, None, frames)])
        assert len(tagger._features) == 2
    del frames
    assert len(tagger._features) == 0


def test_both_engines_give_the_same_scores(card: Card) -> None:
    """Windows of any mix of modalities have the same scores in both engines."""
    windows = [window(1), window(2, audio=False), window(3, video=False), window(4)]
    found = Tagger(card, "cpu", engine="onnxruntime").tag(windows)
    wanted = Tagger(card, "cpu", engine="torch").tag(windows)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
