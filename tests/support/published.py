"""Public multimodal Perceivers with random weights, made and saved by `transformers`."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

SMALL: dict[str, Any] = {
    "num_latents": 12,
    "d_latents": 32,
    "num_self_attends_per_block": 2,
    "num_self_attention_heads": 4,
    "num_frames": 3,
    "image_size": 5,
}
PUBLIC: dict[str, Any] = {
    "num_latents": 784,
    "d_latents": 512,
    "num_self_attends_per_block": 8,
    "num_self_attention_heads": 8,
}


def published(**sizes: Any) -> Any:
    """A `PerceiverForMultimodalAutoencoding` whose attention and labels are far from equal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # importing transformers warns
        from transformers import PerceiverConfig, PerceiverForMultimodalAutoencoding
    config = PerceiverConfig(num_cross_attention_heads=1, d_model=704, num_labels=700, **sizes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = PerceiverForMultimodalAutoencoding(config).eval()
        for name, parameter in network.named_parameters():
            if "layernorm" in name or name.endswith("bias"):  # transformers leaves these at 1 and 0
                parameter.data += 0.1 * torch.randn_like(parameter)
            elif "attention.self.query" in name or "attention.self.key" in name:
                parameter.data *= 3
    return network


def write(folder: Path, **sizes: Any) -> Any:
    """Save a network in `folder`; returns it."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    network = published(**sizes)
    network.save_pretrained(folder)
    return network


@torch.no_grad()
def label_logits(network: Any, audio: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """(B, 700) from audio (B, samples), -1..1, and frames (B, T, H, W, 3), uint8."""
    one = torch.tensor([0])  # it must reconstruct at least one point of the audio and of the video
    out = network(
        inputs={
            "image": frames.permute(0, 1, 4, 2, 3) / 255.0,
            "audio": audio[:, :, None],
            "label": torch.zeros(len(audio), 700),
        },
        subsampled_output_points={"image": one, "audio": one, "label": None},
    ).logits
    return out["label"]  # type: ignore[no-any-return]
