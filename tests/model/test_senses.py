"""The head that starts from what each sense says: equal to a slow reference, and neither sense hides the other."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from perceiverd.model.geometry import Audio, Geometry, SenseGeometry, StemGeometry, Trunk, Video
from perceiverd.model.inference import Inference
from perceiverd.model.perceiver import Perceiver
from perceiverd.model.senses import ABSENT, JOINT_CENTRE, JOINT_SPREAD, SensesHead, either

LABELS, CLASSES = 7, 11
AUDIO = Audio(
    rate_hz=16_000,
    samples=160 * 12,
    form="mel",
    patch=(4, 4),
    bands=1,
    mel_bands=20,
    stem=StemGeometry(layers=("conv 3/2 5", "separable 3/2 13"), border=(1.4,)),
    sense=SenseGeometry(LABELS),
)
VIDEO = Video(
    frames=3,
    fps=25,
    height=4,
    width=6,
    patch=(1, 2, 2),
    bands=1,
    stem=StemGeometry(layers=("conv 3/2 8", "conv 1 17"), border=(0.5, 0.4, 0.3)),
    sense=SenseGeometry(LABELS, CLASSES),
)
GEOMETRY = Geometry(LABELS + 2, Trunk(5, 12, 2, 1, 3, head="senses"), AUDIO, VIDEO)


@pytest.fixture
def network() -> Perceiver:
    """A random network whose last layer hands on what the senses say; label 3 has two classes."""
    torch.manual_seed(3)
    found = Perceiver(GEOMETRY.modalities, GEOMETRY.trunk, GEOMETRY.classes).double().eval()
    assert isinstance(found.head, SensesHead)
    with torch.no_grad():
        found.head.senses["video"].table[[2, 9], 3] = 1  # type: ignore[operator]
    return found


def contents(batch: int = 4) -> dict[str, torch.Tensor]:
    torch.manual_seed(4)
    return {m.name: torch.randn(batch, m.tokens, m.values, dtype=torch.float64) for m in GEOMETRY.modalities}


def test_an_untrained_model_says_what_its_senses_say(network: Perceiver) -> None:
    """The logits are those of the classifiers of the stems' means; labels that no sense scores are unlikely."""
    window = contents()
    weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    with torch.no_grad():
        means = {name: values.mean(1).numpy() for name, values in network.bytes.convolve(window).items()}
        audible, visible = (network({name: window[name]}).numpy() for name in ("audio", "video"))
        both = network(window).numpy()
    own = "head.senses.audio.direct"
    expected = means["audio"] @ weights[f"{own}.weight"].T + weights[f"{own}.bias"]
    np.testing.assert_allclose(audible[:, :LABELS], expected, atol=1e-9)
    classes = np.exp(means["video"] @ weights["head.senses.video.classes.weight"].T)
    share = (classes / classes.sum(1, keepdims=True))[:, [2, 9]].sum(1)
    direct = means["video"] @ weights["head.senses.video.direct.weight"].T
    np.testing.assert_allclose(visible[:, 3], direct[:, 3] + np.log(share / (1 - share)), atol=1e-9)
    p, q = (1 / (1 + np.exp(-one)) for one in (audible, visible))
    np.testing.assert_allclose(1 / (1 + np.exp(-both[:, :LABELS])), (1 - (1 - p) * (1 - q))[:, :LABELS], atol=1e-9)
    assert (both[:, LABELS:] == JOINT_CENTRE).all()


def test_what_one_sense_is_sure_of_the_other_cannot_hide() -> None:
    """Two logits together are at least the higher one; an absent sense changes nothing."""
    torch.manual_seed(0)
    one, other = 6 * torch.randn(2, 1001, dtype=torch.float64)
    assert (either(one, other) >= torch.maximum(one, other)).all()
    torch.testing.assert_close(either(one, torch.full_like(one, ABSENT)), one, atol=1e-4, rtol=0)


def test_a_masked_sense_says_nothing(network: Perceiver) -> None:
    """In a mixed batch, a window without a modality has the logits that it has alone, in both forms of inference."""
    window = contents()
    present = {"audio": torch.tensor([True, False, True, True]), "video": torch.tensor([True, True, False, True])}
    with torch.no_grad():
        together = network(window, present)
        alone = network({"video": window["video"]})
    torch.testing.assert_close(together[1], alone[1], atol=1e-6, rtol=0)
    for factorised in (True, False):
        found = Inference(network, factorised)(window, present)
        torch.testing.assert_close(found, together, atol=1e-9, rtol=1e-9)


def test_the_last_layer_reads_latents_too(network: Perceiver) -> None:
    """The inputs of the last layer are the mean of the latents, then the centred logits of the senses."""
    window = contents()
    assert GEOMETRY.vector_width == network.head.out.in_features == 12 + LABELS
    with torch.no_grad():
        before, latents = network(window), network.encode(network.bytes.convolve(window)).mean(1)
        network.head.out.weight[2, 4] = 3.0
        torch.testing.assert_close(network(window)[:, 2], before[:, 2] + 3 * latents[:, 4])
        network.head.out = torch.nn.Identity()  # type: ignore[assignment]
        vectors = network(window)
    torch.testing.assert_close(vectors[:, 12:] * JOINT_SPREAD + JOINT_CENTRE, before[:, :LABELS])


def test_a_border_is_what_lies_beyond_the_edge(network: Perceiver) -> None:
    """An input that equals the border everywhere looks endless: all tokens of the stem's output are the same."""
    flat = torch.full((1, *contents()["audio"].shape[1:]), 1.4, dtype=torch.float64)
    with torch.no_grad():
        found = network.bytes.convolve({"audio": flat})["audio"]
    torch.testing.assert_close(found, found[:, :1].expand_as(found))


@pytest.mark.parametrize(
    ("trunk", "audio", "words"),
    [
        (Trunk(5, 12, 2, 1, 3), AUDIO, "audio.sense is given, but trunk.head is not senses"),
        (GEOMETRY.trunk, None, "video.sense needs video.stem"),
    ],
)
def test_senses_and_head_belong_together(trunk: Trunk, audio: Audio | None, words: str) -> None:
    """A sense without its head or stem is an error."""
    video = Video(frames=3, fps=25, height=4, width=6, patch=(1, 2, 2), bands=1, sense=SenseGeometry(LABELS))
    with pytest.raises(ValueError, match=words):
        Geometry(LABELS, trunk, audio, None if audio else video)
