"""Time, work, memory traffic and memory of a call, and the rates that the machine itself reaches. Knows no network."""

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
"""Rows of the matrices whose product measures the machine, and products in a call."""
COPIED = 1 << 26
"""Numbers in the copy that measures the memory: 256 MB, more than any cache holds."""


def matmul_probe(device: torch.device) -> tuple[Call, float]:
    """A call that multiplies matrices, and its number of operations."""
    a, b = torch.randn(2, MATRIX, MATRIX, device=device)
    return lambda: [a @ b for _ in range(PRODUCTS)], PRODUCTS * 2.0 * MATRIX**3


def copy_probe(device: torch.device) -> tuple[Call, float]:
    """A call that copies memory, and the number of bytes that it reads and writes."""
    source = torch.randn(COPIED, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source), 2.0 * 4 * COPIED


def seconds_of(call: Callable[[], object], device: torch.device) -> float:
    """How long the call takes, in seconds, with all its work on the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start_s = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start_s


def matmul_flop(call: Call) -> float:
    """Operations of the matrix products in a call; a multiplication with its addition counts as two."""

    def attention(q: Sequence[int], k: Sequence[int], v: Sequence[int], *_: object, **__: object) -> int:
        batch, heads, rows, width = q
        return 2 * batch * heads * rows * k[2] * (width + v[3])

    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    with FlopCounterMode(display=False, custom_mapping={kernel: attention}) as counter:
        call()
    return float(counter.get_total_flops())


def traffic_bytes(call: Call) -> float:
    """Bytes that the operations of a call read and write; a byte counts each time."""
    with TrafficCounter() as seen:
        call()
    return float(seen.bytes)


class TrafficCounter(TorchDispatchMode):
    """Adds up the bytes of the tensors that operations read and write. Views count nothing."""

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


def held_bytes(*parts: object) -> float:
    """Bytes of all tensors in these objects: weights and buffers of modules, and attributes of perceiverd's objects.

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


def peak_bytes(call: Callable[[], object], device: torch.device) -> float | None:
    """The most bytes in use at once during the call, without those before it; None if the system does not report it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return float(torch.cuda.max_memory_allocated(device) - before)
    with suppress(OSError, AttributeError):  # glibc keeps freed memory, which would hide new allocations
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        before = _resident("VmRSS")
        call()
        return float(_resident("VmHWM") - before)
    except (OSError, StopIteration):
        return None


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def machine_name(device: torch.device) -> str:
    """The GPU's name, or the CPU's with its cores and vector instructions."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        return f"{name}, {len(os.sched_getaffinity(0))} cores, {torch.backends.cpu.get_cpu_capability()}"
    return f"{len(os.sched_getaffinity(0))} cores, {torch.backends.cpu.get_cpu_capability()}"
