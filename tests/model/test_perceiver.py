"""The network has the published parameter counts, and equals a slow reference without torch's layers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional

from perceiverd.model.encoding import mel_tokens, positions, video_tokens
from perceiverd.model.geometry import Audio, Geometry, Modality, StemGeometry, Trunk, Video
from perceiverd.model.perceiver import Perceiver, Stem


def millions(modalities: tuple[Modality, ...], trunk: Trunk, classes: int) -> float:
    with torch.device("meta"):
        return sum(p.numel() for p in Perceiver(modalities, trunk, classes).parameters()) / 1e6


@pytest.mark.parametrize(
    ("cross_attends", "shared", "published"), [(8, True, 44.91), (8, False, 326.24), (1, False, 42.14)]
)
def test_imagenet_parameter_counts_are_the_published_ones(cross_attends: int, shared: bool, published: float) -> None:
    """ImageNet's Perceiver has the published number of parameters, with and without weight sharing."""
    pixels = Modality("image", (224, 224), patch=(1, 1, 3), bands=64)
    trunk = Trunk(512, 1024, cross_attends, layers=6, heads=8, shared=shared, modality_channels=0)
    assert millions((pixels,), trunk, 1000) == pytest.approx(published, abs=0.005)


def test_audioset_parameter_count_is_the_published_one() -> None:
    """AudioSet's D = 512 model has 20.97 M parameters and a byte array of 487 channels."""
    geometry = Geometry(
        classes=527,
        trunk=Trunk(512, 512, cross_attends=1, layers=12, heads=8),
        audio=Audio(rate_hz=48_000, samples=61_440, form="raw", patch=(128,), bands=64),
        video=Video(frames=32, fps=25, height=224, width=224, patch=(2, 8, 8), bands=16),
    )
    assert [m.tokens for m in geometry.modalities] == [480, 12_544]
    assert geometry.modalities[1].width + 4 == 487
    assert millions(geometry.modalities, geometry.trunk, 527) == pytest.approx(20.97, abs=0.005)


AUDIO = Modality("audio", (11,), patch=(7,), bands=2)
VIDEO = Modality("video", (2, 3, 5), patch=(1, 1, 13), bands=3)


def make(head: str = "mean", **changes: object) -> Perceiver:
    torch.manual_seed(5)
    sizes: dict[str, object] = {"latents": 9, "width": 12, "cross_attends": 3, "layers": 2, "heads": 3, "widening": 2}
    network = Perceiver((AUDIO, VIDEO), Trunk(**{**sizes, **changes}, head=head), 17).double().eval()  # type: ignore[arg-type]
    for parameter in network.parameters():  # so that biases are not zero and scores are far from equal
        torch.nn.init.normal_(parameter, std=0.5)
    return network


def contents(batch: int = 2) -> dict[str, torch.Tensor]:
    torch.manual_seed(6)
    return {m.name: torch.randn(batch, m.tokens, m.values, dtype=torch.float64) for m in (AUDIO, VIDEO)}


Array = NDArray[np.float64]


class SlowPerceiver:
    """The Perceiver written from the paper in numpy, one window and one query at a time."""

    def __init__(self, network: Perceiver) -> None:
        self.trunk = network.trunk
        self.w = {name: tensor.numpy() for name, tensor in network.state_dict().items()}

    def linear(self, name: str, x: Array) -> Array:
        out: Array = x @ self.w[f"{name}.weight"].T + self.w[f"{name}.bias"]
        return out

    def norm(self, name: str, x: Array) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        normal = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        out: Array = normal * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]
        return out

    def mlp(self, name: str, x: Array) -> Array:
        hidden = self.linear(f"{name}.0", x)
        return self.linear(f"{name}.2", hidden * 0.5 * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2))))

    def attention(self, name: str, queries: Array, inputs: Array, heads: int) -> Array:
        q = self.linear(f"{name}.query", queries)
        k, v = self.linear(f"{name}.key", inputs), self.linear(f"{name}.value", inputs)
        size = q.shape[1] // heads
        rows = []
        for n in range(len(q)):
            parts = []
            for h in range(heads):
                cut = slice(h * size, (h + 1) * size)
                scores = np.array([q[n, cut] @ k[m, cut] for m in range(len(k))]) / math.sqrt(size)
                shares = np.exp(scores - scores.max())
                parts.append((shares / shares.sum()) @ v[:, cut])
            rows.append(np.concatenate(parts))
        return self.linear(f"{name}.out", np.array(rows))

    def cross(self, name: str, x: Array, inputs: Array, heads: int) -> Array:
        x = x + self.attention(
            f"{name}.attention", self.norm(f"{name}.query_norm", x), self.norm(f"{name}.input_norm", inputs), heads
        )
        out: Array = x + self.mlp(f"{name}.mlp", self.norm(f"{name}.mlp_norm", x))
        return out

    def layer(self, name: str, x: Array) -> Array:
        normal = self.norm(f"{name}.norm", x)
        x = x + self.attention(f"{name}.attention", normal, normal, self.trunk.heads)
        out: Array = x + self.mlp(f"{name}.mlp", self.norm(f"{name}.mlp_norm", x))
        return out

    def bytes(self, window: dict[str, Array]) -> Array:
        tokens = []
        for modality in (AUDIO, VIDEO):
            for content, position in zip(window.get(modality.name, []), positions(modality).numpy(), strict=False):
                tokens.append(np.concatenate([content, position, self.w[f"bytes.padding.{modality.name}"]]))
        return np.array(tokens)

    def logits(self, window: dict[str, Array]) -> Array:
        inputs, latents = self.bytes(window), self.w["latents"]
        for turn in range(self.trunk.cross_attends):
            cross, block = (min(turn, 1), 0) if self.trunk.shared else (turn, turn)
            latents = self.cross(f"crosses.{cross}", latents, inputs, self.trunk.cross_heads)
            for layer in range(self.trunk.layers):
                latents = self.layer(f"blocks.{block}.{layer}", latents)
        if self.trunk.head == "mean":
            return self.linear("head.out", latents.mean(0))
        return self.linear("head.out", self.cross("head.attend", self.w["head.query"], latents, 1)[0])


