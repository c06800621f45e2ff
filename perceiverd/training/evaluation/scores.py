"""Scores of a model for windows that are saved on disk as bytes: log-mel spectrograms, frames, or both.

`Tagger` does the same for live windows. Plain arrays in, plain arrays out.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from perceiverd.core.errors import ModelError
from perceiverd.core.labels import ontology
from perceiverd.model.card import Card
from perceiverd.model.checkpoint import load_network
from perceiverd.model.encoding import mel_tokens, video_tokens
from perceiverd.training.data.augment import WINDOW
from perceiverd.training.distill.audio_shards import dequantise

BATCH = 32


def check(card: Card) -> None:
    """Raises ModelError if the model's labels are not AudioSet's, or if its audio is not what pools hold."""
    known, audio = ontology().labels, card.geometry.audio
    if [label.mid for label in card.labels] != [label.mid for label in known]:
        raise ModelError(
            f"{card.name}: pools and held-out recordings need AudioSet's {len(known)} labels, and this model has"
            f" {len(card.labels)}, not the same ones; measure it with `perceiverd train fit … --held-out`"
        )
    if audio is None or (audio.form, audio.samples) != ("mel", WINDOW):
        raise ModelError(f"{card.name}: pools and held-out recordings have log-mel of {WINDOW} samples; it takes other")


class ScoringModel:
    """A loaded model with AudioSet's labels that takes windows as they are saved."""

    def __init__(self, card: Card) -> None:
        """Raises ModelError as `check` does."""
        check(card)
        self.card = card
        self._network = load_network(card)
        self._scale = np.array([one.scale for one in card.calibration], np.float32)
        self._shift = np.array([one.shift for one in card.calibration], np.float32)

    @torch.inference_mode()
    def logits(self, mel: NDArray[np.uint8] | None, frames: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        """(N, classes), uncalibrated, of spectrograms (N, frames, bands), video (N, T, H, W, 3), or both."""
        audio, video = self.card.geometry.audio, self.card.geometry.video
        given = mel if mel is not None else frames
        assert given is not None
        parts = []
        for at in range(0, len(given), BATCH):
            contents = {}
            if mel is not None:
                assert audio is not None
                contents["audio"] = mel_tokens(dequantise(torch.from_numpy(mel[at : at + BATCH])), audio)
            if frames is not None:
                assert video is not None
                contents["video"] = video_tokens(torch.from_numpy(frames[at : at + BATCH]), video)
            parts.append(self._network(contents).float().numpy())
        return np.concatenate(parts)

    def scores(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Calibrated probabilities, as the daemon publishes them."""
        return sigmoid(self._scale * logits + self._shift)


def sigmoid(logits: NDArray[np.floating]) -> NDArray[np.float32]:
    """1 / (1 + exp(-x)) without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)), np.float32)


def logit(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """The inverse of `sigmoid`; 0 and 1 become -20 and 20."""
    p = np.asarray(probabilities, np.float64)
    with np.errstate(divide="ignore"):
        return (np.log(p) - np.log1p(-p)).clip(-20, 20)
