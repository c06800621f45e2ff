"""Networks of other projects that do the same work, for `perceiverd bench`. Each is timed if its package is installed.

Each takes a batch of windows. Its other inputs (tokens, float samples) are prepared before the timing.
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

COMPILED = "transformers, bf16, fused, compiled"
"""The fastest form of the peer that a GPU's engine is compared with."""
ScoreBatch = Callable[[int], Any]
"""Scores a batch of this many windows; returns the logits."""


@dataclass(frozen=True, slots=True)
class TimedNetwork:
    """One network that can be timed."""

    name: str
    score: ScoreBatch
    holds: object
    """The object with all its memory between calls: a module, or one of perceiverd's objects; None if that memory is
    not PyTorch's, so that it cannot be counted."""
    counted: ScoreBatch | None = None
    """The same in plain operators of PyTorch, whose work can be counted; None if `score` is that."""
    fault: str = ""
    """Why it cannot be timed, in one line; empty if it can."""


def installed_version(package: str) -> str | None:
    """The version of this package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@contextmanager
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def public_checkpoint(num_frames: int) -> Any:
    """The public checkpoint's architecture as `transformers` builds it, with random weights."""
    with _no_warnings():
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


def transformers_networks(network: Any, audio: Tensor, frames: Tensor) -> Iterator[TimedNetwork]:
    """The Perceiver of `transformers`, which decodes only the label: as shipped, and with PyTorch's fused attention.

    On a GPU also the latter in bfloat16 and compiled, if it can be compiled.
    """
    from transformers.models.perceiver.modeling_perceiver import PerceiverSelfAttention

    images = frames.permute(0, 1, 4, 2, 3) / 255.0  # (1, T, 3, H, W)
    samples, label, one = audio[:, :, None], audio.new_zeros(1, 700), torch.tensor([0], device=audio.device)
    points = {"image": one, "audio": one, "label": None}  # it must decode at least one point of each
    own = PerceiverSelfAttention.forward
    network.requires_grad_(False)  # the counter of operations looks for gradients, which inference mode has not

    def score(batch: int, forward: Callable[..., object], run: Any = network) -> Tensor:
        PerceiverSelfAttention.forward = forward
        try:
            inputs = {
                "image": images.expand(batch, -1, -1, -1, -1),
                "audio": samples.expand(batch, -1, -1),
                "label": label.expand(batch, -1),
            }
            return run(inputs=inputs, subsampled_output_points=points).logits["label"]  # type: ignore[no-any-return]
        finally:
            PerceiverSelfAttention.forward = own

    yield TimedNetwork("transformers, as shipped", lambda batch: score(batch, own), network)
    yield TimedNetwork("transformers, fused attention", lambda batch: score(batch, fused_attention), network)
    if audio.device.type == "cuda":
        yield compiled_network(COMPILED, network, lambda batch, run: score(batch, fused_attention, run))


def compiled_network(name: str, network: Any, score: Callable[[int, Any], Tensor]) -> TimedNetwork:
    """A network in bfloat16, compiled; `score` runs it, or its compiled form, on a batch.

    If it cannot be compiled, the result says why.
    """
    with _no_warnings():
        compiled = torch.compile(network, dynamic=False)

    def run(batch: int, which: Any) -> Tensor:
        with torch.autocast(next(network.parameters()).device.type, torch.bfloat16):
            return score(batch, which)

    fault = ""
    try:
        with _no_warnings():
            run(1, compiled)
    except Exception as error:  # compilers raise what they like
        fault = f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]}"[:200]
    return TimedNetwork(
        name, lambda batch: run(batch, compiled), network, counted=lambda batch: run(batch, network), fault=fault
    )


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


def perceiver_pytorch_network(geometry: Geometry, byte_array: Tensor) -> TimedNetwork:
    """The Perceiver IO of perceiver-pytorch in the same sizes, over a prepared byte array (1, M, C)."""
    with _no_warnings():
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
    return TimedNetwork(
        "perceiver-pytorch, same sizes",
        lambda batch: network(byte_array.expand(batch, -1, -1), queries=queries)[:, 0],
        network,
    )


def ast_network(device: torch.device) -> TimedNetwork:
    """The Audio Spectrogram Transformer for 10.24 s of audio, with random weights: only its time matters."""
    with _no_warnings():
        from transformers import ASTConfig, ASTForAudioClassification
    config = ASTConfig(num_labels=527)
    network = ASTForAudioClassification(config).eval().to(device)
    spectrogram = torch.randn(1, config.max_length, config.num_mel_bins, device=device)
    return TimedNetwork(
        "AST of 10.24 s of audio", lambda batch: network(spectrogram.expand(batch, -1, -1)).logits, network
    )


def versions() -> Mapping[str, str]:
    """The versions of the installed packages whose networks are timed."""
    packages = ("torch", "onnxruntime", "openvino", "transformers", "perceiver-pytorch")
    return {package: found for package in packages if (found := installed_version(package))}
