"""Measuring: time, work, traffic and memory of a call, and what the machine itself can do."""

from __future__ import annotations

import ctypes
import gc
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

Call = Callable[[], object]
MATRIX, PRODUCTS = 2048, 4
"""Rows of the matrices by whose product the machine is measured, and how many products make a call."""
COPIED = 1 << 26
"""Numbers that are copied to measure the memory: 256 MB, more than any cache holds."""


def matmul(device: torch.device) -> tuple[Call, float]:
    """A call, and its operations."""
    a, b = torch.randn(2, MATRIX, MATRIX, device=device)
    return lambda: [a @ b for _ in range(PRODUCTS)], PRODUCTS * 2.0 * MATRIX**3


def copy(device: torch.device) -> tuple[Call, float]:
    """A call, and how many bytes it reads and writes."""
    source = torch.randn(COPIED, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source), 2.0 * 4 * COPIED


def timed(call: Callable[[], object], device: torch.device) -> float:
    """Seconds."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begun = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begun


def flop(call: Call) -> float:
    """Operations of matrix products of a call."""

    def attention(q: Sequence[int], k: Sequence[int], v: Sequence[int], *_: object, **__: object) -> int:
        batch, heads, rows, width = q
        return 2 * batch * heads * rows * k[2] * (width + v[3])

    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    with FlopCounterMode(display=False, custom_mapping={kernel: attention}) as counter:
        call()
    return float(counter.get_total_flops())


def traffic(call: Call) -> float:
    """Bytes that its operations read and write, each counted as often as it is touched."""
    with Traffic() as seen:
        call()
    return float(seen.bytes)


class Traffic(TorchDispatchMode):
    """Adds up the tensors that operations take and give; views cost nothing."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **kwargs or {})
        if not func.is_view:
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in _flat((args, kwargs, out)))
        return out


def _flat(tree: object) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, list | tuple):
        for branch in tree:
            yield from _flat(branch)
    elif isinstance(tree, dict):
        yield from _flat(list(tree.values()))


def held(*parts: object) -> float:
    """Bytes of all tensors that parts keep: modules' weights and buffers, and what objects of ours hold beside.

    Memory that several tensors share counts once.
    """
    found: dict[int, int] = {}
    seen: set[int] = set()
    left = list(parts)
    while left:
        part = left.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        match part:
            case Tensor():
                found[part.untyped_storage().data_ptr()] = part.untyped_storage().nbytes()
            case nn.Module():
                left += [*part.parameters(), *part.buffers()]
            case dict():
                left += part.values()
            case list() | tuple():
                left += part
            case _ if type(part).__module__.startswith("perceiverd."):
                left += vars(part).values() if hasattr(part, "__dict__") else ()
    return float(sum(found.values()))


def peak(call: Callable[[], object], device: torch.device) -> float | None:
    """Bytes that were in use at once during the call, beyond what was before."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return float(torch.cuda.max_memory_allocated(device) - before)
    with suppress(OSError, AttributeError):  # glibc keeps what was freed, which would hide what is taken again
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = _resident("VmRSS")
        call()
        return float(_resident("VmHWM") - before)
    except (OSError, StopIteration):
        return None


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        return f"{name}, {len(os.sched_getaffinity(0))} cores, {torch.backends.cpu.get_cpu_capability()}"
    return f"{len(os.sched_getaffinity(0))} cores, {torch.backends.cpu.get_cpu_capability()}"
