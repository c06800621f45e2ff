"""Chooses and loads the engine of a model: ONNX Runtime or PyTorch. Importing it loads neither."""

from __future__ import annotations

import importlib.util
import logging
from functools import lru_cache, partial
from pathlib import Path

from perceiverd.core.errors import ConfigError
from perceiverd.core.logs import log_event
from perceiverd.model.card import Card
from perceiverd.model.engine import DEVICE_PATTERN, Engine, EngineName, Precision

logger = logging.getLogger("perceiverd.model")

NVIDIA_DEVICE = Path("/dev/nvidiactl")
"""Exists if the driver of an NVIDIA GPU is loaded."""


def load_engine(
    card: Card,
    engine: EngineName = "auto",
    device: str = "auto",
    threads: int = 0,
    precision: Precision = "auto",
    max_batch: int = 0,
) -> Engine:
    """The network of a card. `auto` takes ONNX Runtime on a CPU, if it is installed, and PyTorch on a GPU.

    `threads`: CPU threads, 0 for as many as there are cores. `precision` and `max_batch` (windows at once,
    0 for as many as are useful) are for GPUs. Raises ModelError if the model is broken, ConfigError if the engine or
    the device is missing.
    """
    if not DEVICE_PATTERN.fullmatch(device):
        raise ConfigError(f"device {device!r} is not auto, cpu, cuda or cuda:N")
    if engine == "onnxruntime" and device.startswith("cuda"):
        raise ConfigError(f'engine onnxruntime runs on the CPU only; for device {device} use engine "torch"')
    if engine == "torch" or (engine == "auto" and not _prefers_onnxruntime(device)):
        return _torch_engine(card, device, threads, precision, max_batch)
    try:
        from perceiverd.model.onnx_engine import OnnxEngine
    except ImportError as error:
        if engine == "auto":
            log_event(logger, logging.WARNING, "engine-unusable", engine="onnxruntime", used="torch", error=error)
            return _torch_engine(card, device, threads, precision, max_batch)
        raise ConfigError(f"engine onnxruntime cannot be loaded ({error}); pip install onnxruntime") from error
    return OnnxEngine(card, threads)


def _torch_engine(card: Card, device: str, threads: int, precision: Precision, max_batch: int) -> Engine:
    """PyTorch's engine; on a GPU one that the CPU stands in for if the GPU fails."""
    from perceiverd.model.cuda.devices import device_of

    where = device_of(device)
    if where.type == "cpu":
        from perceiverd.model.torch_engine import TorchEngine

        return TorchEngine(card, "cpu", threads)
    import torch

    from perceiverd.model.batch_sizes import batch_sizes
    from perceiverd.model.cuda.engine import CudaEngine
    from perceiverd.model.cuda.lanes import lanes_of
    from perceiverd.model.resilient import ResilientEngine

    if threads:  # now, for every thread that starts later: the CPU's engine may be loaded in one of them
        torch.set_num_threads(threads)
    sizes = batch_sizes(card.geometry, max_batch)
    return ResilientEngine(
        str(where),
        # An engine that is built again takes the streams of the one before: PyTorch has 32 of them and then gives the
        # same one out twice, also to another engine that records a graph in it.
        partial(CudaEngine, card, where, precision, sizes, lanes=lru_cache(maxsize=1)(lanes_of)),
        partial(load_engine, card, "auto", "cpu", threads),
    )


def _prefers_onnxruntime(device: str) -> bool:
    if device.startswith("cuda") or importlib.util.find_spec("onnxruntime") is None:
        return False
    return device == "cpu" or not may_have_gpu() or not _torch_finds_gpu()


def _torch_finds_gpu() -> bool:
    """A driver that is too old, or devices that this user may not open, leave `auto` the CPU."""
    import torch

    return torch.cuda.device_count() > 0


def may_have_gpu() -> bool:
    """Whether torch might find a GPU: there is a driver, and torch has its part for CUDA. Does not load torch."""
    spec = importlib.util.find_spec("torch")
    folders = (spec.submodule_search_locations if spec else None) or ()
    return NVIDIA_DEVICE.exists() and any((Path(folder) / "lib" / "libtorch_cuda.so").exists() for folder in folders)
