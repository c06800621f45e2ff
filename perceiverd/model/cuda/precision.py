"""In which type a GPU multiplies, and layers that multiply in it. Sums, softmax, LN and residuals stay in float32."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perceiverd.model.engine import Precision

HALF_TYPES: dict[Precision, torch.dtype | None] = {
    "float32": None,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
BFLOAT16_SINCE, FLOAT16_SINCE = (8, 0), (7, 0)
"""Compute capabilities whose tensor cores multiply these types: Ampere and Volta. Older cards can compute with float16,
but many of them at a sixty-fourth of the speed of float32."""


def precision_of(capability: tuple[int, int]) -> Precision:
    """What `auto` is on a card of this compute capability."""
    if capability >= BFLOAT16_SINCE:
        return "bfloat16"
    return "float16" if capability >= FLOAT16_SINCE else "float32"


class HalfLinear(nn.Linear):
    """A linear layer whose weights and products are in half precision, whatever its input is."""

    @classmethod
    def of(cls, layer: nn.Linear, half: torch.dtype) -> HalfLinear:
        made = cls(layer.in_features, layer.out_features, layer.bias is not None, device="meta", dtype=half)
        made.weight = nn.Parameter(layer.weight.detach().to(half), requires_grad=False)
        if layer.bias is not None:
            made.bias = nn.Parameter(layer.bias.detach().to(half), requires_grad=False)
        return made

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name in torch
        return F.linear(input.to(self.weight.dtype), self.weight, self.bias)


def halve(module: nn.Module, half: torch.dtype | None) -> None:
    """Replace the linear layers within a module. None: leave them as they are."""
    if half is None:
        return
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, HalfLinear.of(child, half))
        else:
            halve(child, half)


class _ExactFloat32:
    """PyTorch's settings belong to the process: the first thread that comes in sets them, the last puts them back."""

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._before = (False, False, False)

    def enter(self) -> None:
        with self._lock:
            if not self._inside:
                cudnn = torch.backends.cudnn
                self._before = torch.backends.cuda.matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
                torch.backends.cuda.matmul.allow_tf32 = cudnn.allow_tf32 = False
            self._inside += 1

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                cudnn = torch.backends.cudnn
                torch.backends.cuda.matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = self._before


_exact_float32 = _ExactFloat32()


@contextmanager
def exact_float32(*, benchmark: bool = False) -> Iterator[None]:
    """Within it, products and convolutions in float32 are not rounded to TF32, which has the 10 bits of float16.

    PyTorch rounds convolutions if nobody says otherwise, and products too if TORCH_ALLOW_TF32_CUBLAS_OVERRIDE is set,
    as in NVIDIA's containers. `benchmark`: let cuDNN time its algorithms, also for other threads that are within.
    """
    _exact_float32.enter()
    try:
        if benchmark:
            torch.backends.cudnn.benchmark = True
        yield
    finally:
        _exact_float32.leave()
