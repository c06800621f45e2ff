"""Other people's networks, made to do the same work, for `perceiverd bench`: where they are installed.

Each is ready to be called with a batch of windows; what it needs beyond that (tokens, floats) is prepared before.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from perceiverd.model.geometry import Geometry

Score = Callable[[int], Tensor]
"""Scores a batch of so many windows; the logits."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One network that can be timed."""

    name: str
    score: Score
    holds: object
    """All that it keeps from one window to the next: a module, or an object of ours."""


def installed(package: str) -> str | None:
    """Its version."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def public_checkpoint(num_frames: int) -> Any:
    """The public checkpoint's architecture as `transformers` builds it, with random weights."""
    with _quiet():
        from transformers import PerceiverConfig, PerceiverForMultimodalAutoencoding
    config = PerceiverConfig(
        num_latents=784,
        d_latents=512,
        d_model=704,
        num_self_attends_per_block=8,
        num_self_attention_heads=8,
        num_cross_attention_heads=1,
        num_labels=700,
        num_frames=num_frames,
    )
    return PerceiverForMultimodalAutoencoding(config).eval()


def transformers_peers(network: Any, sound: Tensor, frames: Tensor) -> Iterator[Peer]:
    """Its Perceiver, asked for the label alone: as shipped, and with PyTorch's fused attention in place of its own."""
    from transformers.models.perceiver.modeling_perceiver import PerceiverSelfAttention

    pictures = frames.permute(0, 1, 4, 2, 3) / 255.0  # (1, T, 3, H, W)
    samples, label, one = sound[:, :, None], sound.new_zeros(1, 700), torch.tensor([0], device=sound.device)
    points = {"image": one, "audio": one, "label": None}  # it can't decode no picture and no sound
    own = PerceiverSelfAttention.forward

    def score(batch: int, forward: Callable[..., object]) -> Tensor:
        PerceiverSelfAttention.forward = forward
        try:
            inputs = {
                "image": pictures.expand(batch, -1, -1, -1, -1),
                "audio": samples.expand(batch, -1, -1),
                "label": label.expand(batch, -1),
            }
            return network(inputs=inputs, subsampled_output_points=points).logits["label"]  # type: ignore[no-any-return]
        finally:
            PerceiverSelfAttention.forward = own

    yield Peer("transformers, as shipped", lambda batch: score(batch, own), network)
    yield Peer("transformers, fused attention", lambda batch: score(batch, fused_attention), network)


def fused_attention(
    self: Any,
    hidden_states: Tensor,
    attention_mask: Tensor | None = None,
    inputs: Tensor | None = None,
    inputs_mask: Tensor | None = None,
    output_attentions: bool | None = False,
) -> tuple[Tensor]:
    """`PerceiverSelfAttention.forward` without masks and dropout, by `scaled_dot_product_attention`."""
    normal = self.layernorm1(hidden_states)
    read = normal if inputs is None else self.layernorm2(inputs)
    q, k, v = (
        project(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        for project, x in ((self.query, normal), (self.key, read), (self.value, read))
    )
    return (F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2),)


def perceiver_pytorch_peer(geometry: Geometry, byte_array: Tensor) -> Peer:
    """perceiver-pytorch's Perceiver IO of the same sizes, over a byte array (1, M, C) that is made beforehand."""
    with _quiet():
        from perceiver_pytorch import PerceiverIO
    trunk, across = geometry.trunk, byte_array.shape[2]
    network = PerceiverIO(
        depth=trunk.layers,
        dim=across,
        queries_dim=trunk.query_width,
        logits_dim=geometry.classes,
        num_latents=trunk.latents,
        latent_dim=trunk.width,
        cross_heads=trunk.cross_heads,
        latent_heads=trunk.heads,
        cross_dim_head=across,
        latent_dim_head=trunk.width // trunk.heads,
        decoder_ff=True,
    ).eval()
    queries = torch.randn(1, trunk.query_width, device=byte_array.device)
    network.to(byte_array.device)
    return Peer(
        "perceiver-pytorch, same sizes",
        lambda batch: network(byte_array.expand(batch, -1, -1), queries=queries)[:, 0],
        network,
    )


def ast_peer(device: torch.device) -> Peer:
    """The Audio Spectrogram Transformer over 10.24 s of sound, random weights: for its cost only."""
    with _quiet():
        from transformers import ASTConfig, ASTForAudioClassification
    config = ASTConfig(num_labels=527)
    network = ASTForAudioClassification(config).eval().to(device)
    spectrogram = torch.randn(1, config.max_length, config.num_mel_bins, device=device)
    return Peer("AST of 10.24 s of sound", lambda batch: network(spectrogram.expand(batch, -1, -1)).logits, network)


def versions() -> Mapping[str, str]:
    """Of what is timed here, where it is installed."""
    packages = ("torch", "transformers", "perceiver-pytorch")
    return {package: found for package in packages if (found := installed(package))}
