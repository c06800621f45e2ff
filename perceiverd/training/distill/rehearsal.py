"""Rehearsal vectors: a model's vectors before its last layer, for windows that it learnt from.

They lie beside the weights. `train fit` learns new labels against them, so that a new label does not fire at everything
that the user's few clips lack. A vector is a few hundred numbers for each window; the audio itself is not stored.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from perceiverd.core.errors import ConfigError, ModelError
from perceiverd.model.card import Card
from perceiverd.model.checkpoint import load_network
from perceiverd.model.encoding import audio_tokens, mel_tokens
from perceiverd.model.geometry import Audio
from perceiverd.model.perceiver import Perceiver
from perceiverd.sources.decode.audio import Resampler
from perceiverd.training.synthesis import tones

REHEARSAL_FILE = "rehearsal.safetensors"
BATCH = 32
TONE_WINDOWS = 3
"""Windows of each rendered sound, if a model has no rehearsal vectors."""


def headless(network: Perceiver) -> tuple[Perceiver, nn.Linear]:
    """The network without its last layer, so that it returns (B, width), and that layer."""
    last = network.head.out
    network.head.out = nn.Identity()  # type: ignore[assignment]
    return network, last


def build(card: Card, pool: Path, count: int, seed: int) -> int:
    """Write the vectors of `count` windows of audio shards beside a model's weights; returns the file's bytes."""
    # Imported here, because `train fit` uses this module and does not need the teachers.
    from perceiverd.training.distill.audio_shards import AudioShards, dequantise

    audio = card.geometry.audio
    if audio is None or audio.form != "mel":
        raise ConfigError(f"{card.name}: does not take log-mel, which is what audio shards hold")
    mel = AudioShards([pool]).draw(np.random.default_rng([seed, count]), count)["mel"]
    network, _ = headless(load_network(card))
    with torch.inference_mode():
        parts = [
            network({"audio": mel_tokens(dequantise(torch.from_numpy(mel[at : at + BATCH])), audio)})
            for at in range(0, count, BATCH)
        ]
    return write(card.folder / REHEARSAL_FILE, torch.cat(parts), network)


def write(path: Path, features: Tensor, network: nn.Module) -> int:
    """Write vectors (N, width) of a headless network; returns the file's bytes."""
    partial = path.with_name(f"{path.name}.part")
    save_file({"features": features.half().contiguous()}, partial, {"network": digest(network)})
    partial.chmod(0o644)
    partial.replace(path)
    return path.stat().st_size


def digest(network: nn.Module) -> str:
    """SHA-256 of a headless network's weights. It stays the same when labels are added to the model."""
    state, found = network.state_dict(), hashlib.sha256()
    for name in sorted(state):
        found.update(name.encode())
        found.update(state[name].detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def features(card: Card, network: Perceiver) -> Tensor:
    """(N, width): the model's rehearsal vectors. If it has none, its headless network's vectors of rendered sounds.

    Raises ModelError if the file is damaged or was made with other weights.
    """
    path = card.folder / REHEARSAL_FILE
    if not path.exists():
        return rendered(network, card.geometry.audio)
    try:
        with safe_open(path, "pt") as file:
            found: Tensor = file.get_tensor("features").float()
            made = file.metadata()["network"]
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise ModelError(
            f"{path}: is not a file of rehearsal vectors ({error}); delete it or fetch the model again"
        ) from error
    if made != digest(network):
        raise ModelError(f"{path}: was made with other weights; run `perceiverd train rehearsal` again")
    if found.ndim != 2 or found.shape[1] != card.geometry.vector_width or not bool(found.isfinite().all()):
        raise ModelError(
            f"{path}: has vectors of shape {tuple(found.shape)}, but the model is {card.geometry.vector_width} wide;"
            " delete it or fetch the model again"
        )
    return found


@torch.inference_mode()
def rendered(network: Perceiver, audio: Audio | None) -> Tensor:
    """(N, width): vectors of noises, tones and silence; N is 0 if the model does not take audio."""
    device = network.latents.device
    if audio is None:
        return torch.zeros(0, network.trunk.width, device=device)
    waves = _rendered_windows(audio)
    parts = [
        network({"audio": audio_tokens(torch.from_numpy(np.stack(waves[at : at + BATCH])).to(device), audio)})
        for at in range(0, len(waves), BATCH)
    ]
    return torch.cat(parts)


def _rendered_windows(audio: Audio) -> list[NDArray[np.float32]]:
    """One window of silence, and TONE_WINDOWS of each rendered sound, each (samples,)."""
    waves = [np.zeros(audio.samples, np.float32)]
    for _, wave, _ in tones.sounds():
        resampler = Resampler(audio.rate_hz)
        chunks = [*resampler.feed(wave, tones.RATE_HZ, 0), *resampler.flush()]
        sound: NDArray[np.float32] = np.concatenate([chunk.samples for chunk in chunks])
        sound = np.tile(sound, -(-audio.samples // len(sound)))
        starts = np.linspace(0, len(sound) - audio.samples, TONE_WINDOWS).astype(int).tolist()
        waves += [sound[start : start + audio.samples] for start in starts]
    return waves
