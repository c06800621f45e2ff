"""Builds a graph node by node: values are names, weights are places in the model's file. Knows no network."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perceiverd.model.graph import proto
from perceiverd.model.graph.weights import WeightsIndex

Value = str
"""The name of what a node gives, of a weight or of a constant."""


class GraphBuilder:
    """Collects the nodes of one graph."""

    def __init__(self, weights: WeightsIndex) -> None:
        self._weights = weights
        self._nodes: list[proto.Node] = []
        self._external: dict[str, proto.ExternalData] = {}
        self._constants: dict[str, NDArray[np.generic]] = {}
        self._known: dict[tuple[object, ...], Value] = {}
        """Constants and casts that exist already."""
        self._inputs: list[proto.Port] = []
        self._outputs: list[proto.Port] = []

    @property
    def used(self) -> set[str]:
        """The names of the weights so far."""
        return set(self._external)

    @property
    def read(self) -> set[str]:
        """Of these, the ones that a node reads. Some are only asked for because the geometry has them."""
        return {name for node in self._nodes for name in node.inputs} & self.used

    def input(self, name: str, element_type: int, *shape: int | str) -> Value:
        """An input of the graph."""
        self._inputs.append(proto.Port(name, element_type, shape))
        return name

    def output(self, value: Value, name: str, *shape: int | str) -> None:
        """Make this value an output of the graph, in float32."""
        self._nodes.append(proto.Node("Identity", (value,), (name,)))
        self._outputs.append(proto.Port(name, proto.FLOAT, shape))

    def weight(self, name: str, *shape: int) -> Value:
        """A weight of the model in float32. Raises ModelError unless the file has it with this shape."""
        found = self._weights.find(name, shape)
        self._external[name] = found
        return name if found.element_type == proto.FLOAT else self.cast(name, proto.FLOAT)

    def weight64(self, name: str, *shape: int) -> Value:
        """The same in float64, to fold it with others."""
        self.weight(name, *shape)
        return name if self._external[name].element_type == proto.DOUBLE else self.cast(name, proto.DOUBLE)

    def cast(self, value: Value, element_type: int) -> Value:
        key = ("cast", value, element_type)
        if key not in self._known:
            self._known[key] = self.node("Cast", value, to=element_type)
        return self._known[key]

    def constant(self, array: NDArray[np.generic]) -> Value:
        """A small table that is stored in the graph itself."""
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._known:
            name = self._known[key] = f"c{len(self._constants)}"
            self._constants[name] = array
        return self._known[key]

    def floats(self, values: ArrayLike) -> Value:
        return self.constant(np.asarray(values, np.float32))

    def ints(self, *values: int) -> Value:
        return self.constant(np.array(values, np.int64))

    def node(self, kind: str, *inputs: Value, **attributes: proto.Attribute) -> Value:
        """What an operator with one output gives."""
        return self.nodes(kind, *inputs, outputs=1, **attributes)[0]

    def nodes(self, kind: str, *inputs: Value, outputs: int, **attributes: proto.Attribute) -> tuple[Value, ...]:
        """What an operator with several outputs gives."""
        names = tuple(f"v{len(self._nodes)}_{i}" for i in range(outputs))
        self._nodes.append(proto.Node(kind, inputs, names, attributes))
        return names

    # Shapes. 0 keeps a size, and one size may be -1: what is left.

    def reshape(self, value: Value, *shape: int) -> Value:
        return self.node("Reshape", value, self.ints(*shape))

    def transpose(self, value: Value, *order: int) -> Value:
        return value if order == tuple(range(len(order))) else self.node("Transpose", value, perm=order)

    def concat(self, *values: Value, axis: int) -> Value:
        return self.node("Concat", *values, axis=axis) if len(values) > 1 else values[0]

    def split(self, value: Value, *sizes: int, axis: int) -> tuple[Value, ...]:
        if len(sizes) == 1:
            return (value,)
        return self.nodes("Split", value, self.ints(*sizes), outputs=len(sizes), axis=axis)

    def reduce(self, kind: str, value: Value, *axes: int, keep: bool = False) -> Value:
        """`kind`: Sum, Mean or Max."""
        return self.node(f"Reduce{kind}", value, self.ints(*axes), keepdims=int(keep))

    def model(self, name: str, metadata: dict[str, str] | None = None) -> bytes:
        """The ONNX file."""
        tensors: list[proto.Tensor] = [*self._external.values(), *self._constants.items()]
        return proto.model(name, self._nodes, tensors, self._inputs, self._outputs, metadata or {})
