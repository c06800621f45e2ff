"""What a CUDA graph can hold: nothing that waits for the device, and nothing that is copied to it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from perceiverd.model.cuda.graphs import is_capture_error
from perceiverd.model.cuda.network import DeviceMedia, DeviceNetwork
from perceiverd.model.cuda.precision import exact_float32
from perceiverd.model.cuda.reading import read_plainly
from tests.model.cuda.test_network import KINDS, make

META = torch.device("meta")


class OneDevice(TorchDispatchMode):
    """Collects the operations that touch another device."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.others: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **kwargs or {})
        seen = [each for each in tree_flatten((args, kwargs, out))[0] if isinstance(each, Tensor)]
        if any(each.device != META for each in seen):
            self.others.append(str(func))
        return out


@pytest.mark.parametrize("half", [None, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_network_stays_on_its_device(kind: str, half: torch.dtype | None) -> None:
    """No operation needs a number of the device on the host, or a tensor of the host on the device.

    A meta device has sizes but no numbers, so an operation that waits for one raises.
    """
    geometry, network = make(kind)
    ready = DeviceNetwork(network.float(), geometry, META, half, read_plainly)
    audio, video = geometry.audio, geometry.video
    media = DeviceMedia(
        torch.empty(3, audio.samples, device=META) if audio else None,
        torch.empty(3, video.frames, video.height, video.width, 3, dtype=torch.uint8, device=META) if video else None,
        {modality.name: torch.empty(3, dtype=torch.bool, device=META) for modality in geometry.modalities},
    )
    with OneDevice() as seen:
        logits = ready(media)
    assert logits.shape == (3, geometry.classes) and not seen.others


def test_what_a_graph_cannot_hold_is_told_from_faults() -> None:
    """An operation that a capture forbids is neither a lost device nor short memory."""
    forbidden = torch.AcceleratorError("CUDA error: operation not permitted when stream is capturing")
    assert is_capture_error(forbidden)
    after = RuntimeError("CUDA error: operation failed due to a previous error during capture")
    after.__context__ = torch.cuda.OutOfMemoryError("CUDA out of memory.")
    assert not is_capture_error(after)
    assert not is_capture_error(torch.AcceleratorError("CUDA error: an illegal memory access was encountered"))


def test_float32_is_not_rounded_and_the_settings_come_back() -> None:
    """Within `exact_float32` neither products nor convolutions use TF32; afterwards both are as they were."""
    torch.backends.cuda.matmul.allow_tf32 = True  # as in a container that sets TORCH_ALLOW_TF32_CUBLAS_OVERRIDE
    try:
        with exact_float32(benchmark=True):
            assert settings() == (False, False, True)
        assert settings() == (True, True, False)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False


def test_settings_belong_to_all_threads_within() -> None:
    """Two models may compute in two threads: the settings stay until the last has left, then they are as before."""
    torch.backends.cuda.matmul.allow_tf32 = True
    first, second = exact_float32(), exact_float32(benchmark=True)
    try:
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert settings() == (False, False, True)
        second.__exit__(None, None, None)
        assert settings() == (True, True, False)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False


def settings() -> tuple[bool, bool, bool]:
    """Whether products and convolutions are rounded, and whether cuDNN times its algorithms."""
    cudnn = torch.backends.cudnn
    return bool(torch.backends.cuda.matmul.allow_tf32), bool(cudnn.allow_tf32), bool(cudnn.benchmark)
