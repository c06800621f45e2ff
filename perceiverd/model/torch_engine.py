"""The network in PyTorch, on a CPU or a GPU. Importing it loads torch."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perceiverd.model.card import Card
from perceiverd.model.checkpoint import load_network
from perceiverd.model.cuda.devices import device_of
from perceiverd.model.encoding import audio_tokens, video_tokens
from perceiverd.model.engine import Form
from perceiverd.model.inference import Inference


class TorchEngine:
    """See `engine.Engine`."""

    name = "torch"

    def __init__(self, card: Card, device: str = "auto", threads: int = 0, factorised: bool | None = None) -> None:
        """`factorised`: the form of the cross-attends; None takes the cheaper one.

        Raises ModelError if the model is broken, ConfigError if the device is missing.
        """
        if threads:
            torch.set_num_threads(threads)
        self._device = device_of(device)
        self.device = str(self._device)
        self._geometry = card.geometry
        self._network = Inference(load_network(card).to(self._device), factorised)
        self.form: Form = "factorised" if self._network.factorised else "plain"
        _trim()

    @torch.inference_mode()
    def logits(
        self, audio: NDArray[np.float32] | None, video: Sequence[Sequence[NDArray[np.uint8]]] | None
    ) -> NDArray[np.float32]:
        """Logits (B, classes); see `engine.Engine.logits`."""
        contents: dict[str, Tensor] = {}
        if audio is not None:
            assert self._geometry.audio
            contents["audio"] = audio_tokens(torch.from_numpy(audio).to(self._device), self._geometry.audio)
        if video is not None:
            assert self._geometry.video
            frames = torch.from_numpy(np.array(video)).to(self._device)  # (B, T, H, W, 3)
            contents["video"] = video_tokens(frames, self._geometry.video)
        found: NDArray[np.float32] = self._network(contents).float().cpu().numpy()
        return found


def _trim() -> None:
    """Give back to the kernel what loading needed for a moment: 60 MB for the bundled model. Only glibc keeps it."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
