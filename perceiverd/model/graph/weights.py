"""Where each tensor lies in a safetensors file, so that a graph can name its bytes instead of copying them.

The format: eight bytes with the length of the header, the header as JSON, then the tensors
(github.com/huggingface/safetensors). The library gives no offsets.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from perceiverd.core.errors import ModelError
from perceiverd.model.card import CARD_FILE, WEIGHTS_FILE, Card
from perceiverd.model.graph import proto

MOST_HEADER_BYTES = 100_000_000
"""The library's own limit."""
TYPES = {"F32": (proto.FLOAT, 4), "F16": (proto.FLOAT16, 2), "BF16": (proto.BFLOAT16, 2), "F64": (proto.DOUBLE, 8)}
"""Types that weights may have, with their bytes."""
TYPE_BYTES = dict(TYPES.values())


class _Header(msgspec.Struct):
    """What the header says of one tensor."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


@dataclass(frozen=True, slots=True)
class WeightsIndex:
    """The tensors of a model's file, with the places of their bytes."""

    path: Path
    tensors: Mapping[str, proto.ExternalData]
    data: mmap.mmap
    """The file as it was checked, also after another file has its name. Nobody may write into it meanwhile."""

    def values(self, name: str) -> NDArray[np.generic]:
        """A tensor in the file's memory, without a copy. bfloat16 and float16 are uint16, float64 is uint64."""
        tensor = self.tensors[name]
        kind = {2: np.uint16, 4: np.float32, 8: np.uint64}[TYPE_BYTES[tensor.element_type]]
        count = tensor.length // np.dtype(kind).itemsize
        return np.frombuffer(self.data, kind, count, tensor.offset).reshape(tensor.shape)

    def forget_pages(self) -> None:
        """Give the pages that were read back to the kernel; they come back when they are read."""
        self.data.madvise(mmap.MADV_DONTNEED)

    def find(self, name: str, shape: tuple[int, ...]) -> proto.ExternalData:
        """The tensor of this name. Raises ModelError unless it exists with this shape."""
        if (found := self.tensors.get(name)) is None:
            raise ModelError(f"{self.path}: tensor {name} is missing; the geometry needs it")
        if found.shape != shape:
            raise ModelError(f"{self.path}: tensor {name} is {found.shape}, but the geometry needs {shape}")
        return found

    def check_all_used(self, names: set[str]) -> None:
        """Raises ModelError if the file has tensors beside these."""
        if extra := sorted(self.tensors.keys() - names):
            raise ModelError(f"{self.path}: tensor {extra[0]} is not part of the model ({len(extra)} in all)")


def read_index(card: Card) -> WeightsIndex:
    """The index of a card's weights. Raises ModelError if sha256 or format are wrong, or a value is not finite."""
    path = card.folder / WEIGHTS_FILE
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        found = hashlib.sha256(data).hexdigest()
        if found != card.sha256:
            wrong = f"sha256 is {found[:12]}…, but {CARD_FILE} has {card.sha256[:12]}…"
            raise ModelError(f"{path}: {wrong}; fetch the model again")
        index = WeightsIndex(path, _tensors(path, data), data)
        for tensor in index.tensors.values():
            _check_finite(path, tensor, data)
        index.forget_pages()
        return index
    except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
        why = getattr(error, "strerror", None) or error
        raise ModelError(f"{path}: cannot read the weights: {why}") from error


def _tensors(path: Path, data: mmap.mmap) -> dict[str, proto.ExternalData]:
    length = int.from_bytes(data[:8], "little")
    if not 2 <= length <= min(MOST_HEADER_BYTES, len(data) - 8):
        raise ModelError(f"{path}: not a safetensors file (its header has {length} bytes)")
    try:
        header = msgspec.json.decode(data[8 : 8 + length], type=dict[str, msgspec.Raw])
        entries = {
            name: msgspec.json.decode(entry, type=_Header) for name, entry in header.items() if name != "__metadata__"
        }
    except msgspec.MsgspecError as error:
        raise ModelError(f"{path}: not a safetensors file ({error})") from error
    return {name: _located(path, name, entry, 8 + length, len(data)) for name, entry in entries.items()}


def _located(path: Path, name: str, entry: _Header, begin: int, end: int) -> proto.ExternalData:
    if entry.dtype not in TYPES:
        raise ModelError(
            f"{path}: tensor {name} is {entry.dtype}; weights must be dense float16, bfloat16, float32 or float64"
        )
    kind, size = TYPES[entry.dtype]
    first, last = entry.data_offsets
    if not 0 <= first <= last <= end - begin or last - first != size * int(np.prod(entry.shape, dtype=np.int64)):
        raise ModelError(f"{path}: not a safetensors file (the place of tensor {name} is wrong)")
    return proto.ExternalData(name, entry.shape, kind, path.name, begin + first, last - first)


def _check_finite(path: Path, tensor: proto.ExternalData, data: mmap.mmap) -> None:
    """Raises ModelError if a value is not finite in float32."""
    values = np.frombuffer(data, np.uint8, tensor.length, tensor.offset)
    if not np.isfinite(as_float32(values, tensor.element_type)).all():
        raise ModelError(f"{path}: tensor {tensor.name} has values that are not finite in float32")


def as_float32(raw: NDArray[np.uint8], element_type: int) -> NDArray[np.float32]:
    """The numbers in these bytes."""
    match element_type:
        case proto.FLOAT16:
            return raw.view("<f2").astype(np.float32)
        case proto.DOUBLE:
            with np.errstate(over="ignore"):
                return raw.view("<f8").astype(np.float32)
        case proto.BFLOAT16:  # the upper half of a float32
            return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
        case _:
            return raw.view("<f4")
