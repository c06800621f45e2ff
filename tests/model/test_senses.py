"""The head that starts from what each sense says: equal to a slow reference, and neither sense hides the other."""

from __future__ import annotations

import msgspec
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
COMPLETE_ONLY = Geometry(
    LABELS + 2,
    Trunk(5, 12, 2, 1, 3, head="senses", complete_only=True),
    msgspec.structs.replace(AUDIO, sense=SenseGeometry(LABELS, pooled=True)),
    VIDEO,
)
KINDS = (("audio", "video"), ("audio",), ("video",))


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


@pytest.fixture
def sparing() -> Perceiver:
    """A random network whose latents read complete windows only; its last layer also reads the audio's stem."""
    torch.manual_seed(3)
    found = Perceiver(COMPLETE_ONLY.modalities, COMPLETE_ONLY.trunk, COMPLETE_ONLY.classes).double().eval()
    for parameter in found.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return found


def test_the_vector_has_its_parts_in_order(sparing: Perceiver) -> None:
    """Mean of the latents, mean of the audio's stem, what the senses say; what a window lacks is zero."""
    window = contents()
    assert COMPLETE_ONLY.vector_parts == {"latents": 12, "audio": 13, "joint": LABELS}
    assert COMPLETE_ONLY.vector_width == sparing.head.out.in_features == 12 + 13 + LABELS
    with torch.no_grad():
        convolved = sparing.bytes.convolve(window)
        latents, means = sparing.encode(convolved).mean(1), convolved["audio"].mean(1)
        sparing.head.out = torch.nn.Identity()  # type: ignore[assignment]
        both, heard, seen = (sparing({name: window[name] for name in names}) for names in KINDS)
    torch.testing.assert_close(both[:, :25], torch.cat([latents, means], dim=1))
    torch.testing.assert_close(heard[:, :25], torch.cat([torch.zeros_like(latents), means], dim=1))
    assert (seen[:, :25] == 0).all() and (seen[:, 25:] != 0).all()


@pytest.mark.parametrize("factorised", [True, False])
def test_latents_that_are_not_read_are_not_computed(sparing: Perceiver, factorised: bool) -> None:
    """With latents of NaN, a window with one modality has its logits, and a complete one has none."""
    window = contents()
    with torch.no_grad():
        wanted = [sparing({name: window[name] for name in names}) for names in KINDS]
        sparing.latents.fill_(torch.nan)
    ready = Inference(sparing, factorised)
    both, heard, seen = (ready({name: window[name] for name in names}) for names in KINDS)
    torch.testing.assert_close(heard, wanted[1])
    torch.testing.assert_close(seen, wanted[2])
    assert both.isnan().all()


def test_a_batch_may_mix_complete_windows_with_others(sparing: Perceiver) -> None:
    """Each window of a mixed batch has the logits that it has alone, even if the memory of what it lacks is NaN."""
    window = contents()
    present = {"audio": torch.tensor([True, False, True, True]), "video": torch.tensor([True, True, False, True])}
    with torch.no_grad():
        wanted = sparing(window)
        wanted[1] = sparing({"video": window["video"]})[1]
        wanted[2] = sparing({"audio": window["audio"]})[2]
        together = sparing(window, present)
        window["audio"][1] = window["video"][2] = torch.nan
    torch.testing.assert_close(together, wanted, atol=1e-6, rtol=0)
    torch.testing.assert_close(Inference(sparing, factorised=True)(window, present), wanted, atol=1e-6, rtol=0)


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


def test_only_a_head_of_senses_can_do_without_latents() -> None:
    """Another head has nothing to judge a window from that its latents do not read."""
    with pytest.raises(ValueError, match=r"trunk\.complete_only needs head senses, not mean"):
        Trunk(5, 12, 2, 1, 3, complete_only=True)
