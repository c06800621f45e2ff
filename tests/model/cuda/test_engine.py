"""The engine for GPUs: padded batches, two at once, mixed modalities. On the CPU it runs without graphs and streams."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from perceiverd.core.errors import ConfigError
from perceiverd.model.card import Card, load_card
from perceiverd.model.cuda.engine import CudaEngine, checked
from perceiverd.model.engine import WindowMedia
from perceiverd.model.mixed_batches import grouped_logits
from perceiverd.model.torch_engine import TorchEngine
from tests.support.devices import DEVICES


@pytest.fixture(scope="module")
def card(tiny_model: Path) -> Card:
    return load_card(tiny_model)


def windows(card: Card, kinds: str, seed: int = 0) -> list[WindowMedia]:
    """A window for each letter: `a` has audio, `v` video, `b` both."""
    rng, audio, video = np.random.default_rng(seed), card.geometry.audio, card.geometry.video
    assert audio and video
    found = []
    for kind in kinds:
        samples = rng.uniform(-1, 1, audio.samples).astype(np.float32)
        frames = rng.integers(0, 256, (video.frames, video.height, video.width, 3), dtype=np.uint8)
        found.append(WindowMedia(None if kind == "v" else samples, None if kind == "a" else list(frames)))
    return found


def wanted(card: Card, media: list[WindowMedia]) -> np.ndarray:
    return grouped_logits(TorchEngine(card, "cpu"), media)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kinds", ["b", "ab", "bvaab", "vvv"])
def test_mixed_batches_have_the_logits_of_the_cpu(card: Card, kinds: str, device: str) -> None:
    """In float32, windows with different modalities in one batch have the logits of the plain engine, to 1e-4."""
    engine = CudaEngine(card, torch.device(device), "float32", sizes=(1, 2, 8))
    media = windows(card, kinds)
    np.testing.assert_allclose(engine.submit(media).logits(), wanted(card, media), atol=1e-4)


@pytest.mark.parametrize("device", DEVICES)
def test_batches_do_not_disturb_one_another(card: Card, device: str) -> None:
    """Batches of any size, some without reading the one before, each keep their own logits, also read twice."""
    engine = CudaEngine(card, torch.device(device), "float32", sizes=(1, 2, 4))
    engine.prepare()
    batches = [windows(card, kinds, seed) for seed, kinds in enumerate(("bbb", "a", "vb", "b", "abab"))]
    pending = [engine.submit(media) for media in batches]
    for media, each in reversed(list(zip(batches, pending, strict=True))):
        np.testing.assert_allclose(each.logits(), wanted(card, media), atol=1e-4)
        assert each.is_ready
        np.testing.assert_array_equal(each.logits(), each.logits())


@pytest.mark.parametrize("device", DEVICES)
def test_padding_has_no_effect(card: Card, device: str) -> None:
    """What an earlier batch left in the padded rows, and poison in the logits there, do not reach a window."""
    engine = CudaEngine(card, torch.device(device), "float32", sizes=(1, 8))
    media = windows(card, "bab")
    for slot in engine._slots:
        slot.logits.fill_(float("nan"))
    first = engine.submit(media).logits()
    engine.submit(windows(card, "vbbbbbbb", seed=9)).logits()
    engine.submit(windows(card, "abababab", seed=10)).logits()
    np.testing.assert_array_equal(engine.submit(media).logits(), first)
    assert np.isfinite(first).all()


def test_sizes_are_the_next_larger_one(card: Card) -> None:
    """A batch is padded to the next size; one that is too large is a mistake of the caller."""
    engine = CudaEngine(card, torch.device("cpu"), sizes=(1, 2, 8))
    assert [engine.size_of(count) for count in (1, 2, 3, 8)] == [1, 2, 8, 8]
    for count in (0, 9):
        with pytest.raises(ValueError, match="do not fit"):
            engine.size_of(count)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_keeps_the_scores(card: Card, precision: str, device: str) -> None:
    """Logits in half precision are within a twentieth of the range of float32's."""
    media = windows(card, "bvab")
    engine = CudaEngine(card, torch.device(device), precision, sizes=(4,))  # type: ignore[arg-type]
    exact = wanted(card, media)
    assert np.abs(engine.submit(media).logits() - exact).max() < 0.05 * np.ptp(exact)


@pytest.mark.gpu
def test_a_card_without_bfloat16_says_so() -> None:
    """A precision that the tensor cores lack is an error with the one to use."""
    if torch.cuda.get_device_capability() >= (8, 0):
        pytest.skip("this card has bfloat16")
    with pytest.raises(ConfigError, match="use auto"):
        checked("bfloat16", torch.device("cuda"))


@pytest.mark.gpu
def test_memory_is_flat_and_nothing_is_recorded_again(card: Card) -> None:
    """After the warm-up, batches of random sizes allocate nothing and record no graph."""
    engine = CudaEngine(card, torch.device("cuda"), sizes=(1, 2, 4, 8))
    engine.prepare()
    rng = np.random.default_rng(0)
    graphs = engine._graphs.sizes
    before = torch.cuda.memory_reserved()
    for _ in range(300):
        engine.submit(windows(card, "".join(rng.choice(list("abv"), rng.integers(1, 9))))).logits()
    assert torch.cuda.memory_reserved() == before and engine._graphs.sizes == graphs
