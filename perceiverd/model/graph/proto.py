"""ONNX files as bytes: the few messages of onnx.proto3 that a graph needs. Knows no network.

The package `onnx` would do the same, but costs 40 MB of memory in each process that loads it. The tests read what this
module writes with that package. Numbers of fields: github.com/onnx/onnx, onnx/onnx.proto3; encoding:
protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

IR_VERSION, OPSET = 10, 20
"""Version of the file format, and of the operators: ONNX 1.16 and newer read them."""
FLOAT, UINT8, INT64, BOOL, FLOAT16, DOUBLE, BFLOAT16 = 1, 2, 7, 9, 10, 11, 16
"""Types of numbers, as in TensorProto.DataType."""
ELEMENT_TYPES = {np.dtype(np.float32): FLOAT, np.dtype(np.int64): INT64, np.dtype(np.float64): DOUBLE}
VARINT, LENGTH, FIXED32 = 0, 2, 5

Attribute = int | float | str | Sequence[int]


@dataclass(frozen=True, slots=True)
class ExternalData:
    """A tensor whose bytes are part of another file in the same folder."""

    name: str
    shape: tuple[int, ...]
    element_type: int
    file: str
    offset: int
    """Bytes before it in the file."""
    length: int
    """Bytes."""


Tensor = ExternalData | tuple[str, NDArray[np.generic]]
"""A tensor of a graph: elsewhere, or its name and its numbers."""


@dataclass(frozen=True, slots=True)
class Node:
    """One operator."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of the graph."""

    name: str
    element_type: int
    shape: tuple[int | str, ...]
    """A name stands for any size."""


def model(
    name: str,
    nodes: Iterable[Node],
    tensors: Iterable[Tensor],
    inputs: Iterable[Port],
    outputs: Iterable[Port],
    metadata: Mapping[str, str],
) -> bytes:
    """ModelProto: a graph of these nodes over these tensors."""
    graph = b"".join(
        (
            *(_message(1, _node(each)) for each in nodes),
            _text(2, name),
            *(_message(5, _external(t) if isinstance(t, ExternalData) else _tensor(*t)) for t in tensors),
            *(_message(11, _port(each)) for each in inputs),
            *(_message(12, _port(each)) for each in outputs),
        )
    )
    pairs = (_message(14, _pair(key, value)) for key, value in metadata.items())
    opset = _text(1, "") + _number(2, OPSET)
    return b"".join((_number(1, IR_VERSION), _text(2, "perceiverd"), _message(7, graph), _message(8, opset), *pairs))


def _node(node: Node) -> bytes:
    return b"".join(
        (
            *(_text(1, each) for each in node.inputs),
            *(_text(2, each) for each in node.outputs),
            _text(4, node.kind),
            *(_message(5, _attribute(name, value)) for name, value in node.attributes.items()),
        )
    )


def _attribute(name: str, value: Attribute) -> bytes:
    match value:
        case float():
            kind, data = 1, _tag(2, FIXED32) + struct.pack("<f", value)
        case int():
            kind, data = 2, _number(3, value)
        case str():
            kind, data = 3, _text(4, value)
        case _:
            kind, data = 7, b"".join(_number(8, each) for each in value)
    return _text(1, name) + data + _number(20, kind)


def _tensor(name: str, array: NDArray[np.generic]) -> bytes:
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    dims = b"".join(_number(1, n) for n in array.shape)
    return dims + _number(2, ELEMENT_TYPES[array.dtype]) + _text(8, name) + _message(9, little.tobytes())


def _external(data: ExternalData) -> bytes:
    where = {"location": data.file, "offset": str(data.offset), "length": str(data.length)}
    return b"".join(
        (
            *(_number(1, n) for n in data.shape),
            _number(2, data.element_type),
            _text(8, data.name),
            *(_message(13, _pair(key, value)) for key, value in where.items()),
            _number(14, 1),  # EXTERNAL
        )
    )


def _port(port: Port) -> bytes:
    dims = b"".join(_message(1, _text(2, n) if isinstance(n, str) else _number(1, n)) for n in port.shape)
    tensor = _number(1, port.element_type) + _message(2, dims)
    return _text(1, port.name) + _message(2, _message(1, tensor))


def _pair(key: str, value: str) -> bytes:
    return _text(1, key) + _text(2, value)


def _number(number: int, value: int) -> bytes:
    return _tag(number, VARINT) + _varint(value & (2**64 - 1))  # a negative number is its two's complement


def _text(number: int, text: str) -> bytes:
    return _message(number, text.encode())


def _message(number: int, data: bytes) -> bytes:
    return _tag(number, LENGTH) + _varint(len(data)) + data


def _tag(number: int, wire_type: int) -> bytes:
    return _varint(number << 3 | wire_type)


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the highest bit says whether more follow."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)
