"""Tells the errors of a GPU apart, and forgets or keeps what they hold. It knows no engines."""

from __future__ import annotations

import ctypes
import traceback
from typing import Literal

import torch

ALLOCATION_WORDS = ("out of memory", "ALLOC_FAILED", "_STATUS_NOT_INITIALIZED", "CUFFT_INTERNAL_ERROR")
"""In errors of CUDA and its libraries that are no OutOfMemoryError. The last two are what cuBLAS, cuDNN and cuFFT say
if there is no memory for what they need themselves."""
CUDA_WORDS = ("CUDA", "cuDNN", "cuFFT")

Fault = Literal["memory", "lost"]


def fault_of(error: BaseException) -> Fault | None:
    """What an error says about the device: its memory is short, or this process has lost it; None: another error."""
    if isinstance(error.__context__, torch.OutOfMemoryError):  # raised while a graph that did not fit was given up
        return "memory"
    if isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in ALLOCATION_WORDS):
        return "memory" if isinstance(error, RuntimeError) else None
    is_cuda = isinstance(error, RuntimeError) and any(word in str(error) for word in CUDA_WORDS)
    return "lost" if isinstance(error, torch.AcceleratorError) or is_cuda else None


def clear_frames(error: BaseException) -> None:
    """Forget the variables of the calls that an error ended: they hold what was computed, in the device's memory."""
    seen: BaseException | None = error
    while seen is not None:
        traceback.clear_frames(seen.__traceback__)
        seen = seen.__context__


def keep_for_ever(held: object) -> None:
    """Never free this object nor what it refers to, not even when Python ends.

    To free the memory of a lost GPU needs CUDA, which would end the process: PyTorch's destructors must not raise, but
    that of pinned memory does (pytorch#178154). An error counts too: it refers to the variables of the calls it ended.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(held))


def first_line(error: BaseException) -> str:
    """What an error says, or its type if it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]
