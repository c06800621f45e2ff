"""The tagger: windows in, scores out. Plain arrays outside, tensors inside."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from perceiverd.core.errors import ConfigError
from perceiverd.model.card import Card
from perceiverd.model.checkpoint import load_network
from perceiverd.model.encoding import audio_tokens, video_tokens
from perceiverd.model.inference import Inference
from perceiverd.pipeline.windower import Window

DEVICE = re.compile(r"cpu|cuda(:\d{1,3})?")


class Tagger:
    """A loaded model on its device."""

    def __init__(self, card: Card, device: str = "auto", threads: int = 0) -> None:
        """`device`: `auto`, `cpu`, `cuda` or `cuda:N`; `threads`: of the CPU, 0 leaves torch's choice.

        Raises ModelError for a broken model, ConfigError for a device that is not there.
        """
        if threads:
            torch.set_num_threads(threads)
        self.card = card
        self.device = device_of(device)
        self._network = Inference(load_network(card).to(self.device))
        self._scale = torch.tensor([one.scale for one in card.calibration], device=self.device)
        self._shift = torch.tensor([one.shift for one in card.calibration], device=self.device)

    @torch.inference_mode()
    def tag(self, windows: Sequence[Window]) -> NDArray[np.float32]:
        """Scores (windows, classes), 0..1, of windows of any mix of modalities.

        Raises ValueError for a window that has neither.
        """
        if not all(window.modalities for window in windows):
            raise ValueError("a window has neither sound nor sight")
        geometry = self.card.geometry
        contents, present = {}, {}
        if geometry.audio and any(window.audio is not None for window in windows):
            silence = np.zeros(geometry.audio.samples, dtype=np.float32)  # masked, never read
            sound = [window.audio if window.audio is not None else silence for window in windows]
            contents["audio"] = audio_tokens(torch.from_numpy(np.stack(sound)).to(self.device), geometry.audio)
            present["audio"] = self._mask([window.audio is not None for window in windows])
        if geometry.video and any(window.video is not None for window in windows):
            video = geometry.video
            black = np.zeros((video.frames, video.height, video.width, 3), dtype=np.uint8)  # masked, never read
            sight = [window.video if window.video is not None else black for window in windows]
            contents["video"] = video_tokens(torch.from_numpy(np.stack(sight)).to(self.device), video)
            present["video"] = self._mask([window.video is not None for window in windows])
        logits = self._scale * self._network(contents, present).float() + self._shift
        shares = logits.sigmoid() if self.card.scores == "sigmoid" else logits.softmax(dim=1)
        scores: NDArray[np.float32] = shares.cpu().numpy()
        return scores

    def _mask(self, there: list[bool]) -> torch.Tensor:
        return torch.tensor(there, dtype=torch.bool, device=self.device)


def device_of(name: str) -> torch.device:
    """Raises ConfigError where it is none, or is not there."""
    count = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda" if count else "cpu")
    if not DEVICE.fullmatch(name):
        raise ConfigError(f"device is auto, cpu, cuda or cuda:N, not {name!r}")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= count:
        has = f"only {count} CUDA devices" if count else "no CUDA"
        raise ConfigError(f"device {name}: torch finds {has} here; use cpu or auto")
    return device
