"""What a model made of sounds that it learnt from: the vectors just before its labels, kept beside its weights.

New labels are learnt against them, so that they don't fire at everything that one's own few clips lack. A vector is a
few hundred numbers for a window; the sounds themselves are not kept.
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

BANK_FILE = "rehearsal.safetensors"
BATCH = 32
TONE_WINDOWS = 3
"""Windows of each rendered sound, where a model has no bank."""


def headless(network: Perceiver) -> tuple[Perceiver, nn.Linear]:
    """The network with its last layer taken off, so that it gives (B, width), and that layer."""
    last = network.head.out
    network.head.out = nn.Identity()  # type: ignore[assignment]
    return network, last


def build(card: Card, pool: Path, count: int, seed: int) -> int:
    """Write `count` vectors of windows of a pool beside a model's weights; returns the file's bytes."""
    from perceiverd.training.distill.audio_shards import dequantise
    from perceiverd.training.distill.batches import Sounds  # with the teachers, which who only fits need not load

    audio = card.geometry.audio
    if audio is None or audio.form != "mel":
        raise ConfigError(f"{card.name}: hears no log-mel, which is what a pool holds")
    mel = Sounds(pool).draw(np.random.default_rng([seed, count]), count)["mel"]
    network, _ = headless(load_network(card))
    with torch.inference_mode():
        parts = [
            network({"audio": mel_tokens(dequantise(torch.from_numpy(mel[at : at + BATCH])), audio)})
            for at in range(0, count, BATCH)
        ]
    return write(card.folder / BANK_FILE, torch.cat(parts), network)


def write(path: Path, features: Tensor, network: nn.Module) -> int:
    """Keep vectors (N, width) of a headless network; returns the file's bytes."""
    partial = path.with_name(f"{path.name}.part")
    save_file({"features": features.half().contiguous()}, partial, {"network": digest(network)})
    partial.chmod(0o644)
    partial.replace(path)
    return path.stat().st_size


def digest(network: nn.Module) -> str:
    """SHA-256 of the weights of a headless network: labels may be added to a model, and its bank holds."""
    state, found = network.state_dict(), hashlib.sha256()
    for name in sorted(state):
        found.update(name.encode())
        found.update(state[name].detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def features(card: Card, network: Perceiver) -> Tensor:
    """(N, width): the model's bank or, where it has none, what its headless network makes of rendered sounds."""
    path = card.folder / BANK_FILE
    if not path.exists():
        return rendered(network, card.geometry.audio)
    try:
        with safe_open(path, "pt") as file:
            found: Tensor = file.get_tensor("features").float()
            made = file.metadata()["network"]
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: is no bank of a model ({error}); delete it or fetch the model again") from error
    if made != digest(network):
        raise ModelError(f"{path}: was made of other weights; make it anew with `perceiverd train rehearsal`")
    if found.ndim != 2 or found.shape[1] != card.geometry.trunk.width or not bool(found.isfinite().all()):
        raise ModelError(f"{path}: {tuple(found.shape)} is no bank of a model {card.geometry.trunk.width} wide")
    return found


@torch.inference_mode()
def rendered(network: Perceiver, audio: Audio | None) -> Tensor:
    """(N, width) of noises, tones and silence; none where the model doesn't hear."""
    device = network.latents.device
    if audio is None:
        return torch.zeros(0, network.trunk.width, device=device)
    waves = [np.zeros(audio.samples, np.float32)]
    for _, wave, _ in tones.sounds():
        resampler = Resampler(audio.rate_hz)
        chunks = [*resampler.feed(wave, tones.RATE_HZ, 0), *resampler.flush()]
        sound: NDArray[np.float32] = np.concatenate([chunk.samples for chunk in chunks])
        sound = np.tile(sound, -(-audio.samples // len(sound)))
        starts = np.linspace(0, len(sound) - audio.samples, TONE_WINDOWS).astype(int).tolist()
        waves += [sound[start : start + audio.samples] for start in starts]
    parts = [
        network({"audio": audio_tokens(torch.from_numpy(np.stack(waves[at : at + BATCH])).to(device), audio)})
        for at in range(0, len(waves), BATCH)
    ]
    return torch.cat(parts)