@pytest.mark.parametrize("head", ["mean", "query"])
@pytest.mark.parametrize("changes", [{}, {"shared": True}, {"cross_heads": 5, "cross_width": 35}])
def test_logits_equal_a_slow_reference(head: str, changes: dict[str, object]) -> None:
    """Logits equal those of a reference that loops over windows, queries and heads."""
    network, seen = make(head, **changes), contents()
    with torch.no_grad():
        found = network(seen).numpy()
    for row in range(2):
        window = {name: tensor[row].numpy() for name, tensor in seen.items()}
        np.testing.assert_allclose(found[row], SlowPerceiver(network).logits(window), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("missing", ["audio", "video"])
def test_a_masked_modality_has_no_effect(missing: str) -> None:
    """Masking a modality's tokens gives the same logits as leaving them out, whatever their values are."""
    network, seen = make(), contents()
    present = {missing: torch.tensor([True, False])}
    with torch.no_grad():
        masked = network(seen, present)
        whole = network(seen)
        without = network({name: tensor for name, tensor in seen.items() if name != missing})
    torch.testing.assert_close(masked[0], whole[0])
    torch.testing.assert_close(masked[1], without[1])


def test_windows_of_a_batch_are_independent() -> None:
    """A window has the same logits alone and in a batch."""
    network, seen = make(), contents(4)
    with torch.no_grad():
        together, alone = network(seen), network({name: tensor[2:3] for name, tensor in seen.items()})
    torch.testing.assert_close(together[2:3], alone)


def test_every_parameter_is_used() -> None:
    """Every parameter gets a gradient, with either head."""
    for head in ("mean", "query"):
        network = make(head).train()
        network(contents()).square().sum().backward()
        unused = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum()]
        # A softmax ignores a constant that is added to all scores, so a key's bias has no gradient.
        assert all(name.endswith("attention.key.bias") for name in unused)


def test_a_stem_convolves_whole_images() -> None:
    """A stem's tokens equal convolutions over the whole image, so they include what is around a patch."""
    layers = StemGeometry(("conv 3/2 5", "conv 3/2 7"))
    audio = Audio(16_000, samples=160 * 12, form="mel", patch=(4, 4), bands=1, stem=layers, mel_bands=20)
    video = Video(frames=3, fps=25, height=12, width=20, patch=(1, 4, 4), bands=1, stem=layers)
    torch.manual_seed(0)
    audio_stem, video_stem = Stem(audio.modality), Stem(video.modality)
    spectrogram = torch.randn(2, 12, 20)
    frames = torch.randint(0, 256, (2, 3, 12, 20, 3), dtype=torch.uint8)

    def slow(stem: Stem, x: torch.Tensor) -> torch.Tensor:
        weights = stem.state_dict()
        for layer in ("layers.0.steps.0", "layers.1.steps.0"):
            x = functional.pad(x, (0, 1, 0, 1))  # a row and a column of padding at the end, as a stride of 2 needs
            x = functional.conv2d(x, weights[f"{layer}.weight"], weights[f"{layer}.bias"], stride=2).relu()
        return functional.layer_norm(x.permute(0, 2, 3, 1), (7,))

    with torch.no_grad():
        found = audio_stem(mel_tokens(spectrogram, audio))
        torch.testing.assert_close(found, slow(audio_stem, (spectrogram[:, None] + 3.5) / 2.5).flatten(1, 2))
        found = video_stem(video_tokens(frames, video))
        images = frames.flatten(0, 1).permute(0, 3, 1, 2) / 255
        torch.testing.assert_close(found, slow(video_stem, images).reshape(2, 3 * 3 * 5, 7))
    assert audio.modality.content == video.modality.content == 7
