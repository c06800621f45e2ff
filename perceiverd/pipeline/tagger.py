"""The tagger: windows in, scores out. Plain arrays outside, tensors inside."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from perceiverd.core.errors import ConfigError
from perceiverd.model.card import Card
from perceiverd.model.checkpoint import load_network
from perceiverd.model.encoding import audio_tokens, video_tokens
from perceiverd.model.inference import Inference
from perceiverd.pipeline.device import DEVICE_PATTERN
from perceiverd.pipeline.windower import Window


class Tagger:
    """A loaded model on its device."""

    def __init__(self, card: Card, device: str = "auto", threads: int = 0) -> None:
        """`device`: `auto`, `cpu`, `cuda` or `cuda:N`; `threads`: CPU threads, 0 leaves the choice to torch.

        Raises ModelError if the model is broken, ConfigError if the device is missing.
        """
        if threads:
            torch.set_num_threads(threads)
        self.card = card
        self.device = device_of(device)
        self._network = Inference(load_network(card).to(self.device))
        self._scale = torch.tensor([one.scale for one in card.calibration], device=self.device)
        self._shift = torch.tensor([one.shift for one in card.calibration], device=self.device)

    def warm_up(self) -> None:
        """Tag one empty window: the first inference is slow, and it shows whether the model works."""
        self.tag([Window.empty(self.card.geometry)])

    @torch.inference_mode()
    def tag(self, windows: Sequence[Window]) -> NDArray[np.float32]:
        """Scores (windows, classes), 0..1, of windows of any mix of modalities.

        Raises ValueError if a window has neither modality.
        """
        if not all(window.modalities for window in windows):
            raise ValueError("a window has neither audio nor video")
        geometry = self.card.geometry
        contents, present = {}, {}
        if geometry.audio and any(window.audio is not None for window in windows):
            silence = np.zeros(geometry.audio.samples, dtype=np.float32)  # masked, never read
            samples = [window.audio if window.audio is not None else silence for window in windows]
            contents["audio"] = audio_tokens(torch.from_numpy(np.stack(samples)).to(self.device), geometry.audio)
            present["audio"] = self._mask([window.audio is not None for window in windows])
        if geometry.video and any(window.video is not None for window in windows):
            video = geometry.video
            black = np.zeros((video.frames, video.height, video.width, 3), dtype=np.uint8)  # masked, never read
            frames = [window.video if window.video is not None else black for window in windows]
            contents["video"] = video_tokens(torch.from_numpy(np.stack(frames)).to(self.device), video)
            present["video"] = self._mask([window.video is not None for window in windows])
        logits = self._scale * self._network(contents, present).float() + self._shift
        shares = logits.sigmoid() if self.card.scores == "sigmoid" else logits.softmax(dim=1)
        scores: NDArray[np.float32] = shares.cpu().numpy()
        return scores

    def _mask(self, present: list[bool]) -> torch.Tensor:
        return torch.tensor(present, dtype=torch.bool, device=self.device)


def device_of(name: str, index: int | None = None) -> torch.device:
    """The device of this name; `auto` is a GPU if torch finds one. `index` is the GPU of `auto` and `cuda`.

    Raises ConfigError if the name is unknown, or if the device is missing.
    """
    if not DEVICE_PATTERN.fullmatch(name):
        raise ConfigError(f"device {name!r} is not auto, cpu, cuda or cuda:N")
    count = torch.cuda.device_count()
    if name == "cpu" or (name == "auto" and not count):
        return torch.device("cpu")
    device = torch.device("cuda" if name == "auto" else name)
    if ":" not in name and index is not None:
        device = torch.device("cuda", index)
    if (device.index or 0) >= count:
        found = f"only {count} CUDA devices" if count else "no CUDA"
        raise ConfigError(f"device {name}: torch finds {found} here; use cpu or auto")
    return device
